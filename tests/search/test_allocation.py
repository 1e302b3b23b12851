from __future__ import annotations

import math
import random
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from clew.search.allocation import (
    even_shares,
    logit,
    multinomial,
    nearest_shares,
    sequential_shares,
    softmax,
    systematic,
)

GOLDEN = [0.9, 0.8, 0.5, 0.1]
INF = math.inf
SCORES = st.lists(st.sampled_from([0.0, 0.5, 1.0, -3.0, 40.0]) | st.floats(-2.0, 2.0), min_size=1, max_size=9)
TEMPERATURES = st.sampled_from([1e-3, 0.2, 1.0, 100.0])
WEIGHTS = st.lists(st.sampled_from([0.0, 1e-12, 0.25, 1.0]) | st.floats(0.0, 1.0), min_size=1, max_size=8).filter(
    lambda weights: max(weights) > 1e-3
)


def test_golden_values():
    assert nearest_shares(GOLDEN, 16, 0.2) == [9, 6, 1, 0]
    assert sequential_shares(GOLDEN, 16, 0.2) == [10, 5, 1, 0]
    assert nearest_shares(GOLDEN, 16, 1.0) == [5, 5, 4, 2]
    assert sequential_shares(GOLDEN, 16, 1.0) == [6, 5, 3, 2]
    assert nearest_shares([0.7] * 3, 16, 0.2) == [5, 5, 5]
    assert sequential_shares([0.7] * 3, 16, 0.2) == [6, 5, 5]


def test_shares_are_in_the_order_of_the_scores():
    assert sequential_shares([0.1, 0.8, 0.5, 0.9], 16, 0.2) == [0, 5, 1, 10]
    assert sequential_shares([0.3, 0.9, 0.3], 5, 100.0) == [2, 2, 1]


def slow_sequential(scores, budget, temperature):
    """The authors' loop, in exact arithmetic: ceil of the share, then less budget and less weight."""
    top = max(scores)
    weights = [Fraction(math.exp((score - top) / temperature)) for score in scores]
    total, shares = sum(weights), [0] * len(scores)
    for place in sorted(range(len(scores)), key=lambda place: -scores[place]):
        if budget:
            shares[place] = math.ceil(budget * weights[place] / total)
            budget -= shares[place]
            total -= weights[place]
    return shares


@given(scores=st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.8, 1.0]), min_size=1, max_size=9), budget=st.integers(0, 70))
def test_sequential_against_exact_arithmetic(scores, budget):
    for temperature in (0.2, 1.0):
        assert sequential_shares(scores, budget, temperature) == slow_sequential(scores, budget, temperature)


def test_a_share_that_is_an_integer_is_not_rounded_up_by_the_error_of_a_float():
    for good in range(1, 6):
        for bad in range(5):
            scores = [0.7] * good + [0.3] * bad
            for budget in range(1, 65):
                assert sequential_shares(scores, budget, 0.2) == slow_sequential(scores, budget, 0.2)


@given(scores=SCORES, budget=st.integers(0, 100), temperature=TEMPERATURES)
def test_sequential_spends_exactly_the_budget_and_favours_the_better(scores, budget, temperature):
    shares = sequential_shares(scores, budget, temperature)
    assert sum(shares) == budget
    assert min(shares) >= 0
    by_score = [share for _, share in sorted(zip(scores, shares, strict=True), key=lambda pair: -pair[0])]
    assert by_score[0] == max(shares)
    # Rounding up may give the last that gets anything less than a worse one would round to, but never by more than one.
    assert all(earlier >= later - 1 for earlier, later in pairwise(by_score))


@given(scores=SCORES, budget=st.integers(0, 100), temperature=TEMPERATURES)
def test_nearest_is_within_a_half_of_every_share(scores, budget, temperature):
    weights = [math.exp((score - max(scores)) / temperature) for score in scores]
    for share, weight in zip(nearest_shares(scores, budget, temperature), weights, strict=True):
        assert abs(share - budget * weight / sum(weights)) <= 0.5 + 1e-9


def test_infinite_scores():
    assert softmax([0.0, INF, 3.0, INF]) == [0.0, 0.5, 0.0, 0.5]
    assert softmax([-INF, 0.0]) == [0.0, 1.0]
    assert softmax([-INF, -INF]) == [0.5, 0.5]
    assert sequential_shares([-INF, INF, 1.0], 7, 0.2) == [0, 7, 0]


@given(total=st.integers(0, 50), num=st.integers(1, 12))
def test_even_shares(total, num):
    shares = even_shares(total, num)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


def test_logit():
    assert logit(0.5) == 0.0
    assert logit(0.9) == pytest.approx(math.log(9.0))
    assert logit(0.25) == pytest.approx(-math.log(3.0))
    assert logit(1.0) == logit(7.0) == pytest.approx(-logit(0.0)) == pytest.approx(16.118, abs=1e-3)
    assert logit(-INF) == logit(-2.0) == logit(0.0)


class At:
    """A stream that always draws the same number."""

    def __init__(self, number):
        self.number = number

    def random(self):
        return self.number


@given(weights=WEIGHTS, num=st.integers(1, 30), start=st.floats(0.0, 1.0, exclude_max=True))
def test_systematic_draws_floor_or_ceil_of_each_share(weights, num, start):
    counts = Counter(systematic(weights, num, At(start)))
    assert sum(counts.values()) == num
    for place, weight in enumerate(weights):
        share = num * weight / sum(weights)
        assert math.floor(share - 1e-9) <= counts[place] <= math.ceil(share + 1e-9)
        assert weight > 0.0 or counts[place] == 0


def test_systematic_is_right_on_average():
    weights, num, grid = [0.05, 0.0, 0.55, 0.4], 3, 4000
    counts = Counter(place for i in range(grid) for place in systematic(weights, num, At((i + 0.5) / grid)))
    for place, weight in enumerate(weights):
        assert counts[place] / grid == pytest.approx(num * weight, abs=2 / grid)


def test_multinomial_follows_the_weights():
    weights = [1.0, 0.0, 2.0, 5.0]
    counts = Counter(place for seed in range(2000) for place in multinomial(weights, 4, random.Random(seed)))
    assert counts[1] == 0
    assert chisquare([counts[0], counts[2], counts[3]], [1000, 2000, 5000]).pvalue > 1e-3
