"""Baselines from outside the group, and normalisation over the batch, against plain loops."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.learn.baselines import above_greedy, above_moving_average, moving_average
from clew.learn.batch_normalised import reinforce_plus_plus, reinforce_plus_plus_baseline, whitened

numbers = st.one_of(st.floats(-100, 100), st.sampled_from([0.0, 1.0, 0.1]))


def test_above_greedy_golden_and_an_unscored_greedy_response():
    rewards = torch.tensor([[1.0, 0.0, math.nan], [1.0, 0.0, 0.5]])
    valid = ~rewards.isnan()
    assert above_greedy(rewards, torch.tensor([0.25, math.nan]), valid).tolist() == [[0.75, -0.25, 0.0], [0.0] * 3]
    assert above_greedy(rewards[1:], torch.tensor([1.0])).tolist() == [[0.0, -1.0, -0.5]]


def test_above_moving_average_golden():
    rewards = torch.tensor([1.0, math.nan])
    assert above_moving_average(rewards, 0.25, ~rewards.isnan()).tolist() == [0.75, 0.0]


@given(batches=st.lists(st.lists(st.one_of(numbers, st.just(math.nan)), max_size=4), max_size=6))
@settings(max_examples=50)
def test_moving_average_is_the_loop(batches):
    average, wanted = None, None
    for batch in batches:
        rewards = torch.tensor(batch, dtype=torch.float64)
        average = moving_average(average, rewards, ~rewards.isnan(), decay=0.75)
        scored = [r for r in batch if not math.isnan(r)]
        if scored:
            mean = statistics.fmean(scored)
            wanted = mean if wanted is None else 0.75 * wanted + 0.25 * mean
        elif wanted is None:
            wanted = 0.0
        assert average == pytest.approx(wanted, abs=1e-9)


@given(values=st.lists(numbers, min_size=1, max_size=8), data=st.data())
@settings(max_examples=60)
def test_whitened_is_the_loop(values, data):
    mask = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    kept = [v for v, m in zip(values, mask, strict=True) if m]
    tensor = torch.tensor([v if m else math.nan for v, m in zip(values, mask, strict=True)], dtype=torch.float64)
    got = whitened(tensor, torch.tensor(mask)).tolist()
    if len(kept) < 2 or len(set(kept)) == 1:
        assert got == [0.0] * len(values)
    elif statistics.stdev(kept) > 1e-3:
        mean, deviation = statistics.fmean(kept), statistics.stdev(kept)
        wanted = [(v - mean) / deviation if m else 0.0 for v, m in zip(values, mask, strict=True)]
        assert got == pytest.approx(wanted, abs=1e-4)


def test_whitened_equal_values_are_exact_zeros_in_float32():
    assert not whitened(torch.full((7,), 0.1), torch.ones(7, dtype=torch.bool)).any()
    assert not whitened(torch.full((3,), math.nan), torch.zeros(3, dtype=torch.bool)).any()


def test_reinforce_plus_plus_weighs_a_response_by_its_tokens():
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, math.nan, math.nan]])
    got = reinforce_plus_plus(rewards, mask)
    # Returns 1 1 1 0: mean 3/4, sample deviation 1/2.
    torch.testing.assert_close(got, torch.tensor([[0.5, 0.5, 0.5], [-1.5, 0.0, 0.0]]))


def test_reinforce_plus_plus_baseline_takes_the_groups_mean_first():
    rewards = torch.tensor([[1.0, 0.0], [5.0, 5.0], [1.0, math.nan]])
    mask = torch.ones(3, 2, 2, dtype=torch.bool)
    got = reinforce_plus_plus_baseline(rewards, mask, ~rewards.isnan())
    deviation = statistics.stdev([0.5] * 2 + [-0.5] * 2 + [0.0] * 6)
    wanted = torch.tensor([[0.5, -0.5], [0.0, 0.0], [0.0, 0.0]])[..., None].expand(3, 2, 2) / deviation
    torch.testing.assert_close(got, wanted)
