"""What a report is made of: sections of figures and tables, and the curves that several of them draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clew.report import captions, plots
from clew.report.data import Run, number


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure, its title and the sentence under it."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    anchor: str
    title: str
    lead: str = ""
    figures: tuple[Figure, ...] = ()
    layout: str = "two"
    """CSS class of the figure grid: `one` wide, `two` columns, `first` alone and then two, `small` multiples."""
    table: Sequence[Sequence[str]] = ()
    table_title: str = ""
    table_class: str = ""
    """`prose` where the cells are sentences."""


def series(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> list[plots.Point]:
    """The finite (x, y) pairs of `rows`, in order."""
    pairs = ((number(row.get(x)), number(row.get(y))) for row in rows)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def reward_stage(run: Run) -> tuple[str, str]:
    """The last stage with a reward or accuracy at its steps, and which of the two; empty without one."""
    for key in ("accuracy", "reward"):
        names = [str(row.get("stage", "")) for row in run.metrics if number(row.get(key)) is not None]
        if names:
            return names[-1], key
    return "", ""


def rows_of(run: Run, stage: str) -> list[Mapping[str, Any]]:
    """The metrics of one stage."""
    return [row for row in run.metrics if str(row.get("stage", "")) == stage]


def curve(name: str, xlabel: str, ylabel: str, points: Sequence[plots.Point], *, small: bool = False) -> str:
    """A training curve with a title made of its axes; "" for fewer than two points."""
    return plots.training_curve(name, (f"{ylabel} against {xlabel}", xlabel, ylabel), points, small=small)


def said(what: str, points: Sequence[plots.Point], unit: str = "") -> str:
    """The caption of a curve; "" without points."""
    return captions.curve(what, points, unit) if points else ""


def drawn(*figures: tuple[str, str, str]) -> tuple[Figure, ...]:
    """Those of (title, SVG, caption) that have something to show."""
    return tuple(Figure(title=title, svg=svg, caption=caption) for title, svg, caption in figures if svg)


def capitalised(text: str) -> str:
    """`text` as a title."""
    return text[:1].upper() + text[1:]
