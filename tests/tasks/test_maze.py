"""Maze: its verifier, its solver and its problems."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import Outcome
from clew.tasks.maze import MOVES, Maze, shortest_path

TASK = Maze()
ROWS = ["S.#", "#..", "G.."]
PROBLEM = TASK.problem({"rows": ROWS})  # right down down left


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "nothing is written"),
        ("up", "move 1 (up) leaves the grid"),
        ("left", "move 1 (left) leaves the grid"),
        ("down down", "move 1 (down) runs into a wall"),
        ("right right", "move 2 (right) runs into a wall"),
        ("right down down", "does not end on G"),
        ("right down down left right", "does not end on G"),
        ("right down down left down", "move 5 (down) leaves the grid"),
        ("right down right right", "move 4 (right) leaves the grid"),
        ("Right down down left", "not a move: 'Right'"),
        ("r d d l", "not a move: 'r'"),
        ("right, down, down, left", "not a move: 'right,'"),
        ("right\ndown down left", "not a move: 'right\\ndown'"),
        ("right\u00a0down down left", "not a move: 'right\\xa0down'"),
        ("right down down left.", "not a move: 'left.'"),
        ("right down down left \ud800", "not a move: '\\ud800'"),
        ("rightdowndownleft", "not a move: 'rightdowndow'"),
        ("right " * 1_000_000, "too long"),
    ],
)
def test_wrong_paths(answer: str, reason: str) -> None:
    verdict = TASK.verify(PROBLEM, f"answer {answer}")
    assert (verdict.outcome, verdict.value, verdict.reason) == (Outcome.WRONG, 0.0, reason)


@pytest.mark.parametrize(
    "answer", ["right down down left", " right  down down left\n", "right down right down left left"]
)
def test_right_paths_need_not_be_shortest(answer: str) -> None:
    verdict = TASK.verify(PROBLEM, f"try up no answer {answer}")
    assert (verdict.outcome, verdict.value, verdict.answer) == (Outcome.RIGHT, 1.0, " ".join(answer.split()))


def slow_shortest(rows: list[str], limit: int) -> int | None:
    """Try every sequence of moves, shortest first, walking over complex numbers."""
    cells = {complex(x, y): mark for y, row in enumerate(rows) for x, mark in enumerate(row)}
    start = next(cell for cell, mark in cells.items() if mark == "S")
    for length in range(1, limit + 1):
        for path in product((1, -1, 1j, -1j), repeat=length):
            place = start
            for move in path:
                place += move
                if cells.get(place, "#") == "#":
                    break
            else:
                if cells[place] == "G":
                    return length
    return None


def mazes(width: int, height: int) -> st.SearchStrategy[list[str]]:
    size = width * height

    def build(marks: list[str], places: tuple[int, int]) -> list[str]:
        marks[places[0]], marks[places[1]] = "S", "G"
        return ["".join(marks[row * width : (row + 1) * width]) for row in range(height)]

    pairs = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(lambda pair: pair[0] != pair[1])
    return st.builds(build, st.lists(st.sampled_from(".#"), min_size=size, max_size=size), pairs)


@given(mazes(3, 2))
def test_shortest_path_agrees_with_trying_every_path(rows: list[str]) -> None:
    path = shortest_path(rows)
    assert (None if path is None else len(path)) == slow_shortest(rows, limit=5)


@given(mazes(4, 5))
def test_gold_is_accepted_and_mutants_are_not(rows: list[str]) -> None:
    problem = TASK.problem({"rows": rows})
    path = shortest_path(rows)
    if path is None:
        assert TASK.difficulty(problem) == "no path"
        with pytest.raises(InvalidValue, match="path from S to G"):
            TASK.gold(problem)
        return
    assert TASK.verify(problem, f"answer {TASK.gold(problem)}").right
    assert TASK.extract(f"answer {TASK.gold(problem)}") == TASK.gold(problem)
    for i, move in enumerate(path):
        assert not TASK.verify(problem, " ".join(path[:i])).right
        for other in MOVES:
            if other != move:
                # One changed move of a shortest path ends elsewhere, if it stays inside at all.
                assert not TASK.verify(problem, " ".join([*path[:i], other, *path[i + 1 :]])).right


def test_prompt_shows_the_rows() -> None:
    assert PROBLEM.prompt[1].content == "find a path\nS . #\n# . .\nG . ."
    assert PROBLEM.id == "maze:S.#/#../G.."


def test_settings_are_respected() -> None:
    problems = Maze(width=4, height=3, walls=0.0).problems("train", 60, seed=0)
    for problem in problems:
        rows = problem.metadata["rows"]
        assert [len(row) for row in rows] == [4, 4, 4]
        assert sorted("".join(rows)) == sorted("SG" + "." * 10)
    dense = "".join(
        "".join(p.metadata["rows"]) for p in Maze(width=9, height=9, walls=0.5).problems("train", 60, seed=0)
    )
    assert 0.3 < dense.count("#") / len(dense) < 0.6


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (["SG"], "01-03 moves"),
        (["S..G"], "01-03 moves"),
        (["S...G"], "04-06 moves"),
        (["S......G"], "07-09 moves"),
        (["S.........G"], "10+ moves"),
        (["S#G"], "no path"),
    ],
)
def test_difficulty(rows: list[str], name: str) -> None:
    assert TASK.difficulty(TASK.problem({"rows": rows})) == name


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [],
        "SG",
        ["SG", "."],
        ["S."],
        ["SGG"],
        ["SSG"],
        ["SGx"],
        [["S", "G"]],
        ["S" + "." * 20 + "G"],
        ["SG", *[".."] * 20],
        [""],
        ["S\uff0eG"],
        [3],
    ],
)
def test_bad_facts(rows: object) -> None:
    with pytest.raises(InvalidValue):
        TASK.problem({"rows": rows})


def test_unknown_fact_and_bad_settings() -> None:
    with pytest.raises(UnknownName, match="did you mean 'rows'"):
        TASK.problem({"row": ["SG"]})
    for settings in ({"width": 1}, {"height": 21}, {"walls": 0.7}, {"walls": -0.1}, {"walls": float("nan")}):
        with pytest.raises(InvalidValue):
            Maze(**settings)
