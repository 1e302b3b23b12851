"""Readings in passes: each sequence once, in its place, and no pass larger than it may be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clew.learn.passes import in_passes


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 40))
def test_what_is_said_of_each_stands_in_its_place(lengths: list[int], tokens_per_pass: int) -> None:
    passes = []

    def read(rows: list[int]) -> list[str]:
        passes.append(rows)
        return [f"row {row}" for row in rows]

    said = in_passes(read, lengths, tokens_per_pass=tokens_per_pass)
    assert said == [f"row {row}" for row in range(len(lengths))]
    assert sorted(row for rows in passes for row in rows) == list(range(len(lengths)))
    for rows in passes:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= tokens_per_pass
