from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from clew.core.errors import InvalidValue
from clew.stats.semantic_entropy import cluster_by_entailment, likelihood_semantic_entropy, semantic_entropy

LABELS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=12)
RATED = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.floats(-8, 0)), min_size=1, max_size=12)


def slow_clusters(labels):
    """Places of each cluster; None is alone."""
    named = [[i for i, other in enumerate(labels) if other == label] for label in set(labels) - {None}]
    return named + [[i] for i, label in enumerate(labels) if label is None]


def test_golden():
    assert semantic_entropy(["x"] * 6 + ["y"] * 3 + ["z"]) == pytest.approx(0.897946, abs=5e-7)
    assert semantic_entropy(["x"]) == semantic_entropy(["x"] * 5) == 0.0
    assert math.copysign(1.0, semantic_entropy(["x"])) == 1.0
    assert semantic_entropy(range(8)) == pytest.approx(math.log(8))
    assert semantic_entropy([None] * 8) == pytest.approx(math.log(8)), "all abstain: nothing is known"


@given(LABELS)
def test_counts_against_scipy(labels):
    assert semantic_entropy(labels) == pytest.approx(entropy([len(c) for c in slow_clusters(labels)]), abs=1e-12)


@given(RATED)
def test_likelihoods_against_scipy(rated):
    labels, logprobs = zip(*rated, strict=True)
    masses = [sum(math.exp(logprobs[i]) for i in cluster) for cluster in slow_clusters(labels)]
    assert likelihood_semantic_entropy(labels, logprobs) == pytest.approx(entropy(masses), abs=1e-9)


@given(LABELS, st.floats(-2000, 0))
def test_equal_likelihoods_are_counts(labels, logprob):
    equal = likelihood_semantic_entropy(labels, [logprob] * len(labels))
    assert equal == pytest.approx(semantic_entropy(labels), abs=1e-12)


@given(LABELS)
def test_at_most_the_log_of_the_number_of_samples_and_order_says_nothing(labels):
    assert 0.0 <= semantic_entropy(labels) <= math.log(len(labels)) + 1e-12
    assert semantic_entropy(labels[::-1]) == pytest.approx(semantic_entropy(labels), abs=1e-12)


def test_the_likelier_cluster_counts_for_more():
    assert likelihood_semantic_entropy(["a", "b"], [-0.1, -9.0]) < 0.01 < semantic_entropy(["a", "b"])
    assert likelihood_semantic_entropy(["a", "b"], [-0.1, -2000.0]) == 0.0, "beyond what a float can hold"


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 6))
def test_an_equivalence_gives_its_classes(numbers, modulus):
    labels = cluster_by_entailment([str(x) for x in numbers], lambda a, b: int(a) % modulus == int(b) % modulus)
    classes = list(dict.fromkeys(x % modulus for x in numbers))
    assert labels == [classes.index(x % modulus) for x in numbers]


def test_entailment_must_hold_both_ways_and_with_the_first_member():
    # "Paris, France" entails "Paris", but not the other way round.
    assert cluster_by_entailment(["Paris", "Paris, France", "Paris"], lambda a, b: b in a) == [0, 1, 0]
    assert cluster_by_entailment(["Paris, France", "Paris", "Paris"], lambda a, b: b in a) == [0, 1, 1]
    asked = []

    def close(a, b):
        asked.append((a, b))
        return abs(int(a) - int(b)) <= 1

    # 3 is close to 2, but 2 is not the first of its cluster.
    assert cluster_by_entailment(["1", "2", "3"], close) == [0, 0, 1]
    assert ("2", "3") not in asked
    assert cluster_by_entailment([], close) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: semantic_entropy([]),
        lambda: likelihood_semantic_entropy([], []),
        lambda: likelihood_semantic_entropy(["a"], []),
        lambda: likelihood_semantic_entropy(["a"], [float("-inf")]),
        lambda: likelihood_semantic_entropy(["a"], [float("nan")]),
    ],
)
def test_samples_that_say_nothing(call):
    with pytest.raises(InvalidValue):
        call()
