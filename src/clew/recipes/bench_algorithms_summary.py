"""What the curves of `clew bench algorithms` come to: means with intervals, costs, and which names end apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

from clew.stats.blocks import blocks

if TYPE_CHECKING:
    from rich.table import Table

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Of each name a row a seed: its `looks`, what it `logged`, its `account` of samples."""
SHOWN = ("pass_at_1", "pass_at_k", "length", "entropy", "tokens", "cpu_s", "seconds")


def summarised(rows: Rows) -> dict[str, Any]:
    """Of each name its curve, its cost an update and what it logged; and the names that end apart."""
    number = len(next(iter(rows.values()))[0]["looks"])
    halves = [blocks(at_look(rows, place)).half_width for place in range(number)]
    budget = min(_mean(row["looks"][-1]["tokens"] for row in own) for own in rows.values())
    return {
        "algorithms": {name: one_name(own, halves, budget) for name, own in rows.items()},
        "equal_tokens": budget,
        "at_the_end": apart(rows),
    }


def at_look(rows: Rows, place: int) -> list[list[float]]:
    """pass@1 at one look [names, seeds]."""
    return [[row["looks"][place]["pass_at_1"] for row in own] for own in rows.values()]


def one_name(own: Sequence[Mapping[str, Any]], halves: Sequence[float], budget: float) -> dict[str, Any]:
    """A row a look, over seeds; pass@1 when `budget` tokens had been sampled; costs an update."""
    curve = [
        {
            "updates": own[0]["looks"][place]["updates"],
            **{key: _mean(row["looks"][place][key] for row in own) for key in SHOWN},
            "half_width": half if place else 0.0,
        }
        for place, half in enumerate(halves)
    ]
    updates = max(1, curve[-1]["updates"])
    logged = {key: _mean(row["logged"].get(key, math.nan) for row in own) for key in ("ess", "clipped", "kl")}
    learnt = _mean(row["account"].get("samples_learnt", math.nan) for row in own)
    return {
        "curve": curve,
        "pass_at_1": curve[-1]["pass_at_1"],
        "pass_at_1_at_equal_tokens": _mean(at_tokens(row["looks"], budget) for row in own),
        "gained_by_seed": [row["looks"][-1]["pass_at_1"] - row["looks"][0]["pass_at_1"] for row in own],
        "tokens_an_update": curve[-1]["tokens"] / updates,
        "cpu_s_an_update": curve[-1]["cpu_s"] / updates,
        "seconds_an_update": curve[-1]["seconds"] / updates,
        "samples_with_an_advantage_an_update": None if math.isnan(learnt) else learnt / updates,
        **{key: None if math.isnan(value) else value for key, value in logged.items()},
        "gradient_noise": noise_of([row["logged"] for row in own]),
        "diverged": sum(row["diverged_after"] is not None for row in own),
    }


def at_tokens(looks: Sequence[Mapping[str, Any]], budget: float) -> float:
    """pass@1 when `budget` tokens had been sampled, on the straight lines between looks; the last value beyond.

    >>> at_tokens([{"tokens": 0, "pass_at_1": 0.2}, {"tokens": 100, "pass_at_1": 0.4}], 25)
    0.25
    """
    for before, after in pairwise(looks):
        if before["tokens"] <= budget < after["tokens"]:
            share = (budget - before["tokens"]) / (after["tokens"] - before["tokens"])
            return float(before["pass_at_1"] + share * (after["pass_at_1"] - before["pass_at_1"]))
    return float(looks[-1]["pass_at_1"])


def noise_of(logged: Sequence[Mapping[str, float]]) -> float | None:
    """The gradient noise scale in problems: tr(Sigma) / |G|^2, both summed over all measurements before dividing.

    None where no signal was measured.
    """
    squared = math.fsum(one["noise_squared_gradient"] for one in logged)
    variance = math.fsum(one["noise_variance"] for one in logged)
    return variance / squared if squared > 0 and variance > 0 else None


def apart(rows: Rows) -> dict[str, Any]:
    """At the last look: what the deviation is, how far apart two names must be, and the pairs that are, best first."""
    values = at_look(rows, -1)
    found = blocks(values)
    means = {name: statistics.fmean(own) for name, own in zip(rows, values, strict=True)}
    order = sorted(means, key=lambda name: -means[name])
    least = found.least_difference
    pairs = [[a, b, means[a] - means[b]] for a, b in combinations(order, 2) if means[a] - means[b] > least]
    return {
        "order": order,
        "deviation": found.deviation,
        "df": found.df,
        "half_width": found.half_width,
        "least_difference": least,
        "pairs": len(order) * (len(order) - 1) // 2,
        "pairs_apart": pairs,
    }


def algorithms_table(measured: Mapping[str, Any]) -> Table:
    """A row a name, the best first."""
    from rich import box
    from rich.table import Table

    k, end = measured["held_out_samples"], measured["at_the_end"]
    half, least = (f"{100 * end[name]:.1f}" for name in ("half_width", "least_difference"))
    caption = f"pass@1 +- {half} points, least difference {least}; {measured['note']}"
    shown = Table(title="clew bench algorithms", caption=caption, box=box.SIMPLE)
    for head in ("", "pass@1", f"at {measured['equal_tokens']:,.0f} tokens", f"pass@{k}", "length", "entropy"):
        shown.add_column(head, justify="right" if head else "left")
    for head in ("tokens an update", "CPU s", "with an advantage", "noise", "clipped"):
        shown.add_column(head, justify="right")
    for name in end["order"]:
        shown.add_row(name, *_cells(measured["algorithms"][name]))
    return shown


def _cells(one: Mapping[str, Any]) -> list[str]:
    last = one["curve"][-1]
    rates = [last["pass_at_1"], one["pass_at_1_at_equal_tokens"], last["pass_at_k"]]
    learnt, noise, clipped = one["samples_with_an_advantage_an_update"], one["gradient_noise"], one["clipped"]
    return [
        *(f"{100 * rate:.1f} %" for rate in rates),
        f"{last['length']:.1f}",
        f"{last['entropy']:.3f}",
        f"{one['tokens_an_update']:,.0f}",
        f"{one['cpu_s_an_update']:.2f}",
        "" if learnt is None else f"{learnt:.0f}",
        "" if noise is None else f"{noise:,.0f}",
        "" if clipped is None else f"{100 * clipped:.2f} %",
    ]


def _mean(values: Any) -> float:
    """
    >>> _mean(x for x in (1.0, 2.0))
    1.5
    """
    return statistics.fmean(values)
