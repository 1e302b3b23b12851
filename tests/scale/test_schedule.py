"""When to switch, which problem to pose: the rules of the schedule against slow references and a simulated learner."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import accumulate
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.scale.curriculum import Estimates, Tally, chosen, expected_signal, sampled_signal
from clew.scale.frontier import Frontier
from clew.scale.plateau import Measured, Plateau, gain_per_update

values = st.floats(-5, 5, allow_subnormal=False)
few = settings(max_examples=25, deadline=None)


@few
@given(st.lists(st.tuples(st.integers(1, 40), values), min_size=2, max_size=8), st.integers(0, 10**7))
def test_the_slope_is_that_of_the_least_squares_line(steps, start):
    xs = list(accumulate((step for step, _ in steps), initial=start))[1:]
    ys = [Fraction(y) for _, y in steps]
    x_mean, y_mean = Fraction(sum(xs), len(xs)), sum(ys) / len(ys)
    above = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    slope = above / sum((x - x_mean) ** 2 for x in xs)
    points = [Measured(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    assert gain_per_update(points) == pytest.approx(float(slope), abs=1e-9)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_the_trigger_fires_exactly_where_its_rule_says(window):
    curve = [Measured(10.0 * i, 1 - math.exp(-i / 3)) for i in range(14)]
    trigger = Plateau(threshold=0.005, window=window)
    fired = [trigger.fires(curve[: end + 1]) for end in range(len(curve))]
    by_hand = []
    for end in range(len(curve)):
        last = curve[max(0, end - window) : end + 1]
        slope = np.polyfit([p.updates for p in last], [p.value for p in last], 1)[0] if end >= window else math.inf
        by_hand.append(slope < 0.005)
    assert fired == by_hand
    assert not any(fired[:window])
    assert fired[-1]


def test_a_gain_of_exactly_the_threshold_is_still_a_gain():
    rising = [Measured(0, 0.25), Measured(8, 0.5)]
    assert not Plateau(threshold=0.03125).fires(rising)
    assert Plateau(threshold=0.03126).fires(rising)
    assert Plateau(threshold=0.0).fires([Measured(0, 0.5), Measured(8, 0.4)])


@pytest.mark.parametrize(
    "points", [[], [Measured(0, 1)], [Measured(3, 1), Measured(3, 2)], [Measured(0, math.nan)] * 2]
)
def test_no_slope_without_two_places(points):
    with pytest.raises(InvalidValue):
        gain_per_update(points)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (2, 5), (7.5, 3), (1, 9)])
def test_the_expected_signal_is_the_mean_of_the_distribution(a, b):
    p = (np.arange(200_000) + 0.5) / 200_000
    density = p ** (a - 1) * (1 - p) ** (b - 1)
    assert expected_signal(a, b) == pytest.approx((p * (1 - p) * density).sum() / density.sum(), abs=1e-8)


@few
@given(st.integers(2, 6), st.floats(0, 1))
def test_the_sampled_signal_is_unbiased(n, p):
    expected = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) * (sampled_signal(k, n) or 0.0) for k in range(n + 1))
    assert expected == pytest.approx(p * (1 - p), abs=1e-12)


def test_problems_near_one_half_come_first_then_new_ones_then_those_too_hard_or_easy():
    known = {"half": Tally(4, 8), "hard": Tally(0, 8), "easy": Tally(8, 8), "hardish": Tally(1, 8)}
    estimates = Estimates(known=known)
    names = ["hard", "new", "easy", "half", "hardish"]
    assert chosen(names, estimates, 3, seed=0) == ["half", "new", "hardish"]
    assert set(chosen(names, estimates, 9, seed=0)) == set(names)
    assert estimates.pass_rate("new") == 0.5


def test_equals_are_chosen_by_the_seed_whatever_their_order():
    names = [str(i) for i in range(50)]
    some = chosen(names, Estimates(), 10, seed=1)
    assert set(chosen(names[::-1], Estimates(), 10, seed=1)) == set(some)
    assert set(chosen(names, Estimates(), 10, seed=2)) != set(some)


@few
@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(0, 4), st.integers(0, 4)))), st.floats(0, 1)
)
def test_estimates_forget_by_their_share(rounds, keep):
    estimates, by_hand = Estimates(keep=keep), dict.fromkeys("abc", (0.0, 0.0))
    for seen in rounds:
        estimates = estimates.after_round({name: Tally(r, r + w) for name, (r, w) in seen.items()})
        for name, (r, w) in by_hand.items():
            new_r, new_w = seen.get(name, (0, 0))
            by_hand[name] = (keep * r + new_r, keep * w + new_w)
    for name, (r, w) in by_hand.items():
        assert estimates.pass_rate(name) == pytest.approx((1 + r) / (2 + r + w))


DIFFICULTIES = [-3.0, -1.0, 1.0, 3.0, 5.0, 7.0]
ROUNDS, PROBLEMS, SAMPLES = 40, 64, 6


def rate(skill: float, difficulty: float) -> float:
    return 1 / (1 + math.exp(2 * (difficulty - skill)))


def signal(skill: float, difficulty: float) -> float:
    return rate(skill, difficulty) * (1 - rate(skill, difficulty))


def simulated(pick, seed: int) -> tuple[float, float]:
    """A learner whose skill grows by the signal of what it is posed; its skill at the end, and the share of the
    best possible signal that it was posed in the second half."""
    rng, skill, shares = random.Random(seed), -1.0, []
    for number in range(ROUNDS):
        counts = pick.shares(number, skill)
        best = max(signal(skill, difficulty) for difficulty in DIFFICULTIES)
        posed = sum(count * signal(skill, d) for count, d in zip(counts, DIFFICULTIES, strict=True)) / PROBLEMS
        seen = []
        for arm, count in enumerate(counts):
            for _ in range(count):
                right = sum(rng.random() < rate(skill, DIFFICULTIES[arm]) for _ in range(SAMPLES))
                seen.append((arm, sampled_signal(right, SAMPLES)))
        pick.learn(seen)
        shares.append(posed / best)
        skill += posed
    return skill, fmean(shares[ROUNDS // 2 :])


class Bandit:
    def __init__(self, seed):
        self.frontier, self.seed = Frontier.over(len(DIFFICULTIES)), seed

    def shares(self, number, skill):
        return self.frontier.shares(PROBLEMS, seed=1000 * self.seed + number)

    def learn(self, seen):
        self.frontier = self.frontier.after_round(seen)


class Evenly:
    def shares(self, number, skill):
        return [PROBLEMS / len(DIFFICULTIES)] * len(DIFFICULTIES)

    def learn(self, seen):
        pass


class BruteForce(Evenly):
    """Tries every setting on the learner itself and poses the best alone."""

    def shares(self, number, skill):
        best = max(range(len(DIFFICULTIES)), key=lambda arm: signal(skill, DIFFICULTIES[arm]))
        return [PROBLEMS * (arm == best) for arm in range(len(DIFFICULTIES))]


class EvenlyRounded(Evenly):
    def shares(self, number, skill):
        return [round(count) for count in super().shares(number, skill)]


def test_the_bandit_finds_the_frontier_of_a_learner_that_moves():
    bandit = [simulated(Bandit(seed), seed) for seed in range(8)]
    oracle = [simulated(BruteForce(), seed) for seed in range(8)]
    evenly = [simulated(EvenlyRounded(), seed) for seed in range(8)]
    assert fmean(share for _, share in oracle) == pytest.approx(1.0)
    assert fmean(share for _, share in bandit) > 0.7
    assert fmean(share for _, share in evenly) < 0.5
    assert fmean(skill for skill, _ in bandit) > fmean(skill for skill, _ in evenly) + 1.0


def test_every_arm_is_tried_and_the_best_of_a_standing_policy_is_posed_most():
    frontier = Frontier.over(3, discount=1.0)
    rng = random.Random(0)
    for number in range(20):
        counts = frontier.shares(16, seed=number)
        assert number > 0 or all(counts)
        assert sum(counts) == 16
        rates = (0.02, 0.5, 0.97)
        right = [
            (arm, sum(rng.random() < rates[arm] for _ in range(8))) for arm, n in enumerate(counts) for _ in range(n)
        ]
        frontier = frontier.after_round((arm, sampled_signal(k, 8)) for arm, k in right)
    assert frontier.shares(100, seed=99)[1] > 95
    assert frontier.mean(1) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("make", [lambda: Frontier.over(0), lambda: Frontier.over(2, discount=0.0)])
def test_a_bandit_without_arms_or_memory_is_refused(make):
    with pytest.raises(InvalidValue):
        make()
