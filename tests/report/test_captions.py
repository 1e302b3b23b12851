"""The sentences never say more than the intervals do."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clew.report import captions
from clew.report.data import Rate, SearchPoint, Stage

HIGH, LOW, WIDE = Rate(0.6, 0.55, 0.65, 400), Rate(0.4, 0.35, 0.45, 400), Rate(0.5, 0.40, 0.60, 90)
unit = st.floats(0, 1)


@st.composite
def rates(draw: st.DrawFn) -> Rate:
    low, mean, high = sorted(draw(st.tuples(unit, unit, unit)))
    return Rate(mean, low, high, draw(st.integers(1, 1000)))


def test_thinking_pays_does_not_pay_or_cannot_be_told() -> None:
    assert captions.thinking(HIGH, LOW).startswith("Thinking pays: ")
    assert captions.thinking(LOW, HIGH).startswith("Thinking does not pay here: ")
    assert captions.thinking(HIGH, WIDE).startswith("This run cannot tell")
    assert "60.0\xa0% (55.0 to 65.0) of 400" in captions.thinking(HIGH, LOW)
    assert "40.0\xa0% (35.0 to 45.0)" in captions.thinking(HIGH, LOW)


@given(rates(), rates())
def test_no_verdict_is_given_on_overlapping_intervals(a: Rate, b: Rate) -> None:
    shared = max(a.low, b.low) <= min(a.high, b.high)
    assert captions.thinking(a, b).startswith("This run cannot tell") == shared
    assert captions.compared(a, b) == (
        "not clearly different from" if shared else "above" if a.mean > b.mean else "below"
    )


def test_touching_intervals_overlap() -> None:
    assert not captions.disjoint(Rate(0.5, 0.4, 0.6, 9), Rate(0.7, 0.6, 0.8, 9))


def test_accuracy_compares_with_the_stage_before() -> None:
    stages = [Stage(name=n, rates={"pass_at_1": r}) for n, r in (("pretrain", HIGH), ("sft", LOW), ("rl", HIGH))]
    said = captions.accuracy(stages)
    assert "above the 40.0\xa0% (35.0 to 45.0) of SFT" in said
    said = captions.accuracy([*stages[:2], Stage(name="rl", rates={"pass_at_1": WIDE})])
    assert "not clearly different from the 40.0\xa0%" in said


def test_sharpening_is_named_only_when_the_first_k_rose_and_the_last_did_not() -> None:
    def said(one: tuple[Rate, Rate], many: tuple[Rate, Rate]) -> str:
        pairs = zip(("sft", "rl"), one, many, strict=True)
        return captions.pass_at_k([Stage(name=n, pass_at_k={1: a, 8: b}) for n, a, b in pairs])

    assert "lost coverage at 8" in said((LOW, HIGH), (HIGH, LOW))
    assert "did not gain coverage at 8" in said((LOW, HIGH), (HIGH, WIDE))
    assert "coverage" not in said((LOW, HIGH), (LOW, HIGH))
    assert "coverage" not in said((WIDE, HIGH), (HIGH, LOW))


def test_search_leaves_the_verifier_out_of_the_blind_comparison() -> None:
    def point(strategy: str, guidance: str | None, accuracy: Rate) -> SearchPoint:
        return SearchPoint(strategy=strategy, guidance=guidance, n=8, cost={"tokens_sampled": 640.0}, accuracy=accuracy)

    points = [point("best-of-n", "verifier", Rate(0.9, 0.88, 0.92, 400)), point("majority-vote", None, WIDE)]
    said = captions.search(points, [Stage(name="rl", rates={"pass_at_1": LOW})])
    assert said.startswith("Best-of-8 (verifier) is best, 90.0\xa0% (88.0 to 92.0) for 640 tokens")
    assert "majority-vote of 8, 50.0\xa0% (40.0 to 60.0), not clearly different from one sample" in said


def test_a_curve_is_called_rising_only_beyond_its_noise() -> None:
    rise = [(float(i), float(i)) for i in range(100)]
    assert captions.curve("reward", rise) == "Reward rose from 4.5 to 94.5."
    assert captions.curve("reward", [(x, -y) for x, y in rise]) == "Reward fell from -4.5 to -94.5."
    jagged = [(float(i), (-1.0) ** i + 0.0005 * i) for i in range(100)]
    assert "no clear change" in captions.curve("reward", jagged)


@given(st.floats(-1e6, 1e6), st.integers(1, 60))
def test_a_constant_curve_shows_no_change(level: float, n: int) -> None:
    assume(math.isfinite(level))
    level = float(round(level))
    assert "no clear change" in captions.curve("x", [(float(i), level) for i in range(n)])


def test_reasons_that_differ_in_numbers_are_one_reason() -> None:
    found = captions.reasons({"equals 22, not 24": 3, "equals -7/2, not 12": 2, "no answer": 5, "uses 3 twice": 0})
    assert found == [("equals #, not #", 5, 0.5), ("no answer", 5, 0.5), ("uses # twice", 0, 0.0)]


@pytest.mark.parametrize("counts", [{}, {"no answer": 0}])
def test_no_reasons_at_all(counts: dict[str, float]) -> None:
    assert captions.reasons(counts) == []
