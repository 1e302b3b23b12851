"""The figure of a loop: pass@1 on held-out problems against all the compute of searching and learning so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from clew.report.data import Rate, number, rate
from clew.report.palette import BLUE, VERMILION
from clew.report.svg import REGULAR, figure_svg, legend_above
from clew.report.words import count, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class RoundPoint(NamedTuple):
    """After a round: compute so far in tokens that passed forward through the policy, and what it could do."""

    compute: float
    pass_at_1: Rate
    pass_at_k: Rate | None
    k: int


def round_points(metrics: Sequence[Mapping[str, Any]]) -> list[RoundPoint]:
    """The rows of a loop's metrics that end a round, in order."""
    points = []
    for row in metrics:
        compute, first = number(row.get("compute")), rate(row.get("pass_at_1"))
        if compute is not None and first is not None:
            points.append(RoundPoint(compute, first, rate(row.get("pass_at_k")), int(number(row.get("k")) or 0)))
    return points


def pass_rate_over_compute(points: Sequence[RoundPoint]) -> str:
    """pass@1 and pass@k, each with its 95 % interval; "" for a loop without a round."""
    if len(points) < 2:
        return ""

    def draw(ax: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, PercentFormatter

        lines = [("pass@1", BLUE, "o", [(p.compute, p.pass_at_1) for p in points])]
        many = [(p.compute, p.pass_at_k) for p in points if p.pass_at_k is not None]
        if many and points[-1].k > 1:
            lines.append((f"pass@{points[-1].k}", VERMILION, "s", many))
        for label, ink, marker, rates in lines:
            xs, means = [x for x, _ in rates], [r.mean for _, r in rates]
            low, high = [r.low for _, r in rates], [r.high for _, r in rates]
            ax.fill_between(xs, low, high, color=ink.light, alpha=0.16, linewidth=0)
            ax.plot(xs, means, color=ink.light, marker=marker, markersize=4.5, label=label)
        ax.set_ylim(0, 1.02)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: count(v).replace(".00", "").replace(".0 ", " ")))
        ax.set_xlabel("search and learning so far, tokens forward through the policy")
        legend_above(ax)

    return figure_svg("loop", "Pass rate against the compute of the loop", draw, REGULAR)


def told(points: Sequence[RoundPoint]) -> str:
    """What the figure says, in a sentence; "" without one."""
    if len(points) < 2:
        return ""
    first, last = points[0], points[-1]
    return (
        f"From {percent(first.pass_at_1.mean)} to {percent(last.pass_at_1.mean)} in {len(points) - 1} rounds of "
        f"{count(last.compute)} tokens in all; a token of an update counts as three."
    )
