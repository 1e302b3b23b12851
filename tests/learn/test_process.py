"""Credit for steps against loops over samples and steps."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.learn.advantages import group_centred, group_normalised, leave_one_out
from clew.learn.process import at_step_ends, joint, prime, spread, stepwise, value_differences

numbers = st.one_of(st.floats(-10, 10), st.sampled_from([0.0, 1.0, 1.0]))
groups = st.lists(st.lists(numbers, max_size=4), min_size=1, max_size=5)


def padded(group, width=5):
    """Rewards and mask [G, S], NaN beyond each sample's end."""
    rewards = torch.tensor([[*steps, *[math.nan] * (width - len(steps))] for steps in group], dtype=torch.float64)
    return rewards, ~rewards.isnan()


def unpadded(answer, group):
    rows = answer.tolist()
    for row, steps in zip(rows, group, strict=True):
        assert row[len(steps) :] == [0.0] * (len(row) - len(steps))
    return [row[: len(steps)] for row, steps in zip(rows, group, strict=True)]


@given(group=groups)
@settings(max_examples=50)
def test_stepwise_leave_one_out(group):
    got = unpadded(stepwise(*padded(group)), group)
    kept = [steps for steps in group if steps]
    for steps, row in zip(group, got, strict=True):
        others = [other for other in kept if other is not steps]
        for at, value in enumerate(row):
            mine = sum(steps[at:])
            wanted = mine - sum(sum(other[at:]) for other in others) / len(others) if others else 0.0
            assert value == pytest.approx(wanted, abs=1e-9)


@given(group=groups)
@settings(max_examples=50)
def test_joint(group):
    pool = [reward for steps in group for reward in steps]
    spread_of = statistics.stdev(pool) + 1e-4 if len(pool) > 1 else math.inf
    for function, scale in ((group_normalised, spread_of), (group_centred, 1.0 if len(pool) > 1 else math.inf)):
        got = unpadded(joint(*padded(group), advantage=function), group)
        for steps, row in zip(group, got, strict=True):
            wanted = [sum(r - statistics.fmean(pool) for r in steps[at:]) / scale for at in range(len(steps))]
            assert row == pytest.approx(wanted, abs=1e-4)


@given(group=groups, outcomes=st.lists(numbers, min_size=5, max_size=5), gamma=st.sampled_from([0.5, 1.0]))
@settings(max_examples=50)
def test_prime(group, outcomes, gamma):
    implicit, mask = padded(group)
    # An empty response takes no part, so its outcome is not read.
    given_outcomes = torch.tensor(
        [o if steps else math.nan for o, steps in zip(outcomes, group, strict=False)], dtype=torch.float64
    )
    got = unpadded(prime(implicit, given_outcomes, mask, gamma=gamma), group)
    kept = [(steps, outcome) for steps, outcome in zip(group, outcomes, strict=False) if steps]
    for steps, outcome, row in zip(group, outcomes, got, strict=False):
        others = [pair for pair in kept if pair[0] is not steps]
        if not others:
            assert row == [0.0] * len(row)
            continue
        token = statistics.fmean(statistics.fmean(other) for other, _ in others)
        above = outcome - statistics.fmean(o for _, o in others)
        wanted = [sum(gamma**j * (r - token) for j, r in enumerate(steps[at:])) + above for at in range(len(steps))]
        assert row == pytest.approx(wanted, abs=1e-9)


def test_prime_leaves_out_what_is_not_valid():
    implicit = torch.tensor([[1.0, 2.0], [0.0, 1.0], [math.nan, math.nan]])
    outcomes = torch.tensor([1.0, 0.0, math.nan])
    mask, valid = torch.ones(3, 2, dtype=torch.bool), torch.tensor([True, True, False])
    assert prime(implicit, outcomes, mask, valid=valid).tolist() == [[3.0, 2.5], [-3.0, -1.5], [0.0, 0.0]]


@pytest.mark.parametrize("advantage", [leave_one_out, group_centred, group_normalised])
@given(reward=st.floats(-1e3, 1e3), samples=st.integers(1, 5), steps=st.integers(1, 5))
@settings(max_examples=25)
def test_equal_samples_teach_nothing(advantage, reward, samples, steps):
    rewards, mask = padded([[reward] * steps] * samples)
    assert not stepwise(rewards, mask, advantage=advantage).any()
    assert not joint(rewards, mask, advantage=advantage).any()
    implicit, outcomes = rewards.nan_to_num(nan=0.0), torch.full((samples,), reward, dtype=torch.float64)
    assert prime(implicit, outcomes, mask).abs().max() <= 1e-9


def test_value_differences_golden_and_unscored_values():
    values = torch.tensor([[0.25, 0.5, 1.0, 1.0], [0.5, math.nan, 0.25, 0.0]])
    assert value_differences(values).tolist() == [[0.25, 0.5, 0.0], [0.0, 0.0, -0.25]]
    rewards = torch.tensor([[0.0, -0.125, 0.0], [1.0, 1.0, 1.0]])
    assert value_differences(values, rewards, gamma=0.5).tolist() == [[0.0, -0.125, -0.5], [0.0, 0.0, 0.75]]


@given(lengths=st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=3))
@settings(max_examples=40)
def test_steps_and_their_tokens(lengths):
    time = 13
    steps = torch.arange(1.0, 1 + 4 * len(lengths)).view(-1, 4)
    stops = torch.tensor(lengths).cumsum(-1)
    of_tokens, at_ends = spread(steps, stops, time=time), at_step_ends(steps, stops, time=time)
    for row, widths in enumerate(lengths):
        wanted, ends, at = [], [0.0] * time, 0
        for step, width in enumerate(widths):
            wanted += [steps[row, step].item()] * width
            at += width
            if width:
                ends[at - 1] = steps[row, step].item()
        assert of_tokens[row].tolist() == wanted + [0.0] * (time - len(wanted))
        assert at_ends[row].tolist() == ends


def test_stops_that_fall_are_refused():
    for function in (spread, at_step_ends):
        with pytest.raises(InvalidValue, match="do not fall"):
            function(torch.zeros(1, 2), torch.tensor([[3, 2]]), time=4)
