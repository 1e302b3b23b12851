"""What each KL estimator's gradient is, as a loss and inside a reward, by enumeration; and the controller."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clew.learn.advantages import leave_one_out
from clew.learn.entropy import entropy_bonus, token_entropy
from clew.learn.kl import adapted_coefficient, k1, k2, k3, ratio_weighted, straight_through
from clew.learn.losses import reinforce
from clew.learn.returns import at_last_token, discounted_returns

EXACT = {"rtol": 0, "atol": 1e-10}


def kl_of_responses(world, logits: Tensor) -> Tensor:
    logprobs = world.logprobs(logits).sum(-1)
    return (logprobs.exp() * (logprobs - world.logprobs(world.other_logits).sum(-1))).sum()


def next_token(world, of_rows) -> Tensor:
    """The gradient of a quantity of the next token [rows], weighed by how often a beginning is reached, held fixed."""
    p = world.probabilities(world.logits)
    reached = torch.zeros(len(world.logits), dtype=torch.float64)
    for row in range(len(reached)):
        reached[row] = p[((world.states == row) & world.mask).any(-1)].sum()
    return world.gradient_of(lambda logits: (reached * of_rows(logits.log_softmax(-1))).sum())


def as_loss(world, estimator, sampler=None) -> Tensor:
    """The expected gradient (not its negative) of the sum over tokens of an estimator."""
    reference = world.logprobs(world.other_logits)

    def loss_of(logprobs: Tensor, groups: Tensor) -> Tensor:
        estimate = estimator(logprobs[:, 0], reference[groups[:, 0]])
        return torch.where(world.mask[groups[:, 0]], estimate, 0.0).sum(-1)

    return -world.expected_gradient(loss_of, 1, sampler)


def test_as_a_loss(world):
    other = world.other_logits.log_softmax(-1)
    forward = next_token(world, lambda logp: (logp.exp() * (logp - other)).sum(-1))
    backward = next_token(world, lambda logp: (other.exp() * (other - logp)).sum(-1))
    torch.testing.assert_close(as_loss(world, k1), torch.zeros_like(forward), **EXACT)
    torch.testing.assert_close(as_loss(world, k2), forward, **EXACT)
    torch.testing.assert_close(as_loss(world, k3), backward, **EXACT)
    assert (forward - backward).abs().max() > 1e-2
    # Holding the states fixed leaves out that a token also chooses what follows.
    whole = world.gradient_of(lambda logits: kl_of_responses(world, logits))
    assert (forward - whole).abs().max() > 1e-2
    mixed = as_loss(world, lambda now, then: straight_through(k3(now, then), k2(now, then)))
    torch.testing.assert_close(mixed, forward, **EXACT)


@pytest.mark.parametrize("estimator", [k1, k3])
def test_weighed_by_the_ratio(world, bandit, estimator):
    other = world.other_logits.log_softmax(-1)
    forward = next_token(world, lambda logp: (logp.exp() * (logp - other)).sum(-1))
    got = as_loss(world, lambda now, then: ratio_weighted(estimator(now, then), now, now.detach()))
    torch.testing.assert_close(got, forward, **EXACT)
    # On samples of another policy, here of the reference itself.
    got = as_loss(bandit, lambda now, then: ratio_weighted(estimator(now, then), now, then), bandit.other_logits)
    torch.testing.assert_close(got, bandit.gradient_of(lambda logits: kl_of_responses(bandit, logits)), **EXACT)


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other():
    x = torch.tensor([0.5, -1.0], requires_grad=True)
    mixed = straight_through(3 * x, x.square())
    assert mixed.tolist() == [1.5, -3.0]
    mixed.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("per_token", [False, True])
def test_inside_a_reward_k1_is_the_kl_of_whole_responses(world, per_token):
    beta = 0.3
    penalty = beta * k1(world.logprobs(world.logits), world.logprobs(world.other_logits))
    rewards = at_last_token(world.rewards, world.mask) - penalty

    def loss_of(logprobs: Tensor, groups: Tensor) -> Tensor:
        advantages = (
            discounted_returns(rewards[groups], world.mask[groups])
            if per_token
            else leave_one_out((rewards * world.mask).sum(-1)[groups])[..., None].expand(logprobs.shape)
        )
        return (reinforce(logprobs, advantages) * world.mask[groups]).sum((-1, -2)) / groups.shape[-1]

    got = world.expected_gradient(loss_of, 2)
    wanted = world.true_gradient(world.rewards) - beta * world.gradient_of(
        lambda logits: kl_of_responses(world, logits)
    )
    torch.testing.assert_close(got, wanted, **EXACT)


def test_entropy_bonus_raises_the_entropy_of_the_next_token(world):
    def loss_of(logits: Tensor) -> Tensor:
        bonus = entropy_bonus(token_entropy(logits[world.states]), coefficient=0.5)
        return (world.probabilities(logits).detach()[:, None] * bonus * world.mask).sum()

    wanted = next_token(world, lambda logp: -(logp.exp() * logp).sum(-1))
    torch.testing.assert_close(world.gradient_of(loss_of), -0.5 * wanted, **EXACT)


def test_the_coefficient_follows_the_measured_kl():
    # Ziegler's rule, with its clip at a fifth: 0.2 * (1 + 0.2 * 256 / 10000).
    assert adapted_coefficient(0.2, 5.0, samples=256, target=0.1) == pytest.approx(0.2 * 1.00512)
    assert adapted_coefficient(0.2, 0.11, samples=1000, target=0.1) == pytest.approx(0.2 * 1.01)
    assert adapted_coefficient(0.2, 0.0, samples=1000, target=0.1) == pytest.approx(0.2 * 0.98)
    assert adapted_coefficient(0.2, 0.1, samples=1000, target=0.1) == pytest.approx(0.2)


@given(measured=st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf])))
def test_the_coefficient_stays_positive_and_finite(measured):
    answer = adapted_coefficient(0.1, measured, samples=512)
    assert 0.098 < answer < 0.102
    if not math.isfinite(measured):
        assert answer == 0.1
