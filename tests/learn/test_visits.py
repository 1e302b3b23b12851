"""Losses of visits: golden numbers, and where each is least."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clew.learn.visits import value_loss, visit_cross_entropy

shares = st.lists(st.sampled_from([0.0, 1.0, 1.0, 3.0, 20.0]), min_size=1, max_size=6).filter(any)


def test_golden_numbers() -> None:
    cross_entropy = visit_cross_entropy(torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[0.75, 0.25]]))
    assert cross_entropy.item() == pytest.approx(1.25 * math.log(2))
    losses = value_loss(torch.tensor([0.0, math.log(3)]), torch.tensor([0.3, 1.0]))
    assert losses.tolist() == pytest.approx([math.log(2), math.log(4 / 3)])


@given(shares, st.lists(st.floats(-3, 3), min_size=7, max_size=7))
def test_no_policy_does_better_than_the_shares_and_its_excess_is_the_divergence(
    given: list[float], logits: list[float]
) -> None:
    """The policy may also leave probability to a step that the search never saw."""
    pi = torch.tensor(given, dtype=torch.double) / sum(given)
    policy = torch.tensor(logits[: len(given) + 1], dtype=torch.double).log_softmax(-1)[:-1]
    seen = pi > 0
    entropy = -(pi[seen] * pi[seen].log()).sum()
    divergence = (pi[seen] * (pi[seen].log() - policy[seen])).sum()
    assert visit_cross_entropy(policy, pi).item() == pytest.approx((entropy + divergence).item())
    assert divergence > -1e-12


@given(st.lists(st.sampled_from([0.0, 0.0, 0.25, 1.0]), min_size=1, max_size=5))
def test_the_value_is_the_mean_return(returns: list[float]) -> None:
    """The gradient of the summed losses at a logit is the sum of probability less return."""
    logit = torch.tensor(0.7, dtype=torch.double, requires_grad=True)
    targets = torch.tensor(returns, dtype=torch.double)
    value_loss(logit.expand(len(returns)), targets).sum().backward()
    assert logit.grad is not None
    assert logit.grad.item() == pytest.approx(len(returns) * logit.sigmoid().item() - sum(returns))
