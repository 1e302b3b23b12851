"""What a model says of many sequences: passes over few of them at a time, which threads and ranks take side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from clew.learn.batch import micro_batches
from clew.learn.ranks import shared
from clew.models.side_by_side import side_by_side

Result = TypeVar("Result")


def in_passes(
    read: Callable[[list[int]], Sequence[Result]], lengths: Sequence[int], *, tokens_per_pass: int
) -> list[Result]:
    """What `read` says of each of the rows it is given, for all sequences of these `lengths`, in their order."""
    passes = micro_batches(lengths, tokens_per_pass)
    said = shared("readings", passes, lambda own: side_by_side(read, own))
    found = {row: one for rows, pieces in zip(passes, said, strict=True) for row, one in zip(rows, pieces, strict=True)}
    return [found[row] for row in range(len(lengths))]
