"""The reliability diagram: a point a bin where it belongs, its interval about it."""

from __future__ import annotations

import matplotlib.axes
import pytest

from clew.report.reliability import reliability
from clew.stats.calibration import calibration_bins
from clew.stats.intervals import wilson


@pytest.fixture
def drawn(monkeypatch):
    """What was scattered and what lines were drawn."""
    seen = {"points": [], "lines": []}
    scatter, plot = matplotlib.axes.Axes.scatter, matplotlib.axes.Axes.plot

    def scattered(self, x, y, **kwargs):
        seen["points"] += list(zip(x, y, strict=True))
        return scatter(self, x, y, **kwargs)

    def plotted(self, x, y, **kwargs):
        seen["lines"].append((list(x), list(y)))
        return plot(self, x, y, **kwargs)

    monkeypatch.setattr(matplotlib.axes.Axes, "scatter", scattered)
    monkeypatch.setattr(matplotlib.axes.Axes, "plot", plotted)
    return seen


def test_a_point_and_an_interval_for_each_bin(drawn):
    bins = calibration_bins([0.1] * 10 + [0.9] * 20, [0.0] * 9 + [1.0] + [1.0] * 20)
    svg = reliability("Right against predicted", bins)
    assert svg.startswith("<svg") and 'aria-label="Right against predicted"' in svg
    assert drawn["points"] == [(pytest.approx(0.1), pytest.approx(0.1)), (pytest.approx(0.9), 1.0)]
    likely = wilson(1, 10)
    assert drawn["lines"][0] == ([0, 1], [0, 1])
    assert drawn["lines"][1] == ([pytest.approx(0.1)] * 2, [likely.low, likely.high])


def test_nothing_is_drawn_of_nothing():
    assert reliability("Nothing", []) == ""
