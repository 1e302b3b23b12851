"""Figures: well-formed, recoloured, deterministic, and with the data's values at the data's places."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import fake_run
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.report import palette, plots
from clew.report.data import Stage, parse_summary

SUMMARY = parse_summary(fake_run.summary())
CURVE = [(float(i), float(i % 7)) for i in range(900)]


def figures() -> dict[str, str]:
    stages = SUMMARY.stages
    return {
        "stage": plots.accuracy_by_stage(stages),
        "thinking": plots.thinking(stages),
        "pass_at_k": plots.pass_at_k(stages),
        "difficulty": plots.accuracy_by_difficulty(stages),
        "search": plots.search_scaling(SUMMARY.search),
        "behaviours": plots.behaviours(stages),
        "transitions": plots.transition_map(stages[-1]),
        "curve": plots.training_curve("curve", ("title", "step", "reward"), CURVE),
    }


FIGURES = figures()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_xml_with_a_label_and_only_recoloured_ink(name: str) -> None:
    svg = FIGURES[name]
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert root.get("aria-label")
    outside = re.sub(r"var\(--[a-z0-9-]+, #[0-9a-f]{6}\)", "", svg)
    assert re.findall(r"#[0-9a-f]{6}\b", outside) == []
    assert "<image" not in svg


def test_text_is_text() -> None:
    words = "".join(ElementTree.fromstring(FIGURES["stage"]).itertext())
    for word in ("pre-training", "expert iteration", "greedy", "63", "69"):
        assert word in words


def test_the_same_data_give_the_same_bytes() -> None:
    assert figures() == FIGURES


def test_names_are_text_even_if_they_look_like_markup_or_mathematics() -> None:
    nasty = r"<b>&$\frac{1$"
    svg = plots.accuracy_by_stage([Stage(name=nasty, rates=SUMMARY.stages[0].rates)])
    assert nasty in "".join(ElementTree.fromstring(svg).itertext())


def test_names_too_long_or_without_a_glyph_still_draw() -> None:
    names = ("x" * 500, "\N{CJK UNIFIED IDEOGRAPH-7B97}\N{CJK UNIFIED IDEOGRAPH-6570}")
    svg = plots.accuracy_by_stage([Stage(name=n, rates=SUMMARY.stages[0].rates) for n in names])
    drawn = "".join(ElementTree.fromstring(svg).itertext())
    assert names[1] in drawn
    assert 20 < drawn.count("x") < 60


def test_nothing_to_draw_is_the_empty_string() -> None:
    bare = [Stage(name="rl")]
    drawn = (plots.accuracy_by_stage, plots.thinking, plots.pass_at_k, plots.accuracy_by_difficulty, plots.behaviours)
    assert [draw(bare) for draw in drawn] == [""] * 5
    assert [draw([]) for draw in drawn] == [""] * 5
    assert plots.search_scaling([]) == ""
    assert plots.transition_map(bare[0]) == ""
    assert plots.transition_map(Stage(name="rl", transitions={"analysis": {"completion": 0.0}})) == ""
    assert plots.training_curve("x", ("t", "x", "y"), [(0.0, 1.0)]) == ""


def test_a_transition_map_shows_shares_of_each_row() -> None:
    stage = Stage(name="rl", transitions={"analysis": {"completion": 1.0, "decomposition": 3.0}})
    texts = [t.strip() for t in ElementTree.fromstring(plots.transition_map(stage)).itertext() if t.strip()]
    assert sorted(t for t in texts if t.isdecimal()) == ["25", "75"]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_any_number_of_stages_gets_inks_from_pale_to_strong(n: int) -> None:
    places = [palette.RAMP.index(ink) for ink in palette.ramp(n)]
    assert len(places) == n
    assert places == sorted(places)
    assert places[-1] == len(palette.RAMP) - 1


def test_inks_are_distinct_so_that_recolouring_is_unambiguous() -> None:
    assert len({ink.light for ink in palette.ROLES}) == len({ink.name for ink in palette.ROLES}) == len(palette.ROLES)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("ink", [palette.TEXT, palette.MUTED, *palette.SERIES[:4], palette.SLATE])
def test_text_colours_reach_the_contrast_of_wcag_aa(ink: palette.Ink, mode: str) -> None:
    assert contrast(getattr(ink, mode), getattr(palette.PAPER, mode)) >= 4.5


curves = st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=40)


@given(curves, st.integers(1, 50))
def test_thinning_keeps_order_bounds_and_equal_runs(points: list[plots.Point], most: int) -> None:
    thin = plots.thinned(points, most)
    assert len(thin) <= most
    run = -(-len(points) // most)
    for i, (x, y) in enumerate(thin):
        part = points[i * run : (i + 1) * run]
        assert x == pytest.approx(sum(p[0] for p in part) / len(part))
        assert y == pytest.approx(sum(p[1] for p in part) / len(part))


@given(st.integers(1, 60), st.floats(-5, 5), st.floats(-5, 5))
def test_smoothing_leaves_a_straight_line_where_it_is(n: int, slope: float, level: float) -> None:
    line = [(float(i), slope * i + level) for i in range(n)]
    for x, y in plots.smoothed(line, 0.3):
        assert y == pytest.approx(slope * x + level, abs=1e-6)


def test_importing_the_report_does_not_import_matplotlib() -> None:
    code = (
        "import sys, clew.report.html, clew.report.table; print(*(m in sys.modules for m in ('matplotlib', 'torch')))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
