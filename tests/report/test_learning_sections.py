"""What a report says of training, of a loop and of labels: the numbers of the run, and nothing of a damaged one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_run
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.report import html, plots
from clew.report.captions import curve
from clew.report.data import Run, parse_summary, read_run
from clew.report.label_section import step_labels
from clew.report.learning_sections import alarms, learning, pass_rates, stability, where_samples_went
from clew.report.loop_section import round_rows, rounds
from clew.report.words import NONE, duration

RATE = {"mean": 0.45, "low": 0.40, "high": 0.50, "n": 300}
ROUND = {
    "round": "round-01",
    "learner": "distill then rl",
    "problems": 512,
    "d_search": 4000,
    "right": 1000,
    "updates": 31,
    "search": {"tokens": 250_000, "seconds": 30.0},
    "learning": {"tokens": 90_000, "seconds": 12.5},
    "pass_at_1": RATE,
    "arms": {"countdown:count=4": 0.25, "countdown:count=5": 0.75},
}
LABELS = {
    "method": "monte-carlo",
    "task": "countdown",
    "solutions": 8,
    "steps": 30,
    "labels": 28,
    "labels_that_count": 20,
    "mean_label": 0.5,
    "cost": {"tokens": 12_000},
    "exact_value": {"spearman": 0.71},
    "reliability": [
        {"low": 0.0, "high": 0.1, "predicted": 0.1, "observed": 0.2, "n": 30},
        {"low": 0.9, "high": 1.0, "predicted": 0.9, "observed": 0.9, "n": 10},
    ],
    "along": {"right": [[0.1, 0.4], [0.9, 1.0]], "wrong": [[0.1, 0.4], [0.9, 0.0]]},
}
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.sampled_from([RATE, ROUND, LABELS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ROUND, *LABELS]), inner, max_size=6),
    max_leaves=8,
)


@pytest.fixture
def no_figures(monkeypatch):
    """Titles of what would be drawn, instead of drawings."""
    drawn: list[str] = []
    for module in ("plots", "several_curves", "label_plots"):
        monkeypatch.setattr(f"clew.report.{module}.figure_svg", lambda name, *_: drawn.append(name) or "<svg></svg>")
    return drawn


def run_of(rows: list[dict[str, Any]], **more: Any) -> Run:
    return Run(name="r", summary=parse_summary({}), metrics=tuple({"stage": "rl", **row} for row in rows), **more)


def test_pass_at_1_stands_beside_the_largest_k_that_was_measured_throughout():
    rows = [{"step": at, "pass_at_1": 0.1 * at, "pass_at_2": 0.5, "pass_at_4": 0.8} for at in range(3)]
    rows[0]["pass_at_8"] = 1.0
    assert list(pass_rates(rows)) == ["pass@1", "pass@4"]
    assert [y for _, y in pass_rates(rows)["pass@1"]] == pytest.approx([0.0, 0.1, 0.2])
    assert pass_rates([{"step": 0, "pass_at_1": 0.5}]) == {}


def test_what_moves_is_drawn_and_what_does_not_is_said(no_figures):
    rows = [{"step": at, "accuracy": 0.5, "entropy": 1 - 0.1 * at, "ess": 1 - 1e-9 * at, "lr": 1.0} for at in range(9)]
    section = stability(run_of(rows))
    assert [figure.title for figure in section.figures] == ["Entropy"]
    assert "Steady throughout: effective sample size 1 and learning rate 1." in section.lead


def test_a_run_of_preferences_shows_their_rewards_and_not_pass_rates(no_figures):
    rows = [
        {"step": at, "accuracy": 0.5, "reward_chosen": at, "reward_rejected": -at, "reward_margin": 2 * at}
        for at in range(5)
    ]
    titles = [figure.title for figure in learning(run_of(rows)).figures]
    assert titles == ["Rewards of chosen and rejected", "Margin", "Told apart"]


def test_an_alarm_is_told_at_its_first_time():
    rows = [{"step": at, "alarm_entropy": float(at > 3), "alarm_length": 0.0} for at in range(6)]
    assert alarms(rows) == "Alarms that rang, each at its first time: entropy at step 4."
    assert alarms(rows[:4]) == ""


def test_every_sample_is_accounted_for():
    table = where_samples_went(run_of([], account={**fake_run.ACCOUNT})).table
    assert ["learnt from", "150", "75.0 %"] in table
    assert ["samples in all", "200", ""] in table
    assert where_samples_went(run_of([])).table == ()


def test_odd_samples_are_shown_once_with_why_they_are_odd(tmp_path: Path):
    found = html.odd_samples(read_run(fake_run.write(tmp_path, metrics=None)))
    assert [one.outcome for one in found] == ["wrong", "right"]
    assert found[0].reason == "reward 1 at step 40, paid although the verifier calls it wrong"
    assert found[1].reason == "reward 1 at step 7, odd by its length (4.18 standard deviations)"


def test_what_an_odd_sample_says_stays_text(tmp_path: Path):
    bad = {"text": "<script>alert(1)</script>", "odd_by": "<img src=x>", "parts": {"<b>": 1.0, "c": 2.0}, "reward": 3}
    text = html.render(read_run(fake_run.write(tmp_path, metrics=None, rl_odd_samples=[bad, {"text": 4}, 5])))
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "&lt;b&gt; 1, c 2" in text


def test_the_row_of_a_round_has_its_numbers():
    head, row = round_rows([ROUND])
    cells = dict(zip(head, row, strict=True))
    assert (cells["round"], cells["learnt by"], cells["solutions"]) == ("01", "distill then rl", "4.00 k")
    assert (cells["right"], cells["search"], cells["learning"]) == ("25.0\xa0%", "250 k", "90.0 k")
    assert (cells["time"], cells["pass@1"]) == (duration(42.5), "45.0\xa0% (40.0 to 50.0)")
    assert cells["posed"] == "countdown:count=4 25.0\xa0%\ncountdown:count=5 75.0\xa0%"
    assert "posed" not in round_rows([{**ROUND, "arms": {}}])[0]
    assert "posed anew" not in head


def test_questions_posed_anew_are_told_with_their_cost_where_there_are_any():
    none = {"tried": 0, "accepted": 0, "tokens": 0, "seconds": 0.0}
    some = {"tried": 64, "accepted": 9, "tokens": 2040, "seconds": 7.5}
    head, first, second = round_rows([{**ROUND, "mutants": none}, {**ROUND, "arms": {}, "mutants": some}])
    assert dict(zip(head, second, strict=True))["posed anew"] == "9 of 64, 2.04 k tokens"
    assert dict(zip(head, second, strict=True))["time"] == duration(50.0)
    assert (first[-1], second[-2]) == (NONE, NONE)


def test_labels_are_told_with_how_far_they_are_off(no_figures):
    section = step_labels(Run(name="r", summary=parse_summary(LABELS)))
    assert no_figures == ["labels-along", "label-reliability"]
    # (30 x 0.1 + 10 x 0) / 40
    assert "Over 40 steps the labels are off by 7.5\xa0%" in section.figures[1].caption
    assert "of right ones from 0.4 to 1, of wrong ones from 0.4 to 0" in section.figures[0].caption
    assert ["steps with a label", "28"] in section.table
    assert html.captions.headline(parse_summary(LABELS)) == "28 steps of 8 solutions are labelled."


@given(anything)
def test_damaged_rounds_and_labels_are_left_out_not_raised(raw: Any):
    summary = parse_summary({"rounds": raw, "labels_that_count": raw, "labels": raw, "along": raw, "reliability": raw})
    run = Run(name="r", summary=summary)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("plots", "label_plots"):
            patch.setattr(f"clew.report.{module}.figure_svg", lambda *_: "<svg></svg>")
        assert rounds(run).anchor == "rounds"
        assert step_labels(run).anchor == "labels"
        assert html.captions.headline(summary)


@given(st.floats(-1e5, 1e5), st.floats(1e-6, 1e4), st.integers(2, 6))
def test_no_two_ticks_of_an_axis_read_alike(low: float, span: float, ticks: int):
    values = [low + span * at / (ticks - 1) for at in range(ticks)]
    if max(map(abs, values)) < 999 and span > 1e-6 * max(map(abs, values)):
        assert len({plots.tick_text(value, span) for value in values}) == ticks


def test_a_loop_is_told_in_rounds_not_in_the_names_of_its_stages():
    stages = [{"name": name, "pass_at_1": RATE} for name in ("start", "round-01", "round-02")]
    told = html.captions.headline(parse_summary({"stages": stages}))
    assert told.startswith("After 2 rounds of search and learning, one sampled answer solves 45.0")


@pytest.mark.parametrize(
    ("after", "told"), [(1.001, "no behaviour became"), (1.2, "analysis changed most: 1.00 to 1.20")]
)
def test_behaviours_that_stay_are_not_said_to_change(after: float, told: str):
    stages = [
        {"name": "start", "behaviours": {"analysis": 1.0}},
        {"name": "round-01", "behaviours": {"analysis": after}},
    ]
    assert told in html.captions.behaviours(parse_summary({"stages": stages}).stages)


def test_a_few_steps_are_not_called_a_rise_and_rounding_is_nothing():
    assert curve("the reward", [(0.0, 0.4), (1.0, 0.5)]) == "The reward went from 0.4 to 0.5."
    assert curve("the reward", [(0.0, -3e-9), (1.0, 0.5)]) == "The reward went from 0 to 0.5."
