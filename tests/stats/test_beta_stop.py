from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc
from scipy.stats import beta

from clew.core.errors import InvalidValue
from clew.stats.beta_stop import leader_confidence

VOTES = st.integers(0, 400)


@pytest.mark.parametrize(
    ("leader", "runner_up", "confidence"),
    [(3, 0, 0.9375), (4, 0, 0.9688), (5, 1, 0.9375), (6, 1, 0.9648), (7, 2, 0.9453), (8, 2, 0.9673), (0, 0, 0.5)],
)
def test_golden(leader, runner_up, confidence):
    assert leader_confidence(leader, runner_up) == pytest.approx(confidence, abs=5e-5)


@given(VOTES, VOTES)
def test_equals_the_regularised_beta_function(a, b):
    assert leader_confidence(a, b) == pytest.approx(beta.sf(0.5, a + 1, b + 1), rel=1e-9, abs=1e-300)
    assert leader_confidence(a, b) == pytest.approx(1.0 - betainc(a + 1, b + 1, 0.5), abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 1), (1, 0), (2, 2), (5, 1), (1, 5), (7, 4), (0, 11)])
def test_equals_a_count_of_all_tosses_of_a_coin(a, b):
    tosses = list(product((0, 1), repeat=a + b + 1))
    assert leader_confidence(a, b) == sum(sum(toss) > b for toss in tosses) / len(tosses)


@given(VOTES, VOTES)
def test_symmetric_and_monotone(a, b):
    assert leader_confidence(a, b) + leader_confidence(b, a) == pytest.approx(1.0, abs=1e-12)
    assert leader_confidence(a, a) == 0.5
    assert leader_confidence(a + 1, b) >= leader_confidence(a, b) >= leader_confidence(a, b + 1)


def test_thousands_of_votes():
    assert leader_confidence(5_000, 4_900) == pytest.approx(beta.sf(0.5, 5_001, 4_901), rel=1e-9)
    assert leader_confidence(5_000, 0) == 1.0
    assert leader_confidence(0, 5_000) == 0.0


@pytest.mark.parametrize("votes", [(-1, 0), (0, -1)])
def test_negative_votes(votes):
    with pytest.raises(InvalidValue):
        leader_confidence(*votes)
