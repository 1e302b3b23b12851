from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from clew.core.errors import InvalidValue
from clew.stats.intervals import Rate, clustered, disjoint, wilson


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Wilson 95 % limits as printed by Newcombe (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_golden(right, n, low, high):
    rate = wilson(right, n)
    assert (rate.mean, rate.n) == (right / n, n)
    assert rate.low == pytest.approx(low, abs=5e-5)
    assert rate.high == pytest.approx(high, abs=5e-5)


@settings(deadline=None)
@given(n=st.integers(1, 2000), data=st.data())
def test_wilson_equals_scipy(n, data):
    right = data.draw(st.integers(0, n))
    rate = wilson(right, n)
    reference = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert rate.low == pytest.approx(reference.low, abs=1e-9)
    assert rate.high == pytest.approx(reference.high, abs=1e-9)


@settings(deadline=None)
@given(n=st.integers(1, 500), data=st.data())
def test_wilson_is_symmetric_and_holds_its_mean(n, data):
    right = data.draw(st.integers(0, n))
    rate, mirrored = wilson(right, n), wilson(n - right, n)
    assert 0.0 <= rate.low <= rate.mean <= rate.high <= 1.0
    assert rate.low == pytest.approx(1.0 - mirrored.high, abs=1e-12)


VALUES = st.lists(
    st.sampled_from([0.0, 0.125, 0.5, 1.0]) | st.floats(0.0, 1.0, allow_subnormal=False), min_size=1, max_size=40
)


@settings(deadline=None)
@given(values=VALUES, draws=st.integers(1, 64))
def test_clustered_holds_its_mean_and_is_never_certain(values, draws):
    rate = clustered(values, draws_per_problem=draws)
    assert 0.0 <= rate.low <= rate.mean <= rate.high <= 1.0
    assert rate.n == len(values)
    assert rate.high > rate.low


@settings(deadline=None)
@given(outcomes=st.lists(st.booleans(), min_size=1, max_size=60))
def test_one_draw_a_problem_is_wilson(outcomes):
    got, expected = clustered([float(o) for o in outcomes]), wilson(sum(outcomes), len(outcomes))
    assert (got.mean, got.low, got.high) == pytest.approx((expected.mean, expected.low, expected.high), abs=1e-12)


def test_clustered_is_close_to_student_when_the_rate_is_in_the_middle():
    values = np.random.default_rng(0).beta(4, 4, size=400)
    rate = clustered(values.tolist(), draws_per_problem=1000)
    half = 1.966 * values.std(ddof=1) / 20
    assert rate.low == pytest.approx(values.mean() - half, abs=5e-4)
    assert rate.high == pytest.approx(values.mean() + half, abs=5e-4)


@pytest.mark.parametrize(
    ("values", "draws", "effective"),
    [
        ([0.0, 1.0, 1.0, 1.0], 8, 4),  # nothing but the problem decides: as many outcomes as problems
        ([1.0, 1.0, 1.0, 1.0], 8, 4),  # no spread to learn from: the same
        ([0.75, 0.75, 0.75, 0.75], 8, 32),  # nothing but chance decides: as many outcomes as draws
        ([0.5, 0.75, 0.75, 1.0], 100, 4 * 0.1875 / (0.125 / 3)),
    ],
)
def test_clustered_effective_outcomes(values, draws, effective):
    mean, t = sum(values) / 4, 3.182446305284263  # Student's 97.5 % quantile for 3 degrees of freedom
    rate = clustered(values, draws_per_problem=draws)
    # The score limits are the roots p of (mean - p)^2 = t^2 p (1 - p) / effective.
    roots = np.roots([1 + t * t / effective, -2 * mean - t * t / effective, mean * mean])
    assert (rate.low, rate.high) == pytest.approx((roots.min(), roots.max()), abs=1e-7)


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.5), (5.0, 1.0)])
def test_coverage_of_clustered_and_lack_of_it_when_samples_are_taken_for_independent(a, b):
    draws, problems, trials = 8, 60, 2000
    rng = np.random.default_rng(1)
    right = rng.binomial(draws, rng.beta(a, b, size=(trials, problems)))
    truth = a / (a + b)
    covered = np.mean([_holds(clustered((row / draws).tolist(), draws_per_problem=draws), truth) for row in right])
    naive = np.mean([_holds(wilson(int(row.sum()), problems * draws), truth) for row in right])
    assert 0.935 <= covered <= 0.97
    assert naive < 0.90


def _holds(rate, truth):
    return rate.low <= truth <= rate.high


def test_disjoint():
    low, high = Rate(0.2, 0.1, 0.3, 10), Rate(0.5, 0.4, 0.6, 10)
    touching = Rate(0.35, 0.3, 0.4, 10)
    assert disjoint(low, high)
    assert disjoint(high, low)
    assert not disjoint(low, touching)
    assert not disjoint(high, touching)
    assert not disjoint(low, low)


def test_as_dict():
    assert Rate(0.2, 0.1, 0.3, 10).as_dict() == {"mean": 0.2, "low": 0.1, "high": 0.3, "n": 10}


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(0, 0),
        lambda: wilson(3, 2),
        lambda: wilson(-1, 2),
        lambda: clustered([]),
        lambda: clustered([0.5, 1.5]),
        lambda: clustered([float("nan")]),
        lambda: clustered([0.5], draws_per_problem=0),
    ],
)
def test_what_has_no_interval_is_an_error(call):
    with pytest.raises(InvalidValue):
        call()
