"""Returns and generalised advantages against a loop over the unmasked tokens alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.learn.returns import at_last_token, discounted_returns, gae

numbers = st.one_of(st.floats(-10, 10), st.sampled_from([0.0, 1.0]))
rates = st.sampled_from([0.0, 0.5, 0.95, 1.0])


@st.composite
def rows(draw):
    """Rewards, values and mask of one row, NaN where masked."""
    length = draw(st.integers(1, 7))
    mask = draw(st.lists(st.booleans(), min_size=length, max_size=length))
    return mask, *([draw(numbers) if m else math.nan for m in mask] for _ in range(2))


def wide(numbers):
    """One row, in float64 unless it is a mask."""
    return (
        torch.tensor([numbers])
        if numbers and isinstance(numbers[0], bool)
        else torch.tensor([numbers], dtype=torch.float64)
    )


def slow_gae(mask, rewards, values, gamma, lam, last_value=0.0):
    """Sums of discounted temporal differences, straight from the definition; and the returns."""
    kept = [t for t, m in enumerate(mask) if m]
    r, v = [rewards[t] for t in kept], [values[t] for t in kept] + [last_value]
    differences = [r[i] + gamma * v[i + 1] - v[i] for i in range(len(kept))]
    advantages = [0.0] * len(mask)
    for i, t in enumerate(kept):
        advantages[t] = sum((gamma * lam) ** j * d for j, d in enumerate(differences[i:]))
    returns = [a + values[t] if mask[t] else 0.0 for t, a in enumerate(advantages)]
    return advantages, returns


@given(row=rows(), gamma=rates, lam=rates, last=st.sampled_from([0.0, 2.5]))
@settings(max_examples=60)
def test_gae(row, gamma, lam, last):
    mask, rewards, values = wide(row[0]), wide(row[1]), wide(row[2])
    got = gae(rewards, values, mask, gamma=gamma, lam=lam, last_values=torch.tensor([last]))
    advantages, returns = slow_gae(*row, gamma, lam, last)
    assert got.advantages[0].tolist() == pytest.approx(advantages, abs=1e-9)
    assert got.returns[0].tolist() == pytest.approx(returns, abs=1e-9)


@given(row=rows(), gamma=rates)
@settings(max_examples=60)
def test_discounted_returns_are_gae_without_a_critic(row, gamma):
    mask, rewards, _ = row
    got = discounted_returns(wide(rewards), torch.tensor([mask]), gamma=gamma)
    wanted, _ = slow_gae(mask, rewards, [0.0] * len(mask), gamma, 1.0)
    assert got[0].tolist() == pytest.approx(wanted, abs=1e-9)


@given(row=rows(), before=st.integers(0, 2), after=st.integers(0, 2))
@settings(max_examples=40)
def test_padding_changes_nothing(row, before, after):
    def padded(x, fill):
        return wide([*[fill] * before, *x, *[fill] * after])

    mask, rewards, values = row
    more = padded(mask, False), padded(rewards, math.nan), padded(values, math.nan)
    got = gae(more[1], more[2], more[0]).advantages[:, before : before + len(mask)]
    alone = gae(wide(rewards), wide(values), torch.tensor([mask])).advantages
    assert torch.equal(got, alone)


def test_golden():
    mask = torch.tensor([[True, True, True, False]])
    rewards = torch.tensor([[0.0, 0.0, 1.0, math.nan]])
    values = torch.tensor([[0.5, 0.25, 0.75, math.nan]])
    got = gae(rewards, values, mask, gamma=1.0, lam=0.5)
    # d = -0.25, 0.5, 0.25
    assert got.advantages.tolist() == [[0.0625, 0.625, 0.25, 0.0]]
    assert got.returns.tolist() == [[0.5625, 0.875, 1.0, 0.0]]
    assert discounted_returns(rewards, mask, gamma=0.5).tolist() == [[0.25, 0.5, 1.0, 0.0]]


def test_a_lambda_for_each_row_is_that_row_alone():
    draw = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(3, 5, generator=draw) for _ in range(2))
    mask = torch.ones(3, 5, dtype=torch.bool)
    lams = torch.tensor([0.0, 0.7, 1.0])
    together = gae(rewards, values, mask, lam=lams).advantages
    for row, lam in enumerate(lams.tolist()):
        alone = gae(rewards[row], values[row], mask[row], lam=lam).advantages
        torch.testing.assert_close(together[row], alone)


def test_the_outcome_stands_at_the_last_unmasked_token():
    mask = torch.tensor([[True, True, False], [True, False, True], [False, False, False], [True, False, False]])
    outcomes = torch.tensor([1.0, 2.0, math.nan, -1.0])
    assert at_last_token(outcomes, mask).tolist() == [[0, 1, 0], [0, 0, 2], [0, 0, 0], [-1, 0, 0]]


def test_no_token_at_all():
    empty, mask = torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)
    assert discounted_returns(empty, mask).shape == gae(empty, empty, mask).returns.shape == (2, 0)
