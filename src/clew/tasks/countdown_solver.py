"""Exact solver for Countdown: what can be reached from a multiset of numbers, and by which expressions.

Intermediate results may be negative or fractional, as the verifier allows, so the answers are complete:
the value V* of a partial state is 1 exactly if some way to finish it is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from math import gcd
from typing import NamedTuple

from clew.tasks.expression import OPERATORS, Binary, Form, Node, Operator, apply, combine, evaluate, number_form

Number = int | Fraction
Ratio = tuple[int, int]
"""Numerator and positive denominator in lowest terms: several times faster than `Fraction` here."""

_TABLED = 4
"""Up to so many numbers all reachable values are kept (some thousands); above, one target is searched for."""


class Step(NamedTuple):
    """One operation on two of the numbers at hand."""

    left: Fraction
    op: Operator
    right: Fraction
    result: Fraction


def reachable(numbers: Iterable[Number]) -> frozenset[Fraction]:
    """Every value of an expression that uses each of `numbers` exactly once.

    >>> sorted(reachable([2, 4])) == [-2, Fraction(1, 2), 2, 6, 8]
    True
    """
    return frozenset(Fraction(*ratio) for ratio in _reach(_key(numbers)))


def reachable_integers(numbers: Iterable[Number]) -> frozenset[int]:
    """The integers among `reachable`, without building fractions."""
    return frozenset(numerator for numerator, denominator in _reach(_key(numbers)) if denominator == 1)


@lru_cache(maxsize=1 << 14)
def _reach_whole(numbers: tuple[int, ...]) -> frozenset[int]:
    if len(numbers) == 1:
        return frozenset(numbers)
    values: set[int] = set()
    for left, right in _int_splits(numbers):
        for a in _reach_whole(left):
            for b in _reach_whole(right):
                larger, smaller = max(a, b), min(a, b)
                values.update((a + b, larger - smaller, a * b))
                if smaller and larger % smaller == 0:
                    values.add(larger // smaller)
                if larger and not smaller:
                    values.add(0)
    return frozenset(values)


def reachable_whole(numbers: Iterable[int]) -> frozenset[int]:
    """Every value reachable with whole numbers of at least 0 on the way: the television game's rule.

    >>> 24 in reachable_whole([3, 3, 8, 8]), 24 in reachable_integers([3, 3, 8, 8])
    (False, True)
    """
    return _reach_whole(tuple(sorted(numbers)))


def best_value(numbers: Iterable[Number], target: Number) -> int:
    """V* of a partial state: 1 if `target` can be reached using all of `numbers`, else 0.

    >>> best_value([Fraction(1, 2), 7], 14), best_value([1, 1], 5)
    (1, 0)
    """
    return int(_can_reach(_key(numbers), _ratio(target)))


def solvable(numbers: Iterable[int], target: int) -> bool:
    """Whether some expression over exactly `numbers` equals `target`."""
    return best_value(numbers, target) == 1


def solutions(numbers: Iterable[int], target: int) -> list[str]:
    """All solutions that differ in canonical form, shortest first.

    >>> solutions([2, 3, 4], 14)
    ['2 + 3 * 4', '2 * (3 + 4)']
    """
    return list(_solutions(tuple(sorted(numbers)), target))


def find_solution(numbers: Iterable[int], target: int) -> str | None:
    """Some solution in canonical form, or None: for more numbers than `solutions` can enumerate.

    >>> find_solution([2, 3, 4], 14)
    '2 + 3 * 4'
    """
    key, goal = _key(numbers), _ratio(target)
    return _build(key, goal).text if _can_reach(key, goal) else None


def _build(numbers: tuple[Ratio, ...], target: Ratio) -> Form:
    """An expression over integers `numbers` for a `target` that they can reach."""
    if len(numbers) == 1:
        return number_form(numbers[0][0])
    way = next(_ways(numbers, target))
    return combine(way.op, _build(way.left, way.left_value), _build(way.right, way.right_value))


def steps(node: Node) -> list[Step]:
    """The operations of an expression, innermost and leftmost first; raises `ValueError` on division by zero."""
    if not isinstance(node, Binary):
        return []
    left, right, result = evaluate(node.left), evaluate(node.right), evaluate(node)
    if left is None or right is None or result is None:
        raise ValueError("the expression divides by zero")
    return [*steps(node.left), *steps(node.right), Step(left, node.op, right, result)]


def moves(numbers: Sequence[Number]) -> Iterator[tuple[Step, tuple[Fraction, ...]]]:
    """Every operation on an ordered pair of `numbers`, with the numbers at hand after it (the result last)."""
    values = [Fraction(number) for number in numbers]
    for i, left in enumerate(values):
        for j, right in enumerate(values):
            if i == j:
                continue
            rest = tuple(value for k, value in enumerate(values) if k not in (i, j))
            for op in OPERATORS:
                result = apply(op, left, right)
                if result is not None:
                    yield Step(left, op, right, result), (*rest, result)


def _ratio(number: Number) -> Ratio:
    return number.numerator, number.denominator


def _key(numbers: Iterable[Number]) -> tuple[Ratio, ...]:
    return tuple(sorted(map(_ratio, numbers)))


def _splits(items: tuple[Ratio, ...]) -> Iterator[tuple[tuple[Ratio, ...], tuple[Ratio, ...]]]:
    """Each way to part sorted `items` into two sorted groups, neither empty, once; the first item is on the left."""
    seen = set()
    for mask in range(1, 1 << len(items), 2):
        left = tuple(item for i, item in enumerate(items) if mask >> i & 1)
        right = tuple(item for i, item in enumerate(items) if not mask >> i & 1)
        if right and left not in seen:
            seen.add(left)
            yield left, right


@lru_cache(maxsize=1 << 12)
def _reach(numbers: tuple[Ratio, ...]) -> frozenset[Ratio]:
    if len(numbers) == 1:
        return frozenset(numbers)
    values: set[Ratio] = set()
    for left, right in _splits(numbers):
        for a, b in _reach(left):
            for c, d in _reach(right):
                values.update(_results(a, b, c, d))
    return frozenset(values)


def _results(a: int, b: int, c: int, d: int) -> list[Ratio]:
    """Results of all operations on a/b and c/d, in both orders."""
    ad, cb, bd, ac = a * d, c * b, b * d, a * c
    plus, minus = ad + cb, ad - cb
    common = gcd(plus, bd)
    values = [(plus // common, bd // common)]
    common = gcd(minus, bd)
    difference, denominator = minus // common, bd // common
    values += [(difference, denominator), (-difference, denominator)]
    common = gcd(ac, bd)
    values.append((ac // common, bd // common))
    common = gcd(ad, cb)
    if c:
        values.append((ad // common, cb // common) if c > 0 else (-ad // common, -cb // common))
    if a:
        values.append((cb // common, ad // common) if a > 0 else (-cb // common, -ad // common))
    return values


@lru_cache(maxsize=1 << 16)
def _can_reach(numbers: tuple[Ratio, ...], target: Ratio) -> bool:
    if len(numbers) <= _TABLED:
        return target in _reach(numbers)
    return next(_ways(numbers, target), None) is not None


class _Way(NamedTuple):
    """A last operation that gives the target: the two groups of numbers and what each has to make."""

    op: Operator
    left: tuple[Ratio, ...]
    left_value: Ratio
    right: tuple[Ratio, ...]
    right_value: Ratio


def _ways(numbers: tuple[Ratio, ...], target: Ratio) -> Iterator[_Way]:
    """Last operations on two or more `numbers` that reach `target`; at least one if there is any."""
    goal = Fraction(*target)
    for split in _splits(numbers):
        small, large = sorted(split, key=len)
        for value in _reach(small):
            if value[0] == goal == 0:
                yield _Way("*", small, value, large, _any_value(large))
            for op, other, known_first in _closings(Fraction(*value), goal):
                if _can_reach(large, _ratio(other)):
                    known, found = (small, value), (large, _ratio(other))
                    yield _Way(op, *known, *found) if known_first else _Way(op, *found, *known)


def _any_value(numbers: tuple[Ratio, ...]) -> Ratio:
    """The sum: one value that `numbers` can always make."""
    return _ratio(sum((Fraction(*number) for number in numbers), Fraction(0)))


class _Closing(NamedTuple):
    """`known op other`, or `other op known` if not `known_first`, equals the target."""

    op: Operator
    other: Fraction
    known_first: bool


def _closings(known: Fraction, target: Fraction) -> list[_Closing]:
    """The single operations that turn `known` into `target`.

    Left out are `0 * x = 0` and `0 / x = 0`, which hold for any x (other than 0): no operand is determined.
    """
    found = [
        _Closing("+", target - known, True),
        _Closing("-", known - target, True),
        _Closing("-", target + known, False),
    ]
    if known != 0:
        found += [_Closing("*", target / known, True), _Closing("/", target * known, False)]
    if known != 0 and target != 0:
        found.append(_Closing("/", known / target, True))
    return found


_Forms = dict[Fraction, frozenset[Form]]


@lru_cache(maxsize=1 << 12)
def _forms(numbers: tuple[int, ...]) -> _Forms:
    """Every canonical form over exactly `numbers`, by its value."""
    if len(numbers) == 1:
        return {Fraction(numbers[0]): frozenset([number_form(numbers[0])])}
    table: dict[Fraction, set[Form]] = {}
    for left, right in _int_splits(numbers):
        for a, a_forms in _forms(left).items():
            for b, b_forms in _forms(right).items():
                for op, x, y, x_forms, y_forms in _pairings(a, b, a_forms, b_forms):
                    result = apply(op, x, y)
                    if result is not None:
                        table.setdefault(result, set()).update(combine(op, f, g) for f in x_forms for g in y_forms)
    return {value: frozenset(forms) for value, forms in table.items()}


_Pairing = tuple[Operator, Fraction, Fraction, frozenset[Form], frozenset[Form]]


def _pairings(a: Fraction, b: Fraction, a_forms: frozenset[Form], b_forms: frozenset[Form]) -> Iterator[_Pairing]:
    for op in OPERATORS:
        yield op, a, b, a_forms, b_forms
        if op in "-/":
            yield op, b, a, b_forms, a_forms


def _int_splits(numbers: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    pairs = _splits(tuple((number, 1) for number in numbers))
    return [(tuple(n for n, _ in left), tuple(n for n, _ in right)) for left, right in pairs]


@lru_cache(maxsize=1 << 14)
def _solutions(numbers: tuple[int, ...], target: int) -> tuple[str, ...]:
    if len(numbers) == 1:
        return (str(target),) if numbers[0] == target else ()
    goal, texts = Fraction(target), set[str]()
    for left, right in _int_splits(numbers):
        small, large = sorted((left, right), key=len)
        others = _forms(large)
        for known, known_forms in _forms(small).items():
            closings = _closings(known, goal)
            if known == goal == 0:
                closings += [_Closing("*", other, True) for other in others]
                closings += [_Closing("/", other, True) for other in others if other != 0]
            for op, other, known_first in closings:
                for other_form in others.get(other, ()):
                    for known_form in known_forms:
                        x, y = (known_form, other_form) if known_first else (other_form, known_form)
                        texts.add(combine(op, x, y).text)
    return tuple(sorted(texts, key=lambda text: (len(text), text)))
