"""Guards: alarms ring as often as they say where nothing is wrong, and they ring where something is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.reward.overoptimisation import Law, Look, fit_law, paired_change, parting
from clew.reward.shift import Familiar, energy_distance, shift_test


def look(step, proxy, true, kl=1.0):
    return Look(step=step, kl=kl, proxy_P=tuple(proxy), true_P=tuple(true))


def looks_of(rng, means, problems=60):
    """Rewards of problems that differ among themselves more than looks do."""
    hard = rng.normal(size=problems)
    return [
        look(step, hard + p + 0.2 * rng.normal(size=problems), hard + t + 0.2 * rng.normal(size=problems))
        for step, (p, t) in enumerate(means)
    ]


def test_the_alarm_rings_where_the_proxy_rises_and_the_truth_falls_and_nowhere_else():
    rng = np.random.default_rng(0)
    for means, rings in (
        ([(0, 0), (0.2, -0.2)], True),
        ([(0, 0), (0.2, 0.2)], False),
        ([(0, 0), (-0.2, -0.2)], False),
        ([(0, 0), (-0.2, 0.2)], False),
        ([(0, 0), (0.2, 0.0)], False),
    ):
        assert parting(looks_of(rng, means), 1).alarm == rings
    # It compares with the look `window` before, not with the first.
    turned = looks_of(rng, [(0.0, 0.0), (0.1, 0.5), (0.2, 0.4), (0.3, 0.3)])
    assert not parting(turned, 3).alarm
    assert parting(turned, 2).alarm
    assert parting(turned, 4) is None
    with pytest.raises(InvalidValue, match="window"):
        parting(turned, 0)


def test_where_only_the_proxy_rises_false_alarms_are_no_more_than_said():
    rng = np.random.default_rng(1)
    rung = [parting(looks_of(rng, [(0, 0), (1.0, 0)]), 1).alarm for _ in range(1500)]
    # 2.5 % of 1500 are 37.5, with a standard deviation of 6.
    assert 18 <= sum(rung) <= 58
    rng = np.random.default_rng(2)
    assert sum(parting(looks_of(rng, [(0, 0), (0, 0)]), 1).alarm for _ in range(1500)) <= 6


def test_paired_changes_against_scipy_and_the_formula():
    from scipy import stats

    before, after = [0.1, 0.4, 0.2, 0.9], [0.3, 0.4, 0.7, 0.8]
    found = paired_change(before, after)
    test = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((test.low, test.high))
    assert found.mean == pytest.approx(0.15)


def test_problems_that_could_not_be_scored_are_left_out_of_both_looks():
    nan = math.nan
    assert paired_change([nan, 0.0, 1.0, 5.0], [1.0, 1.0, 2.0, nan]) == (1.0, 1.0, 1.0)
    assert math.isnan(paired_change([nan, 0.0], [1.0, 1.0]).mean)
    assert not parting([look(0, [nan, 0], [nan, 0]), look(1, [1, 1], [0, -1])], 1).alarm
    assert look(0, [nan, 2.0], [nan, 1.0]).proxy == 2.0


def test_a_look_says_what_it_saw_and_refuses_what_cannot_be_compared():
    seen = look(3, [1.0, 2.0], [0.0, 1.0], kl=2.25)
    assert (seen.distance, seen.proxy, seen.true) == (1.5, 1.5, 0.5)
    assert look(0, [0, 0], [0, 0], kl=-0.01).distance == 0.0
    for proxy, true in (([1.0], [1.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(InvalidValue, match="rewards of a look"):
            look(0, proxy, true)


@given(st.floats(0.1, 5.0), st.floats(0.05, 2.0))
def test_a_law_is_found_again_and_its_peak_is_its_largest_gain(alpha, beta):
    law = Law(alpha, beta)
    distances = [0.0, 0.3, 0.9, 2.0, 4.0]
    assert fit_law(distances, [law.gain(d) for d in distances]) == pytest.approx(law, rel=1e-6, abs=1e-8)
    assert law.gain(law.peak) >= max(law.gain(law.peak * f) for f in (0.5, 0.9, 1.1, 2.0))


def test_a_law_needs_two_distances():
    assert Law(1.0, -0.1).peak == math.inf
    assert Law(1.0, 0.5).gain(0.0) == 0.0
    with pytest.raises(InvalidValue, match="two different"):
        fit_law([0.0, 0.5, 0.5], [0.0, 0.1, 0.1])


def slow_energy(first, second):
    def mean(a, b):
        return sum(math.dist(x, y) for x in a for y in b) / (len(a) * len(b))

    return 2 * mean(first, second) - mean(first, first) - mean(second, second)


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_energy_distance_against_loops(seed, n, m):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(n, 3)), rng.integers(0, 2, (m, 3)).astype(float)
    assert energy_distance(first, second) == pytest.approx(slow_energy(first, second), abs=1e-7)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["normal", "heavy", "tied", "constant"]))
def test_without_a_shift_alarms_are_as_rare_as_said(seed, kind):
    rng = np.random.default_rng(seed)
    draw = {
        "normal": lambda n: rng.normal(size=(n, 2)) @ np.array([[1.0, 0.9], [0.0, 0.2]]),
        "heavy": lambda n: rng.standard_cauchy((n, 2)),
        "tied": lambda n: rng.integers(0, 2, (n, 2)).astype(float),
        "constant": lambda n: np.ones((n, 2)),
    }[kind]
    rung = [shift_test(draw(14), draw(9), rng, permutations=19).p_value <= 0.1 for _ in range(200)]
    # 10 % of 200 are 20, with a standard deviation of 4.2; ties can only make them fewer.
    assert sum(rung) <= 36
    assert kind in ("tied", "constant") or sum(rung) >= 6
    strange = [p for _ in range(40) for p in Familiar.of(draw(38), rng).p_values(draw(5))]
    assert np.mean(np.array(strange) <= 0.1) <= 0.2


def test_a_shift_is_found_whether_of_place_of_spread_or_of_how_features_go_together():
    rng = np.random.default_rng(3)
    trained = rng.normal(size=(100, 3)) * [1.0, 10.0, 0.01]
    for present in (
        trained[:60] + np.array([0.0, 0.0, 0.012]),
        2.0 * rng.normal(size=(60, 3)) * [1.0, 10.0, 0.01],
        np.repeat(rng.normal(size=(60, 1)), 3, axis=1) * [1.0, 10.0, 0.01],
    ):
        assert shift_test(trained, present, rng).p_value == 0.005
    assert shift_test(trained, rng.normal(size=(60, 3)) * [1.0, 10.0, 0.01], rng).p_value > 0.02


def test_strange_inputs_stand_out_one_by_one():
    rng = np.random.default_rng(4)
    mix = np.array([[1.0, 0.99], [0.0, 0.1]])
    known = Familiar.of(rng.normal(size=(400, 2)) @ mix, rng)
    assert known.p_values(np.array([[0.0, 0.0], [1.5, -1.5], [9.0, 9.0]])).tolist() == pytest.approx(
        [1.0, 1 / 201, 1 / 201], abs=0.03
    )
    x = np.array([0.7, 0.2])
    direct = math.sqrt(x @ np.linalg.inv(mix.T @ mix) @ x)
    assert known.distances(x[None])[0] == pytest.approx(direct, rel=0.25)


def test_samples_that_cannot_be_compared_are_refused():
    rng = np.random.default_rng(0)
    for first, second in (((1, 2), (5, 2)), ((5, 2), (5, 3)), ((5,), (5,))):
        with pytest.raises(InvalidValue, match="shapes of the samples"):
            shift_test(np.ones(first), np.ones(second), rng)
    with pytest.raises(InvalidValue, match="at least 4 rows"):
        Familiar.of(np.ones((3, 2)), rng)
