"""Labels from samples that begin alike, against counting by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.reward.shared_prefix import Sampled, shared_prefix_labels

PROMPT = (7, 8)
STEP = st.sampled_from([(10, 11), (12,), (13, 14, 15)])


def told(labelled):
    """Label and weight of every labelled prefix of the responses."""
    return {
        example.ids[len(PROMPT) : place + 1]: (label, weight)
        for example in labelled
        for place, label, weight in zip(example.places, example.labels, example.weights, strict=True)
    }


def test_a_step_that_one_of_its_samples_completed_is_good():
    responses = [
        Sampled((10, 11, 20), (2, 3), 0.0),
        Sampled((10, 11, 21), (2, 3), 1.0),
        Sampled((12, 20), (1, 2), 0.0),
        Sampled((12, 20), (1, 2), 0.0),
    ]
    assert told(shared_prefix_labels(PROMPT, responses)) == {
        (10, 11): (1.0, 1.0),
        (10, 11, 20): (0.0, 0.5),
        (10, 11, 21): (1.0, 1.0),
        (12,): (0.0, pytest.approx(2 / 3)),
        (12, 20): (0.0, pytest.approx(2 / 3)),
    }
    soft = told(shared_prefix_labels(PROMPT, responses, hard=False))
    assert soft[10, 11] == (0.5, 2.0) and soft[12,] == (0.0, 2.0)


@given(st.lists(st.tuples(st.lists(STEP, max_size=3), st.sampled_from([0.0, 0.5, 1.0])), max_size=12))
def test_every_prefix_is_labelled_once_with_the_mean_of_those_that_begin_with_it(drawn):
    responses = []
    for steps, outcome in drawn:
        tokens = tuple(token for step in steps for token in step)
        stops = tuple(len([t for step in steps[: at + 1] for t in step]) for at in range(len(steps)))
        responses.append(Sampled(tokens, stops, outcome))
    labelled = shared_prefix_labels(PROMPT, responses, hard=False)
    found = told(labelled)
    assert sum(len(example.places) for example in labelled) == len(found)
    prefixes = {r.tokens[:stop] for r in responses for stop in r.stops}
    assert set(found) == prefixes
    for prefix in prefixes:
        same = [r.outcome for r in responses if r.tokens[: len(prefix)] == prefix and len(prefix) in r.stops]
        assert found[prefix] == (pytest.approx(sum(same) / len(same)), len(same))
    assert all(list(example.places) == sorted(set(example.places)) for example in labelled)
