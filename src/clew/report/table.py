"""The one-screen table at the end of a run: its stages, then its searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clew.report.data import Rate, SearchPoint, Stage, parse_summary
from clew.report.words import NONE, count, duration, interval, percent, stage_label

WIDTH = 100
NARROW = 80
ROWS = 12
"""Searches shown before only the largest of each line is kept, so that the table stays on one screen."""


def print_stages(summary: Mapping[str, Any], console: Console) -> None:
    """Print the table of a `summary.json` object: whole into a file, as wide as it fits on a terminal."""
    if not console.is_terminal:
        console.width = WIDTH
    console.print(stage_table(summary, width=console.width))


def stage_table(summary: Mapping[str, Any], *, width: int = WIDTH) -> Table:
    """The table of a `summary.json` object; at most 100 columns wide, without its last two columns below that."""
    parsed = parse_summary(summary)
    k = _largest_shared_k(parsed.stages)
    table = Table(
        width=WIDTH if width >= WIDTH else NARROW,
        box=box.SIMPLE,
        pad_edge=False,
        caption=_caption(parsed.total_seconds, parsed.peak_rss_mib),
        caption_style="dim",
    )
    table.add_column("stage", ratio=1, overflow="fold")
    names = ("time", "tokens", "pass@1, 95 % interval", "greedy", f"pass@{k}", "length")
    shown = len(names) if width >= WIDTH else len(names) - 2
    for name in names[:shown]:
        table.add_column(name, justify="right", no_wrap=True)
    for stage in parsed.stages:
        table.add_row(*_stage_row(stage, k)[: 1 + shown])
    if parsed.search:
        table.add_section()
        table.add_row("search, per problem", "time", "tokens", "accuracy", style="bold")
        for point in _shown(parsed.search):
            table.add_row(*_search_row(point))
    return table


def _stage_row(stage: Stage, k: int) -> tuple[str | Text, ...]:
    greedy, at_k = stage.rates.get("greedy"), stage.pass_at_k.get(k)
    return (
        Text(stage_label(stage.name)),
        NONE if stage.seconds is None else duration(stage.seconds),
        NONE if stage.tokens is None else count(stage.tokens),
        _rate(stage.rates.get("pass_at_1")),
        NONE if greedy is None else percent(greedy.mean),
        NONE if at_k is None else percent(at_k.mean),
        NONE if stage.mean_length is None else f"{stage.mean_length:.1f}",
    )


def _search_row(point: SearchPoint) -> tuple[str | Text, ...]:
    seconds = point.cost.get("seconds")
    return (
        Text(point.label),
        NONE if seconds is None else f"{1000 * seconds:.0f} ms" if seconds < 1 else duration(seconds),
        NONE if point.tokens is None else count(point.tokens),
        _rate(point.accuracy),
    )


def _rate(rate: Rate | None) -> str:
    return NONE if rate is None else f"{percent(rate.mean)} ({interval(rate)})"


def _largest_shared_k(stages: Sequence[Stage]) -> int:
    """8 where it was measured, else the largest k that was."""
    measured = {k for stage in stages for k in stage.pass_at_k}
    return 8 if 8 in measured or not measured else max(measured)


def _shown(points: Sequence[SearchPoint]) -> list[SearchPoint]:
    if len(points) <= ROWS:
        return list(points)
    largest: dict[str, SearchPoint] = {}
    for point in points:
        best = largest.get(point.line)
        if best is None or (point.n or 0) >= (best.n or 0):
            largest[point.line] = point
    return list(largest.values())


def _caption(seconds: float | None, mib: float | None) -> str | None:
    parts = []
    if seconds is not None:
        parts.append(f"{duration(seconds)} in all")
    if mib is not None:
        parts.append(f"at most {mib / 1024:.2f} GiB of memory")
    return ", ".join(parts) or None
