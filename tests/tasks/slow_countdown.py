"""An independent slow reference: reduce a list by every operation on every ordered pair, with `Fraction`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction


def slow_results(numbers: Sequence[tuple[Fraction, str]]) -> Iterator[tuple[Fraction, str]]:
    """(value, fully bracketed text) of every expression over all `numbers`, with repetitions."""
    if len(numbers) == 1:
        yield numbers[0]
        return
    for i in range(len(numbers)):
        for j in range(len(numbers)):
            if i == j:
                continue
            rest = [numbers[k] for k in range(len(numbers)) if k != i and k != j]
            (a, x), (b, y) = numbers[i], numbers[j]
            yield from slow_results([*rest, (a + b, f"({x}+{y})")])
            yield from slow_results([*rest, (a - b, f"({x}-{y})")])
            yield from slow_results([*rest, (a * b, f"({x}*{y})")])
            if b != 0:
                yield from slow_results([*rest, (a / b, f"({x}/{y})")])


def slow_values(numbers: Sequence[int | Fraction]) -> set[Fraction]:
    """Values of every expression over all `numbers`."""
    values = [Fraction(number) for number in numbers]
    if len(values) == 1:
        return set(values)
    found = set()
    for i in range(len(values)):
        for j in range(len(values)):
            if i == j:
                continue
            a, b = values[i], values[j]
            rest = [values[k] for k in range(len(values)) if k != i and k != j]
            for result in [a + b, a - b, a * b] + ([a / b] if b else []):
                found |= slow_values([*rest, result])
    return found
