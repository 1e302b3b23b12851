"""The section of a loop: its figure, and a row a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clew.report.data import Run, number, rate
from clew.report.loop_plot import pass_rate_over_compute, round_points, told
from clew.report.section import Section, drawn
from clew.report.words import NONE, count, duration, percent, with_interval

HEAD = ["round", "learnt by", "problems", "solutions", "right", "updates", "search", "learning", "time", "pass@1"]


def rounds(run: Run) -> Section:
    """Of `clew loop`: the pass rate against all that searching and learning cost, and what each round did."""
    points = round_points(run.metrics)
    figures = drawn(("Round by round", pass_rate_over_compute(points), told(points)))
    table = round_rows(run.summary.rounds)
    lead = "Search and learning in tokens forward through the policy: a token of an update counts as three."
    return Section(
        anchor="rounds",
        title="Search and learning",
        lead=lead if table else "",
        figures=figures,
        table=table,
    )


def round_rows(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Header and a row a round; empty for other runs. What a damaged row lacks is a dash."""
    if not found:
        return []
    further = {"posed": [_posed(row.get("arms")) for row in found], "posed anew": [_anew(row) for row in found]}
    shown = {name: cells for name, cells in further.items() if set(cells) != {NONE}}
    return [[*HEAD, *shown], *([*_cells(row), *rest] for row, *rest in zip(found, *shown.values(), strict=True))]


def _cells(row: Mapping[str, Any]) -> list[str]:
    solutions, right = number(row.get("d_search")), number(row.get("right"))
    search, learning = _part(row, "search"), _part(row, "learning")
    seconds = [part["seconds"] for part in (_part(row, "mutants"), search, learning) if "seconds" in part]
    known = rate(row.get("pass_at_1"))
    return [
        str(row.get("round", NONE)).removeprefix("round-"),
        str(row.get("learner", NONE)),
        _counted(number(row.get("problems"))),
        _counted(solutions),
        NONE if not solutions or right is None else percent(right / solutions),
        _counted(number(row.get("updates"))),
        _counted(search.get("tokens")),
        _counted(learning.get("tokens")),
        duration(sum(seconds)) if seconds else NONE,
        NONE if known is None else with_interval(known),
    ]


def _anew(row: Mapping[str, Any]) -> str:
    """How many questions of a file were changed and got an answer, of how many, and what that cost."""
    part = _part(row, "mutants")
    if not part.get("tried"):
        return NONE
    return f"{count(part.get('accepted', 0.0))} of {count(part['tried'])}, {count(part.get('tokens', 0.0))} tokens"


def _part(row: Mapping[str, Any], name: str) -> dict[str, float]:
    part = row.get(name)
    return {k: x for k, v in part.items() if (x := number(v)) is not None} if isinstance(part, Mapping) else {}


def _counted(value: float | None) -> str:
    return NONE if value is None else count(value)


def _posed(arms: object) -> str:
    """How the problems were spread over the settings of the task."""
    if not isinstance(arms, Mapping) or not arms:
        return NONE
    shares = {str(name): number(share) for name, share in arms.items()}
    return "\n".join(f"{name} {percent(share)}" for name, share in shares.items() if share is not None)
