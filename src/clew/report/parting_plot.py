"""The figure of the over-optimisation watch: what is optimised and what is wanted, against how far the policy moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from clew.report.palette import BLUE, MUTED, TEXT, VERMILION
from clew.report.svg import REGULAR, figure_svg, legend_above
from clew.report.words import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class WatchPoint(NamedTuple):
    """One look: its step, sqrt(KL) from the start, both rewards, and whether the alarm rang."""

    step: int
    distance: float
    proxy: float
    truth: float
    parted: bool


def proxy_and_truth(points: Sequence[WatchPoint]) -> str:
    """What both rewards gained since the first look, against sqrt(KL) (arXiv 2210.10760, figure 1); "" for one look."""
    if len(points) < 2:
        return ""
    first = points[0]
    ordered = sorted(points, key=lambda point: point.distance)
    distances = [point.distance for point in ordered]

    def draw(ax: Axes) -> None:
        ax.axhline(0.0, color=MUTED.light, linewidth=0.8)
        for label, ink, marker, gains in (
            ("what is optimised", BLUE, "o", [point.proxy - first.proxy for point in ordered]),
            ("what is wanted (verifier)", VERMILION, "s", [point.truth - first.truth for point in ordered]),
        ):
            ax.plot(distances, gains, color=ink.light, marker=marker, markersize=4, label=label)
        rung = [point for point in points if point.parted]
        if rung:
            gains = [point.truth - first.truth for point in rung]
            where = [point.distance for point in rung]
            ax.plot(where, gains, color=TEXT.light, marker="x", markersize=9, linestyle="none", label="alarm")
        ax.set_xlabel("distance from the start, sqrt(KL in nats a response)")
        ax.set_title("gained since the start", loc="left", color=MUTED.light, pad=24)
        legend_above(ax)

    return figure_svg("parting", "Proxy and true reward against the distance from the start", draw, REGULAR)


def told(points: Sequence[WatchPoint]) -> str:
    """The caption."""
    first, last = points[0], points[-1]
    gains = (
        f"From the first look to the last, at distance {short(last.distance)}, what is optimised went from "
        f"{short(first.proxy)} to {short(last.proxy)}, what is wanted from {short(first.truth)} to {short(last.truth)}."
    )
    rung = [str(point.step) for point in points if point.parted]
    return f"{gains} " + (f"The alarm rang at step {', '.join(rung)}." if rung else "The alarm did not ring.")
