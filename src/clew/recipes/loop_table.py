"""The table that a loop ends with: a row a round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clew.report.data import rate
from clew.report.words import count, duration, percent, with_interval

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH, NARROW = 100, 80
COLUMNS = ("learner", "found", "right", "updates", "search", "learning", "time", "pass@1, 95 % interval")
LEFT_OUT = frozenset({"found", "updates", "time"})
"""On a terminal narrower than `WIDTH`."""


def print_rounds(summary: Mapping[str, Any], console: Console) -> None:
    """Print the table of a loop's `summary.json`: whole into a file, as wide as it fits on a terminal."""
    if not console.is_terminal:
        console.width = WIDTH
    console.print(round_table(summary, width=console.width))


def round_table(summary: Mapping[str, Any], *, width: int = WIDTH) -> Table:
    """What each round found, cost and reached; at most 100 columns wide, or 80 with fewer columns."""
    from rich import box
    from rich.table import Table

    caption = "search, learning: tokens forward through the policy; a token of an update counts as three"
    shown = [name for name in COLUMNS if width >= WIDTH or name not in LEFT_OUT]
    table = Table(
        box=box.SIMPLE,
        width=WIDTH if width >= WIDTH else NARROW,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=caption if width >= WIDTH else caption.partition("; ")[0],
        caption_style="dim",
    )
    table.add_column("round", ratio=1)
    for name in shown:
        table.add_column(name, justify="left" if name == "learner" else "right", no_wrap=True)
    start = rate(summary["stages"][0]["pass_at_1"])
    table.add_row("start", *[""] * (len(shown) - 1), "" if start is None else with_interval(start))
    for row in summary["rounds"]:
        cells = _cells(row)
        table.add_row(row["round"].removeprefix("round-"), *(cells[name] for name in shown))
    return table


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    known = rate(row["pass_at_1"])
    texts = (
        row["learner"].replace(" then ", ", "),
        count(row["d_search"]),
        percent(row["right"] / max(1, row["d_search"])),
        str(row["updates"]),
        count(row["search"]["tokens"]),
        count(row["learning"]["tokens"]),
        duration(sum(row[part].get("seconds", 0.0) for part in ("mutants", "search", "learning"))),
        "" if known is None else with_interval(known),
    )
    return dict(zip(COLUMNS, texts, strict=True))
