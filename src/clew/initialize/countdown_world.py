"""The moves that a Countdown trace may show, and which of them can still reach the target.

A trace stays with what small models have words for: whole numbers up to `LARGEST_NUMBER`. That is
narrower than what the verifier accepts (fractions, negative results on the way).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from clew.initialize.vocabulary import LARGEST_NUMBER

Numbers = tuple[int, ...]
"""What is left, in descending order."""


class Move(NamedTuple):
    """`a op b = result`, which leaves `left`."""

    a: int
    op: str
    b: int
    result: int
    left: Numbers


def outcomes(a: int, b: int) -> list[tuple[int, str, int, int]]:
    """Every `(a, op, b, result)` of two numbers, larger first; dividing by one is left to multiplication."""
    a, b = max(a, b), min(a, b)
    found = [(a, "+", b, a + b), (a, "-", b, a - b), (a, "*", b, a * b)]
    if b > 1 and a % b == 0:
        found.append((a, "/", b, a // b))
    return [o for o in found if o[3] <= LARGEST_NUMBER]


@lru_cache(maxsize=1 << 16)
def moves(numbers: Numbers) -> tuple[Move, ...]:
    """Every different move on `numbers`."""
    found: dict[Move, None] = {}
    for i, j in combinations(range(len(numbers)), 2):
        rest = [n for at, n in enumerate(numbers) if at not in (i, j)]
        for a, op, b, result in outcomes(numbers[i], numbers[j]):
            found[Move(a, op, b, result, tuple(sorted((*rest, result), reverse=True)))] = None
    return tuple(found)


@lru_cache(maxsize=1 << 16)
def distinct_moves(numbers: Numbers) -> tuple[Move, ...]:
    """The first of `moves` for each different rest: of 5 + 0 and 5 - 0, say, the sum."""
    found: dict[Numbers, Move] = {}
    for move in moves(numbers):
        found.setdefault(move.left, move)
    return tuple(found.values())


@lru_cache(maxsize=1 << 17)
def reachable(numbers: Numbers) -> frozenset[int]:
    """Every value that the moves can make of all of `numbers`."""
    if len(numbers) == 1:
        return frozenset(numbers)
    return frozenset[int]().union(*(reachable(move.left) for move in moves(numbers)))


class Choice(NamedTuple):
    """The moves of a state, split by whether the target can still be reached after them."""

    good: tuple[Move, ...]
    bad: tuple[Move, ...]


@lru_cache(maxsize=1 << 17)
def choices(numbers: Numbers, target: int) -> Choice:
    """Good and bad moves towards `target`."""
    good = tuple(m for m in moves(numbers) if target in reachable(m.left))
    return Choice(good, tuple(m for m in moves(numbers) if target not in reachable(m.left)))


class Plan(NamedTuple):
    """A last step, chosen first: `target = need op given` (or `given op need`), with `left` to make `need` from."""

    need: int
    op: str
    given: int
    given_first: bool
    left: Numbers


@lru_cache(maxsize=1 << 16)
def plans(numbers: Numbers, target: int) -> tuple[Plan, ...]:
    """Every way to work backwards from `target` by one of `numbers`."""
    found: dict[Plan, None] = {}
    for at, given in enumerate(numbers):
        left = numbers[:at] + numbers[at + 1 :]
        options = [(target - given, "+", False), (target + given, "-", False), (given - target, "-", True)]
        if given > 1:
            options.append((target * given, "/", False))
            if target % given == 0:
                options.append((target // given, "*", False))
        for need, op, given_first in options:
            if 0 <= need <= LARGEST_NUMBER:
                found[Plan(need, op, given, given_first, left)] = None
    return tuple(found)
