"""Spearman's rank correlation against scipy's, with ties."""

from __future__ import annotations

import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.stats.rank_correlation import spearman

numbers = st.lists(st.integers(-3, 3) | st.floats(-1e6, 1e6), min_size=2, max_size=30)


@given(numbers, st.data())
def test_it_is_scipys(first, data):
    second = data.draw(st.lists(st.sampled_from([0, 1, 0.5]), min_size=len(first), max_size=len(first)))
    found = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(scipy.stats.spearmanr(first, second).statistic, abs=1e-9)


@given(numbers)
def test_only_the_order_counts(values):
    if len(set(values)) > 1:
        assert spearman(values, [2.0 * value for value in values]) == pytest.approx(1.0)
        assert spearman(values, [-value for value in values]) == pytest.approx(-1.0)


def test_a_perfect_order_against_zeros_and_ones_has_a_limit():
    """As the docstring says: sqrt(3 p (1 - p)) with a share p of ones, for many untied numbers."""
    for ones in (500, 200):
        truth = [0] * (1000 - ones) + [1] * ones
        share = ones / 1000
        assert spearman(range(1000), truth) == pytest.approx(math.sqrt(3 * share * (1 - share)), abs=1e-3)


def test_numbers_without_a_partner_are_refused():
    with pytest.raises(InvalidValue):
        spearman([1.0], [1.0, 2.0])
