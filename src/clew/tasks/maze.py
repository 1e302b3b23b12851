"""Maze: walk from S to G in a small grid with walls."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from clew.core.errors import InvalidValue, UnknownName
from clew.core.seeds import derive_seed
from clew.core.task import Split
from clew.core.types import Message, Outcome, Problem, Verdict
from clew.tasks.answer import extract_answer
from clew.tasks.drawing import draw_distinct

INSTRUCTIONS = (
    "Walk from S to G through free cells (.), never into a wall (#) or out of the grid. You may think first. "
    "End with the word answer and then only the moves up, down, left and right, for example: answer up up left"
)
MAX_SIDE = 20
START, GOAL, FREE, WALL = "S", "G", ".", "#"

_BINS = ((3, "01-03 moves"), (6, "04-06 moves"), (9, "07-09 moves"))


class Cell(NamedTuple):
    row: int
    column: int


MOVES: dict[str, Cell] = {"up": Cell(-1, 0), "down": Cell(1, 0), "left": Cell(0, -1), "right": Cell(0, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Maze:
    """The task at one difficulty. The settings choose which problems are made, not which can be judged."""

    name: ClassVar[str] = "maze"

    width: int = 5
    """Columns, 2 to 20."""
    height: int = 5
    """Rows, 2 to 20."""
    walls: float = 0.3
    """Probability that a cell is a wall, 0 to 0.6."""

    def __post_init__(self) -> None:
        for side, value in (("width", self.width), ("height", self.height)):
            if not 2 <= value <= MAX_SIDE:
                raise InvalidValue(f"maze {side}", value, f"2 to {MAX_SIDE} cells", "choose a size in that range")
        if not 0.0 <= self.walls <= 0.6:
            raise InvalidValue("maze walls", self.walls, "a probability from 0 to 0.6", "use 0.3 for a fair share")

    def problems(self, split: Split, n: int, seed: int) -> list[Problem]:
        """`n` different solvable problems of `split`; those for a smaller `n` are the first of those for a larger."""
        rng = random.Random(derive_seed(seed, self.name, split))
        return draw_distinct(self._draw, split, n, rng=rng, task=self)

    def _draw(self, rng: random.Random) -> Problem | None:
        grid = [[WALL if rng.random() < self.walls else FREE for _ in range(self.width)] for _ in range(self.height)]
        cells = [(row, column) for row in range(self.height) for column in range(self.width)]
        for mark, (row, column) in zip((START, GOAL), rng.sample(cells, 2), strict=True):
            grid[row][column] = mark
        rows = ["".join(row) for row in grid]
        return _problem(rows) if shortest_path(rows) is not None else None

    def problem(self, metadata: dict[str, object]) -> Problem:
        """The problem of `{"rows": ["S.#", "..G"]}`: up to 20 rows of equal length, one S and one G."""
        for key in metadata:
            if key != "rows":
                raise UnknownName("maze problem key", str(key), ("rows",))
        advice = 'give for example {"rows": ["S.#", "..G"]}'
        rows = metadata.get("rows")
        if not isinstance(rows, list | tuple) or not 1 <= len(rows) <= MAX_SIDE:
            raise InvalidValue("maze rows", rows, f"a list of 1 to {MAX_SIDE} rows of text", advice)
        for row in rows:
            if not isinstance(row, str) or not 1 <= len(row) == len(rows[0]) <= MAX_SIDE or set(row) - set("SG.#"):
                accepted = f"1 to {MAX_SIDE} characters of S G . #, as many in each row"
                raise InvalidValue("a maze row", row, accepted, advice)
        content = "".join(rows)
        if content.count(START) != 1 or content.count(GOAL) != 1:
            raise InvalidValue("maze rows", list(rows), "exactly one S and one G", advice)
        return _problem(list(rows))

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Right only for moves that lead from S to G inside the grid and around every wall."""
        rows: list[str] = problem.metadata["rows"]
        answer = extract_answer(text)
        fault = _fault(rows, answer)
        canonical = self.extract(text)
        if fault:
            return Verdict(Outcome.WRONG, 0.0, canonical, fault)
        return Verdict(Outcome.RIGHT, 1.0, canonical, "reaches G")

    def extract(self, text: str) -> str | None:
        """The moves that `text` answers with, unjudged."""
        moves = _moves(extract_answer(text))
        return None if isinstance(moves, str) else " ".join(moves)

    def gold(self, problem: Problem) -> str:
        """A shortest path; raises `InvalidValue` if there is none."""
        path = shortest_path(problem.metadata["rows"])
        if path is None:
            raise InvalidValue("problem", problem.id, "a maze with a path from S to G", "remove walls")
        return " ".join(path)

    def difficulty(self, problem: Problem) -> str:
        """Bin by the length of a shortest path."""
        path = shortest_path(problem.metadata["rows"])
        if path is None:
            return "no path"
        return next((name for limit, name in _BINS if len(path) <= limit), "10+ moves")


