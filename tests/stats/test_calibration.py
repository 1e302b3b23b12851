"""Ordering, calibration and correlation against slow definitions."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.stats.calibration import auc, calibration_bins, calibration_error, correlation

SCORED = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.5, 1.0]), st.booleans()), min_size=1, max_size=12)


@given(SCORED)
def test_auc_is_the_share_of_pairs_in_order(pairs):
    scores, right = zip(*pairs, strict=True)
    better = [s for s, r in pairs if r]
    worse = [s for s, r in pairs if not r]
    found = auc(scores, right)
    if not better or not worse:
        assert math.isnan(found)
        return
    won = sum((b > w) + 0.5 * (b == w) for b in better for w in worse)
    assert found == pytest.approx(won / (len(better) * len(worse)))
    assert auc([-s for s in scores], right) == pytest.approx(1 - found)


@given(SCORED, st.integers(1, 7))
def test_bins_hold_every_prediction_once(pairs, bins):
    probs, right = zip(*pairs, strict=True)
    found = calibration_bins(probs, right, bins)
    assert sum(b.n for b in found) == len(pairs)
    for b in found:
        inside = [(p, r) for p, r in pairs if b.low <= p < b.high or p == b.high == 1.0]
        assert b.n == len(inside)
        assert b.predicted == pytest.approx(statistics.mean(p for p, _ in inside))
        assert b.observed == pytest.approx(statistics.mean(r for _, r in inside))
    slow = sum(b.n * abs(b.predicted - b.observed) for b in found) / len(pairs)
    assert calibration_error(found) == pytest.approx(slow)


def test_true_probabilities_have_no_error_and_false_ones_theirs():
    assert calibration_error(calibration_bins([0.25] * 4, [1, 0, 0, 0])) == 0.0
    assert calibration_error(calibration_bins([0.95] * 4, [1, 0, 0, 0])) == pytest.approx(0.7)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=12))
def test_correlation_is_that_of_the_standard_library(pairs):
    a, b = zip(*pairs, strict=True)
    found = correlation(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(statistics.correlation(a, b), abs=1e-9)


@pytest.mark.parametrize("of", [auc, calibration_bins, correlation])
def test_what_cannot_be_paired_is_refused(of):
    for first, second in (([], []), ([0.5], [])):
        with pytest.raises(InvalidValue, match="numbers of predictions and outcomes"):
            of(first, second)
    with pytest.raises(InvalidValue, match="bins is 0"):
        calibration_bins([0.5], [1], 0)
