"""Figures of step labels: what they say along a solution, and are they true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clew.report.palette import MARKERS, MUTED, RULE, SERIES
from clew.report.svg import REGULAR, figure_svg, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from clew.stats.calibration import CalibrationBin

Point = tuple[float, float]


def labels_along(lines: Mapping[str, Sequence[Point]]) -> str:
    """Mean label against the place in a solution, a line for right and one for wrong solutions; "" without points."""
    shown = {name: sorted(points) for name, points in lines.items() if points}
    if not shown:
        return ""

    def draw(ax: Axes) -> None:
        for i, (name, points) in enumerate(shown.items()):
            ink, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
            ax.plot(*zip(*points, strict=True), color=ink.light, marker=marker, markersize=5, label=f"{name} solutions")
        ax.set_xlim(0, 1)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel("place of the step in its solution, 0 first, 1 last")
        ax.set_title("mean label", loc="left", color=MUTED.light, pad=24)
        legend_above(ax)

    return figure_svg("labels-along", "Labels along right and wrong solutions", draw, REGULAR)


def reliability(curves: Mapping[str, Sequence[CalibrationBin]], *, against: str = "true value") -> str:
    """Mean of what each label says against the mean of what is true, a line a method; on the diagonal they agree."""
    shown = {name: bins for name, bins in curves.items() if bins}
    if not shown:
        return ""

    def draw(ax: Axes) -> None:
        ax.plot([0, 1], [0, 1], color=RULE.light, linewidth=1.0)
        for i, (name, bins) in enumerate(shown.items()):
            ink, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
            at = [one.predicted for one in bins], [one.observed for one in bins]
            ax.plot(*at, color=ink.light, marker=marker, markersize=5, label=name)
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel("label")
        ax.set_ylabel(against)
        legend_above(ax)

    return figure_svg("label-reliability", f"Labels against the {against}", draw, REGULAR)
