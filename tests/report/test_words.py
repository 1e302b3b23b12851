"""Numbers as text: golden values at the places where units change."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.report import palette, words


@pytest.mark.parametrize("module", [words, palette])
def test_the_examples_in_the_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1.00 k"),
        (9994, "9.99 k"),
        (9996, "10.0 k"),
        (99_960, "100 k"),
        (999_499, "999 k"),
    ],
)
def test_counts_round_into_the_next_unit(value: float, text: str) -> None:
    assert words.count(value) == text


@pytest.mark.parametrize(("s", "text"), [(59.94, "59.9 s"), (59.96, "1 min 0 s"), (3599.6, "1 h 0 min"), (0, "0.0 s")])
def test_durations_round_into_the_next_unit(s: float, text: str) -> None:
    assert words.duration(s) == text


@given(st.floats(1, 9.9e11))
def test_a_count_reads_back_within_half_a_percent(value: float) -> None:
    number, _, suffix = words.count(value).partition(" ")
    back = float(number) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[suffix]
    assert back == pytest.approx(value, rel=0.0051, abs=0.051)
