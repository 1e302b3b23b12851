"""Several quantities over training in one figure, each as it was (pale) and as a running mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clew.report.palette import MUTED, SERIES
from clew.report.plots import Point, smoothed, thinned, value_axis
from clew.report.svg import REGULAR, figure_svg, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def several_curves(name: str, labels: tuple[str, str, str], lines: Mapping[str, Sequence[Point]]) -> str:
    """One colour a line; `labels`: title, x axis, y axis. "" if no line has two points."""
    shown = {label: thinned(points) for label, points in lines.items() if len(points) > 1}
    if not shown:
        return ""
    title, xlabel, ylabel = labels

    def draw(ax: Axes) -> None:
        for (label, points), ink in zip(shown.items(), SERIES, strict=False):
            ax.plot(*zip(*points, strict=True), color=ink.light, alpha=0.3, linewidth=1.0)
            ax.plot(*zip(*smoothed(points), strict=True), color=ink.light, label=label)
        ax.set_xlabel(xlabel)
        value_axis(ax, xlabel, [y for points in shown.values() for _, y in points])
        ax.set_title(ylabel, loc="left", color=MUTED.light, pad=24)
        legend_above(ax)

    return figure_svg(name, title, draw, REGULAR)
