"""Rows without duplicates, and at most so many a problem: both say how many rows they dropped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed

T = TypeVar("T")


class Kept(NamedTuple, Generic[T]):
    """The rows that stay, in their order, and how many went."""

    rows: list[T]
    dropped: int


def without_duplicates(rows: Iterable[T], key: Callable[[T], Hashable]) -> Kept[T]:
    """The first row of each `key`.

    >>> without_duplicates("abca", str.upper)
    Kept(rows=['a', 'b', 'c'], dropped=1)
    """
    every = list(rows)
    first: dict[Hashable, T] = {}
    for row in every:
        first.setdefault(key(row), row)
    return Kept(list(first.values()), len(every) - len(first))


def capped(
    rows: Sequence[T], cap: int | None, *, problem: Callable[[T], Hashable], rank: Callable[[T], Any]
) -> Kept[T]:
    """The `cap` rows of lowest `rank` of each problem (None: all), of equals the first.

    >>> capped([3, 1, 2, 11], 2, problem=lambda n: n > 10, rank=lambda n: n)
    Kept(rows=[1, 2, 11], dropped=1)
    """
    if cap is not None and cap < 1:
        raise InvalidValue("cap", cap, "an integer of at least 1, or none for all rows", "raise it")
    of: defaultdict[Hashable, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        of[problem(row)].append(at)
    chosen = {at for places in of.values() for at in sorted(places, key=lambda at: rank(rows[at]))[:cap]}
    return Kept([row for at, row in enumerate(rows) if at in chosen], len(rows) - len(chosen))


def by_chance(seed: int, *names: int | str) -> int:
    """A rank that derives from `seed` and what the row is called: the same choice in whatever order rows come."""
    return derive_seed(seed, "cap", *names)
