from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue, UnknownName
from clew.stats.step_scores import AGGREGATIONS, aggregate

PROBABILITIES = st.lists(st.sampled_from([0.0, 1.0, 0.5, 1e-200]) | st.floats(0.0, 1.0), min_size=1, max_size=9)


def slow(scores, how):
    exact = [Fraction(score) for score in scores]
    if how == "last":
        return exact[len(exact) - 1]
    if how == "min":
        return sorted(exact)[0]
    if how == "mean":
        return sum(exact) / len(exact)
    total = Fraction(1)
    for score in exact:
        total *= score
    return total


@pytest.mark.parametrize("how", AGGREGATIONS)
@given(scores=PROBABILITIES)
def test_against_exact_arithmetic(how, scores):
    assert aggregate(scores, how) == pytest.approx(float(slow(scores, how)), rel=1e-12, abs=1e-300)


def test_by_hand():
    scores = [0.5, 0.25, 1.0, 0.75]
    assert {how: aggregate(scores, how) for how in AGGREGATIONS} == {
        "last": 0.75,
        "min": 0.25,
        "mean": 0.625,
        "product": 0.09375,
    }


@pytest.mark.parametrize("how", AGGREGATIONS)
@given(score=st.floats(0.0, 1.0))
def test_one_step_is_its_own_score(how, score):
    assert aggregate([score], how) == score


@given(scores=PROBABILITIES)
def test_order(scores):
    assert aggregate(scores, "product") <= aggregate(scores, "min") <= aggregate(scores, "mean") * (1 + 1e-12) + 1e-300


def test_logits_are_aggregated_but_not_multiplied():
    assert aggregate([-3.0, 5.0, -1.0], "min") == -3.0
    assert aggregate([-3.0, 5.0, -1.0], "last") == -1.0
    assert aggregate([-3.0, 5.0, -2.0], "mean") == 0.0
    for scores in ([-3.0, -2.0], [1.5, 0.5], [float("nan"), 0.5]):
        with pytest.raises(InvalidValue, match="score of a step"):
            aggregate(scores, "product")


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_no_steps(how):
    with pytest.raises(InvalidValue, match="number of step scores"):
        aggregate([], how)


def test_unknown():
    with pytest.raises(UnknownName, match="product"):
        aggregate([0.5], "produkt")
