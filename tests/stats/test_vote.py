from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.stats.majority_at_k import majority_at_k
from clew.stats.vote import majority_vote, vote_weights, weighted_vote

ANSWERS = st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=12)


def slow_majority(answers):
    counts = Counter(a for a in answers if a is not None)
    most = max(counts.values(), default=0)
    return next((a for a in answers if a is not None and counts[a] == most), None)


@settings(deadline=None)
@given(ANSWERS)
def test_majority_equals_brute_force(answers):
    assert majority_vote(answers) == slow_majority(answers)


def test_ties_and_abstentions():
    assert majority_vote(["b", "a", "a", "b"]) == "b"
    assert majority_vote([None, None, None, "a"]) == "a"
    assert majority_vote([None, None]) is None
    assert majority_vote([]) is None


@settings(deadline=None)
@given(ANSWERS)
def test_equal_weights_are_a_majority(answers):
    assert weighted_vote(answers, [0.25] * len(answers)) == majority_vote(answers)


def test_weights_decide():
    assert weighted_vote(["a", "b", "b", None], [0.9, 0.3, 0.4, 5.0]) == "a"
    assert weighted_vote(["a", "b", "b"], [0.1] * 3) == "b"


@pytest.mark.parametrize("weights", [[1.0], [1.0, -0.1], [1.0, float("nan")], [1.0, float("inf")]])
def test_bad_weights(weights):
    with pytest.raises(InvalidValue):
        weighted_vote(["a", "b"], weights)


SCORES = st.lists(st.sampled_from([math.nan, -math.inf, -700.0, -3.0, -3.5, 0.0, 0.5, 800.0]), max_size=8)


def test_scores_are_weights_as_they_are():
    assert vote_weights([0.5, math.nan, 0.0, 2.0]) == [0.5, 0.0, 0.0, 2.0]
    assert vote_weights([math.nan, math.nan]) == [1.0, 1.0]
    assert vote_weights([]) == []


@given(SCORES, st.sampled_from([0.1, 1.0, 5.0]))
def test_exponentiated_scores_keep_their_ratios(scores, temperature):
    weights = vote_weights(scores, temperature)
    rated = [(s, w) for s, w in zip(scores, weights, strict=True) if not math.isnan(s)]
    if not rated:
        assert weights == [1.0] * len(scores)
        return
    assert all(w == 0.0 for s, w in zip(scores, weights, strict=True) if math.isnan(s) or s == -math.inf)
    top = max(s for s, _ in rated)
    for score, weight in rated:
        if score > -math.inf:
            assert weight == pytest.approx(math.exp((score - top) / temperature), rel=1e-12)
    assert vote_weights([s for s, _ in rated], temperature) == [w for _, w in rated]


@pytest.mark.parametrize("score", [-0.1, math.inf, -math.inf])
def test_scores_that_cannot_be_weights(score):
    with pytest.raises(InvalidValue, match="temperature"):
        vote_weights([0.5, score])


def test_an_infinite_score_cannot_be_exponentiated():
    with pytest.raises(InvalidValue):
        vote_weights([math.inf, 1.0], 1.0)


def exact_majority_at_k(answers, right, k):
    """Over every ordered subset."""
    votes = []
    for order in permutations(range(len(answers)), k):
        winner = slow_majority([answers[i] for i in order])
        first = next((i for i in order if winner is not None and answers[i] == winner), None)
        votes.append(first is not None and right[first])
    return sum(votes) / len(votes)


@pytest.mark.parametrize(
    "answers",
    [
        ["a", "b", "a", "c", "b", None],
        ["a", "a", "a", "b", "b", "c"],
        [None, None, None, "a", "b", None],
        ["a", "b", "c", "d", "e", "f"],
        [None] * 6,
        ["a"] * 6,
    ],
)
@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_majority_at_k_against_every_ordered_subset(answers, k):
    right = [a == "a" for a in answers]
    draws = 20_000
    exact = exact_majority_at_k(answers, right, k)
    assert majority_at_k(answers, right, k, draws=draws, seed=3) == pytest.approx(exact, abs=4 * 0.5 / draws**0.5)


def test_majority_at_k_is_as_right_as_the_first_sample_that_gave_the_winner():
    # Two spellings of one answer, judged differently: the first drawn decides, which is either with equal chance.
    got = majority_at_k(["a", "a"], [True, False], 2, draws=20_000, seed=0)
    assert got == pytest.approx(0.5, abs=0.02)


def test_majority_at_1_is_the_mean_and_all_of_one_mind_is_certain():
    assert majority_at_k(["a", "b", None, "a"], [True, False, False, True], 1) == 0.5
    assert majority_at_k(["a", "b", "b"], [True, False, False], 3) == 0.0


def test_majority_at_k_same_seed_same_value():
    answers, right = ["a", "b", "c", "a", "b"], [True, False, False, True, False]
    assert majority_at_k(answers, right, 3, seed=5) == majority_at_k(answers, right, 3, seed=5)
    assert len({majority_at_k(answers, right, 3, seed=s) for s in range(20)}) > 1


@pytest.mark.parametrize("k", [0, 3])
def test_majority_at_k_outside_the_samples(k):
    with pytest.raises(InvalidValue):
        majority_at_k(["a", "b"], [True, False], k)


def test_majority_at_k_empty():
    with pytest.raises(InvalidValue):
        majority_at_k([], [], 1)