def shortest_path(rows: Sequence[str]) -> list[str] | None:
    """Moves of a shortest path from S to G by breadth-first search; None if there is none.

    >>> shortest_path(["S#G", "..."])
    ['down', 'right', 'right', 'up']
    """
    start = _find(rows, START)
    came_from: dict[Cell, tuple[Cell, str]] = {}
    queue, seen = deque([start]), {start}
    while queue:
        cell = queue.popleft()
        if rows[cell.row][cell.column] == GOAL:
            return _trace(cell, start, came_from)
        for move in MOVES:
            following = _step(cell, move)
            if following not in seen and _look(rows, following) not in (None, WALL):
                seen.add(following)
                came_from[following] = (cell, move)
                queue.append(following)
    return None


def _trace(cell: Cell, start: Cell, came_from: dict[Cell, tuple[Cell, str]]) -> list[str]:
    path = []
    while cell != start:
        cell, move = came_from[cell]
        path.append(move)
    return path[::-1]


def _find(rows: Sequence[str], mark: str) -> Cell:
    return next(Cell(row, line.index(mark)) for row, line in enumerate(rows) if mark in line)


def _step(cell: Cell, move: str) -> Cell:
    return Cell(cell.row + MOVES[move].row, cell.column + MOVES[move].column)


def _look(rows: Sequence[str], cell: Cell) -> str | None:
    """What stands in `cell`; None outside the grid."""
    inside = 0 <= cell.row < len(rows) and 0 <= cell.column < len(rows[0])
    return rows[cell.row][cell.column] if inside else None


def _moves(answer: str) -> list[str] | str:
    """The moves, or in few words why these are none."""
    if len(answer) > MAX_SIDE * MAX_SIDE * len("right "):
        return "too long"
    if not answer:
        return "nothing is written"
    moves = [word for word in answer.split(" ") if word]
    unknown = next((word for word in moves if word not in MOVES), None)
    return moves if unknown is None else f"not a move: {unknown[:12]!a}"


def _fault(rows: Sequence[str], answer: str) -> str:
    """Why the moves do not solve the maze, in a few words; empty if they do."""
    moves = _moves(answer)
    if isinstance(moves, str):
        return moves
    cell = _find(rows, START)
    for number, move in enumerate(moves, start=1):
        cell = _step(cell, move)
        found = _look(rows, cell)
        if found is None or found == WALL:
            return f"move {number} ({move}) " + ("leaves the grid" if found is None else "runs into a wall")
    return "" if _look(rows, cell) == GOAL else "does not end on G"


def _problem(rows: list[str]) -> Problem:
    grid = "\n".join(" ".join(row) for row in rows)
    return Problem(
        id="maze:" + "/".join(rows),
        task=Maze.name,
        prompt=(Message("system", INSTRUCTIONS), Message("user", f"find a path\n{grid}")),
        metadata={"rows": rows},
    )
