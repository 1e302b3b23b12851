"""Weights of samples of another policy, and the measure of the mismatch, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.learn.mismatch import EDGES, mismatch
from clew.learn.off_policy import (
    keep_good_or_near,
    log_ratio_mean,
    log_ratio_sum,
    sequence_masked,
    sequence_truncated,
    token_masked,
    truncated,
)

log_ratios = st.one_of(st.floats(-2, 2), st.sampled_from([0.0, math.log(2), -math.log(2), 40.0, -40.0]))


@st.composite
def batches(draw):
    """Log-ratios of rows of one to four tokens, ragged."""
    return draw(st.lists(st.lists(log_ratios, max_size=4), min_size=1, max_size=4))


def padded(rows, width=5):
    """Log-probs of the trainer (all -1) and of the sampler, NaN where masked, and the mask."""
    ratios = torch.tensor([[*row, *[math.nan] * (width - len(row))] for row in rows], dtype=torch.float64)
    trainer = torch.where(ratios.isnan(), ratios, -1.0).requires_grad_()
    return trainer, -1.0 - ratios, ~ratios.isnan()


def clamp(x, low, high):
    return min(max(x, low), high)


def ratio(x):
    return math.exp(clamp(x, -20, 20))


@given(rows=batches(), lowest=st.sampled_from([0.0, 0.5]), highest=st.sampled_from([1.0, 2.0, 5.0]))
@settings(max_examples=60)
def test_all_weights(rows, lowest, highest):
    def inside(w):
        return lowest <= w <= highest

    def of_mean(row):
        return ratio(sum(row) / len(row))

    wanted = {
        truncated: lambda row: [clamp(ratio(x), lowest, highest) for x in row],
        token_masked: lambda row: [ratio(x) if inside(ratio(x)) else 0.0 for x in row],
        sequence_truncated: lambda row: [clamp(ratio(sum(row)), lowest, highest)] * len(row),
        sequence_masked: lambda row: [ratio(x) if inside(of_mean(row)) else 0.0 for x in row],
    }
    batch = padded(rows)
    # A ratio that stands on a bound may fall to either side of it by rounding.
    marginal = any(
        abs(w - bound) < 1e-9
        for row in rows
        if row
        for bound in (lowest, highest)
        for w in [*map(ratio, row), of_mean(row)]
    )
    for function, slow in wanted.items():
        if marginal and function in (token_masked, sequence_masked):
            continue
        got = function(*batch, lowest=lowest, highest=highest)
        assert not got.requires_grad
        for row, answer in zip(rows, got.tolist(), strict=True):
            assert answer == pytest.approx(slow(row) + [0.0] * (5 - len(row)), rel=1e-6)


def test_bounds_belong_to_the_band_and_the_score_is_a_choice():
    trainer, sampler, mask = padded([[0.0, 0.0], [0.5, 0.5], [0.6, -0.6]])
    assert sequence_masked(trainer, sampler, mask, lowest=1.0, highest=1.0)[0, :2].tolist() == [1.0, 1.0]
    by_sum = sequence_masked(trainer, sampler, mask, lowest=0.5, highest=2.0, log_ratio=log_ratio_sum)
    by_mean = sequence_masked(trainer, sampler, mask, lowest=0.5, highest=2.0, log_ratio=log_ratio_mean)
    assert by_sum[1].tolist() == [0.0] * 5  # e is beyond 2
    assert by_mean[1, :2].tolist() == pytest.approx([math.exp(0.5)] * 2)  # its square root is not
    assert by_sum[2, :2].tolist() == pytest.approx([math.exp(0.6), math.exp(-0.6)])  # raw ratios in what is kept


def test_bad_samples_far_from_the_policy_are_dropped():
    trainer, sampler, mask = padded([[-0.2, 0.0], [-0.2, 0.0], [-0.02, 0.0], [3.0, 3.0]])
    advantages = torch.tensor([1.0, -1.0, -1.0, -1.0])
    got = keep_good_or_near(advantages, trainer, sampler, mask, threshold=0.05)
    assert got[:, :2].tolist() == [[1, 1], [0, 0], [1, 1], [1, 1]]
    per_token = torch.tensor([[1.0, -1.0]]).expand(4, 2)
    wide = torch.cat([per_token, torch.zeros(4, 3)], dim=1)
    assert keep_good_or_near(wide, trainer, sampler, mask)[1, :3].tolist() == [1.0, 0.0, 0.0]


def slow_size(log_weights):
    weights = [math.exp(x) for x in log_weights]
    return sum(weights) ** 2 / sum(w * w for w in weights) / len(weights)


@given(rows=st.lists(st.lists(st.one_of(st.floats(-3, 3), st.just(0.0)), max_size=4), min_size=1, max_size=4))
@settings(max_examples=60)
def test_mismatch_against_a_loop(rows):
    flat = [x for row in rows for x in row]
    found = mismatch(*padded(rows))
    if not flat:
        assert found is None
        return
    assert found is not None and found.tokens == len(flat)
    assert found.mean_ratio == pytest.approx(sum(map(math.exp, flat)) / len(flat))
    assert found.kl == pytest.approx(sum(math.exp(x) - 1 - x for x in flat) / len(flat), abs=1e-12)
    assert found.token_sample_size == pytest.approx(slow_size(flat))
    assert found.sequence_sample_size == pytest.approx(slow_size([sum(row) for row in rows if row]))
    row, position = found.worst_at
    assert abs(found.worst) == pytest.approx(max(map(abs, flat)), abs=1e-12)
    assert rows[row][position] == pytest.approx(found.worst, abs=1e-12)
    assert sum(found.histogram) == len(flat)


def test_histogram_golden():
    found = mismatch(*padded([[0.0, 5e-5, -5e-5, 2e-4], [-0.5, 7.0, -7.0]]))
    assert found is not None
    assert found.histogram == (1, 1, 0, 0, 0, 3, 1, 0, 0, 0, 1)
    assert len(found.histogram) == len(EDGES) + 1
    assert found.worst_at in ((1, 1), (1, 2))


def test_a_ratio_that_is_not_finite_is_the_worst_one():
    trainer = torch.tensor([[-1.0, -2.0], [-1.0, math.nan]])
    found = mismatch(trainer, torch.full((2, 2), -1.0), torch.ones(2, 2, dtype=torch.bool))
    assert found is not None and found.worst_at == (1, 1) and math.isnan(found.worst) and math.isnan(found.kl)
    huge = mismatch(torch.tensor([[0.0, -1.0]]), torch.tensor([[-2000.0, -1.0]]), torch.ones(1, 2, dtype=torch.bool))
    assert huge is not None and huge.token_sample_size == pytest.approx(0.5)
