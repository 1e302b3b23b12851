"""Figures of labels: data at their places, nothing for nothing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from clew.report.label_plots import reliability
from clew.stats.calibration import calibration_bins


def markers_of(svg):
    """[lines] places of the markers of each line of the figure, in points from its upper left."""
    groups = [group for group in re.findall(r"<g clip-path[^>]*>(.*?)</g>", svg, re.DOTALL) if "<use" in group]
    return [[(float(x), float(y)) for x, y in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', g)] for g in groups]


def test_labels_lie_where_they_say_and_what_is_true_of_them():
    true = calibration_bins([0.05, 0.95], [0.05, 0.95])
    svg = reliability({"true": true, "proud": calibration_bins([0.95], [0.05])})
    ElementTree.fromstring(svg)
    assert ">proud</text>" in svg
    (low, high), ((x, y),) = markers_of(svg)
    assert low[0] < high[0] and low[1] > high[1]
    assert (x, y) == (high[0], low[1])


def test_nothing_to_draw():
    assert reliability({}) == reliability({"a": []}) == ""
