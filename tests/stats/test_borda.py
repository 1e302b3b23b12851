from __future__ import annotations

from itertools import permutations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.stats.borda import borda_votes

SCORES = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.75, 3.0, float("inf")]) | st.floats(-5, 5), max_size=9)
POWERS = st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.2, 2.0, 7.0])


def slow_votes(scores, power):
    """A rank is one more than the number of better ones; ties take the mean over the ranks they fill together."""
    votes = []
    for score in scores:
        first_rank = 1 + sum(other > score for other in scores)
        ranks = range(first_rank, first_rank + scores.count(score))
        votes.append(sum((len(scores) - rank + 1) ** power for rank in ranks) / len(ranks))
    return votes


def test_golden():
    assert borda_votes([0.2, 0.9, 0.4, 0.7], power=1.0) == [1.0, 4.0, 2.0, 3.0]
    assert borda_votes([0.2, 0.9, 0.4, 0.7], power=0.5) == pytest.approx([1.0, 2.0, 2**0.5, 3**0.5])
    assert borda_votes([], power=1.0) == []
    assert borda_votes([0.3], power=2.0) == [1.0]


@given(SCORES, POWERS)
def test_equals_a_slow_count_of_ranks(scores, power):
    assert borda_votes(scores, power) == pytest.approx(slow_votes(scores, power), rel=1e-12)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=6), POWERS)
def test_ties_are_the_mean_over_all_ways_to_break_them(scores, power):
    n = len(scores)
    ways = []
    for order in permutations(range(n)):
        ranked = sorted(order, key=lambda i: -scores[i])
        ways.append([float(n - ranked.index(i)) ** power for i in range(n)])
    assert borda_votes(scores, power) == pytest.approx([fmean(way[i] for way in ways) for i in range(n)])


@given(SCORES)
def test_equal_scores_and_power_zero_are_one_vote_each(scores):
    assert borda_votes(scores, 0.0) == [1.0] * len(scores)
    assert len(set(borda_votes([0.5] * len(scores), 1.7))) <= 1


@given(SCORES, POWERS)
def test_order_says_nothing(scores, power):
    assert borda_votes(scores[::-1], power) == borda_votes(scores, power)[::-1]


@pytest.mark.parametrize("power", [-0.1, 64.5, float("nan"), float("inf")])
def test_powers_that_are_not_accepted(power):
    with pytest.raises(InvalidValue):
        borda_votes([1.0, 2.0], power)


def test_nan_has_no_rank():
    with pytest.raises(InvalidValue):
        borda_votes([1.0, float("nan")], 1.0)


def test_the_largest_power_stays_in_the_range_of_a_float():
    assert max(borda_votes([float(i) for i in range(10_000)], 64.0)) < float("inf")
