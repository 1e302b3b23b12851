"""The reliability diagram: how often what was predicted with a probability came true (Murphy and Winkler, 1977)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clew.report.palette import BLUE, MUTED
from clew.report.svg import SMALL, figure_svg, legend_above
from clew.stats.calibration import CalibrationBin
from clew.stats.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def reliability(title: str, bins: Sequence[CalibrationBin]) -> str:
    """Observed against predicted share of each bin with its 95 % interval, an area for its size; "" without a bin."""
    if not bins:
        return ""
    most = max(b.n for b in bins)

    def draw(ax: Axes) -> None:
        ax.plot([0, 1], [0, 1], color=MUTED.light, linewidth=1.0, linestyle=(0, (4, 2)), label="as predicted")
        for b in bins:
            likely = wilson(round(b.observed * b.n), b.n)
            ax.plot([b.predicted, b.predicted], [likely.low, likely.high], color=BLUE.light, linewidth=1.4)
        sizes = [12 + 60 * math.sqrt(b.n / most) for b in bins]
        ax.scatter([b.predicted for b in bins], [b.observed for b in bins], s=sizes, color=BLUE.light, label="observed")
        ax.set_xlabel("predicted")
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.02, 1.02)
        legend_above(ax)

    return figure_svg("reliability", title, draw, SMALL)
