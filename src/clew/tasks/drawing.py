"""Draw different problems of one split at random, for tasks that have too many problems to list."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol, TypeVar

from clew.core.errors import InvalidValue
from clew.core.task import Split, split_of

_PATIENCE = 100_000
"""Draws in a row without a new problem before the settings count as exhausted."""


class Named(Protocol):
    """Anything with a canonical problem id."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Named)


def draw_distinct(
    draw: Callable[[random.Random], T | None], split: Split, n: int, *, rng: random.Random, task: object
) -> list[T]:
    """`n` results of `draw` (None: try again) that belong to `split`, with different ids, in the order drawn."""
    found: dict[str, T] = {}
    in_vain = 0
    while len(found) < n and in_vain < _PATIENCE:
        item = draw(rng)
        in_vain += 1
        if item is not None and item.id not in found and split_of(item.id) == split:
            found[item.id] = item
            in_vain = 0
    if len(found) < n or n < 0:
        raise too_few(n, len(found), split, task)
    return list(found.values())


def too_few(n: int, available: int, split: Split, task: object) -> InvalidValue:
    """The error for a split that cannot give `n` problems."""
    accepted = f"0 to {available}, the different problems found in split {split!r} of {task}"
    return InvalidValue("number of problems", n, accepted, "ask for fewer, or widen the task's settings")
