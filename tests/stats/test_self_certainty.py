from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from clew.core.errors import InvalidValue
from clew.core.types import Sampling, State
from clew.search import TabularPolicy
from clew.stats.self_certainty import mean_certainty, self_certainty

WEIGHTS = st.integers(1, 6).flatmap(
    lambda v: st.lists(st.lists(st.integers(1, 1000), min_size=v, max_size=v), min_size=1, max_size=5)
)


def test_golden():
    assert self_certainty([0.25] * 4) == 0.0
    assert self_certainty([0.97, 0.01, 0.01, 0.01]) == pytest.approx(2.075198, abs=5e-7)
    assert self_certainty([[0.25] * 4, [0.97, 0.01, 0.01, 0.01]]) == pytest.approx(2.075198 / 2, abs=5e-7)
    assert self_certainty([1.0]) == 0.0
    assert self_certainty([1.0, 0.0]) == math.inf


@given(WEIGHTS)
def test_is_the_mean_divergence_of_the_uniform_distribution(weights):
    probs = [[w / sum(row) for w in row] for row in weights]
    uniform = [1 / len(row) for row in probs for _ in row][: len(probs[0])]
    expected = sum(entropy(uniform, row) for row in probs) / len(probs)
    assert self_certainty(probs) == pytest.approx(expected, abs=1e-9)
    assert self_certainty(probs) >= 0.0


@given(WEIGHTS)
def test_the_mean_over_tokens_is_that_of_the_response(weights):
    probs = [[w / sum(row) for w in row] for row in weights]
    assert mean_certainty([self_certainty(row) for row in probs]) == pytest.approx(self_certainty(probs), abs=1e-12)


def test_is_what_completions_carry():
    probs = (0.4, 0.3, 0.2, 0.1)
    policy = TabularPolicy(("a", "b", "c", "d"), lambda state: probs)
    for completion, _ in policy.enumerate(State(None), Sampling(max_tokens=2, statistics=True)):
        assert mean_certainty(completion.certainties) == pytest.approx(self_certainty([probs, probs]), abs=1e-12)


@pytest.mark.parametrize("probs", [[], [[]], [0.5, 0.4], [1.5, -0.5], [[0.5, 0.5], [1.0, 1.0]], [float("nan"), 1.0]])
def test_what_is_no_distribution(probs):
    with pytest.raises(InvalidValue):
        self_certainty(probs)


def test_no_tokens():
    with pytest.raises(InvalidValue):
        mean_certainty([])
