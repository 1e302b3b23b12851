"""The figure of learning curves: every name has its panel and its values, and what costs more is told apart."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from clew.report import algorithm_plots
from clew.report.algorithm_plots import learning_curves
from clew.report.palette import BLUE
from clew.report.svg import alone


def measured(tokens):
    """Names that end at 20 %, 21 %, ... in the order of `tokens`."""
    curves = {}
    for place, (name, most) in enumerate(tokens.items()):
        ends = [0.1, 0.12 + place / 100, 0.2 + place / 100]
        curve = [
            {"updates": at * 20, "tokens": at * most / 2, "pass_at_1": rate, "half_width": 0.01 if at else 0.0}
            for at, rate in enumerate(ends)
        ]
        curves[name] = {"curve": curve}
    return {"algorithms": curves, "updates": 40, "at_the_end": {"order": list(curves)[::-1]}}


GIVEN = measured({"a": 100, "b": 110, "tree": 900, "c": 100, "refills": 200, "d": 90, "e<b>": 100})


@pytest.fixture(scope="module")
def axes():
    """The axes that are drawn, in order."""
    from matplotlib.figure import Figure

    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(algorithm_plots, "sheet_svg", lambda _name, _title, draw, size: kept.append((draw, size)) or "")
        learning_curves(GIVEN)
    draw, size = kept[0]
    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    return figure.axes


def test_each_panel_has_its_own_curve_with_its_interval_over_the_others(axes):
    names = GIVEN["at_the_end"]["order"]
    assert [ax.get_title(loc="left") for ax in axes[:-1]] == names
    for ax, name in zip(axes, names, strict=False):
        curve = GIVEN["algorithms"][name]["curve"]
        own = ax.lines[-1]
        assert own.get_color() == BLUE.light
        assert list(own.get_xdata()) == [0, 20, 40]
        assert list(own.get_ydata()) == [point["pass_at_1"] for point in curve]
        assert len(ax.lines) == len(names)
        band = ax.collections[0].get_paths()[0].vertices
        last = sorted({round(float(y), 9) for x, y in band if x == 40})
        assert last == pytest.approx([curve[-1]["pass_at_1"] - 0.01, curve[-1]["pass_at_1"] + 0.01])
    assert len({ax.get_ylim() for ax in axes}) == 1


def test_names_that_sample_more_than_most_are_told_apart(axes):
    below = axes[-1]
    said = {text.get_text(): text.xy for text in below.texts}
    assert said == {
        "tree": (900.0, pytest.approx(0.22)),
        "refills": (200.0, pytest.approx(0.24)),
        "e<b>, best of the other 5": (100.0, pytest.approx(0.26)),
    }
    assert sorted(line.get_xdata()[-1] for line in below.lines) == [90, 100, 100, 100, 110, 200, 900]


def test_a_file_of_its_own_has_a_ground_and_both_palettes():
    svg = learning_curves(GIVEN)
    outside = re.sub(r"var\(--[a-z0-9-]+, #[0-9a-f]{6}\)", "", svg)
    assert re.findall(r"#[0-9a-f]{6}\b", outside) == []
    whole = alone(svg)
    root = ElementTree.fromstring(whole)
    assert [child.tag.rpartition("}")[2] for child in root][:2] == ["style", "rect"]
    assert root[0].text.count(f"--blue: {BLUE.light};") == root[0].text.count(f"--blue: {BLUE.dark};") == 1
    assert root.get("aria-label") == "pass@1 of 7 algorithms over 40 updates"
    assert whole == alone(learning_curves(GIVEN))
