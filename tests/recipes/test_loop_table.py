"""The table at the end of a loop loses nothing that it says on a terminal of any width, or in a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from clew.recipes.loop_table import print_rounds

RATE = {"mean": 0.4567, "low": 0.4234, "high": 0.4891, "n": 300}
ROUND = {
    "round": "round-01",
    "learner": "distill then rl",
    "d_search": 409_600,
    "right": 204_800,
    "updates": 12_345,
    "mutants": {"tried": 64, "accepted": 32, "tokens": 1000, "seconds": 100.0},
    "search": {"tokens": 999_000_000, "seconds": 2900.0},
    "learning": {"tokens": 123_000_000, "seconds": 599.0},
    "pass_at_1": RATE,
}
SUMMARY = {"stages": [{"pass_at_1": {**RATE, "mean": 0.1}}], "rounds": [ROUND]}


def printed(**how):
    console = Console(file=io.StringIO(), **how)
    print_rounds(SUMMARY, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_terminal_shows_every_round_whole(width):
    text = printed(width=width, force_terminal=True, color_system=None)
    assert max(map(len, text.splitlines())) <= width
    assert "45.7\xa0% (42.3 to 48.9)" in text and "10.0\xa0% (42.3 to 48.9)" in text
    assert "distill, rl" in text and "999 M" in text and "123 M" in text
    assert ("12345" in text) == ("59 min 59 s" in text) == (width >= 100)


def test_a_file_has_all_of_it():
    text = printed(width=80)
    assert "12345" in text and "59 min 59 s" in text and "45.7\xa0% (42.3 to 48.9)" in text
