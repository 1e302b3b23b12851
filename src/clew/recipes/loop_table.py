"""The table that a loop ends with: a row a round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def round_table(summary: Mapping[str, Any]) -> Table:
    """What each round found, cost and reached; at most 100 columns wide."""
    from rich import box
    from rich.table import Table

    from clew.report.data import rate
    from clew.report.words import count, duration, with_interval

    caption = "tokens forward through the policy: a token of an update counts as three"
    table = Table(box=box.SIMPLE, width=100, pad_edge=False, caption=caption, caption_style="dim")
    for name in ("round", "learner"):
        table.add_column(name)
    for name in ("solutions", "right", "updates", "search", "learning", "time", "pass@1, 95 % interval"):
        table.add_column(name, justify="right")
    start = rate(summary["stages"][0]["pass_at_1"])
    table.add_row("start", *[""] * 7, "" if start is None else with_interval(start))
    for row in summary["rounds"]:
        known = rate(row["pass_at_1"])
        table.add_row(
            row["round"].removeprefix("round-"),
            row["learner"],
            count(row["d_search"]),
            f"{row['right'] / max(1, row['d_search']):.0%}",
            str(row["updates"]),
            count(row["search"]["tokens"]),
            count(row["learning"]["tokens"]),
            duration(row["search"]["seconds"] + row["learning"]["seconds"]),
            "" if known is None else with_interval(known),
        )
    return table
