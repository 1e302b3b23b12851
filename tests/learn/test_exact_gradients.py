"""Every policy-gradient estimator against the true gradient, by enumeration of all groups of all responses.

No sampling: the expectation is a sum, so equal means equal to rounding. Where an estimator is biased, the bias that its
documentation states is what is tested.
"""

from __future__ import annotations

from math import comb

import pytest
import torch
from torch import Tensor

from clew.learn.advantages import group_centred, group_normalised, leave_one_out
from clew.learn.aggregate import constant_denominator
from clew.learn.baselines import above_greedy, above_moving_average
from clew.learn.batch_normalised import reinforce_plus_plus, reinforce_plus_plus_baseline
from clew.learn.losses import cispo, clipped_surrogate, gspo, reinforce
from clew.learn.off_policy import sequence_truncated, truncated
from clew.learn.process import joint, prime, progress, stepwise, value_differences
from clew.learn.returns import at_last_token, discounted_returns, gae
from clew.learn.tree_advantages import above_parent, above_siblings

EXACT = {"rtol": 0, "atol": 1e-10}
WIDE = 1e6
"""A clip that never acts."""


def per_sample(world, advantages_of, group_size=1, loss=reinforce):
    """Expected gradient with the sum over a response's tokens and the mean over the group."""

    def loss_of(logprobs: Tensor, groups: Tensor) -> Tensor:
        advantages = advantages_of(groups)
        if advantages.ndim < logprobs.ndim:
            advantages = advantages[..., None]
        tokens = torch.where(world.mask[groups], loss(logprobs, advantages.expand(logprobs.shape)), 0.0)
        return tokens.sum((-1, -2)) / group_size

    return world.expected_gradient(loss_of, group_size)


# --- outcomes ---


@pytest.mark.parametrize("group_size", [2, 3])
@pytest.mark.parametrize(
    ("advantage", "factor"), [(leave_one_out, lambda n: 1.0), (group_centred, lambda n: (n - 1) / n)]
)
def test_group_baselines(world, group_size, advantage, factor):
    got = per_sample(world, lambda groups: advantage(world.rewards[groups]), group_size)
    torch.testing.assert_close(got, factor(group_size) * world.true_gradient(world.rewards), **EXACT)


def test_baselines_from_outside_the_batch(world):
    true = world.true_gradient(world.rewards)
    greedy = world.rewards[world.probabilities(world.logits).argmax()]
    remax = per_sample(world, lambda groups: above_greedy(world.rewards[groups], greedy.expand(len(groups))))
    average = per_sample(world, lambda groups: above_moving_average(world.rewards[groups], -0.7))
    torch.testing.assert_close(remax, true, **EXACT)
    torch.testing.assert_close(average, true, **EXACT)


def normalised_factor(p: float, n: int, deviation) -> float:
    """For rewards 0 and 1: what (r - mean) / deviation makes of the gradient of P(right) = p, summed over the number of
    right ones. Right samples have mean score grad p / p, wrong ones -grad p / (1 - p)."""
    return sum(
        comb(n, k) * p**k * (1 - p) ** (n - k) * (k / n) * (1 - k / n) / deviation(k, n) / (p * (1 - p))
        for k in range(1, n)
    )


def sample_deviation(k: int, n: int) -> float:
    return (k * (n - k) / n / (n - 1)) ** 0.5


@pytest.mark.parametrize("group_size", [2, 4])
def test_normalising_by_the_deviation_scales_the_gradient_by_what_the_difficulty_says(bandit, group_size):
    right = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    p = (bandit.probabilities(bandit.logits) * right).sum().item()
    true = bandit.true_gradient(right)
    grpo = per_sample(bandit, lambda groups: group_normalised(right[groups]), group_size)
    factor = normalised_factor(p, group_size, lambda k, n: sample_deviation(k, n) + 1e-4)
    torch.testing.assert_close(grpo, factor * true, **EXACT)

    def whole_batch(groups: Tensor) -> Tensor:
        ones = torch.ones(group_size, 1, dtype=torch.bool)
        return torch.stack([reinforce_plus_plus(right[group][:, None], ones)[:, 0] for group in groups])

    plus_plus = per_sample(bandit, whole_batch, group_size)
    factor = normalised_factor(p, group_size, lambda k, n: sample_deviation(k, n) + 1e-8)
    torch.testing.assert_close(plus_plus, factor * true, **EXACT)


def test_reinforce_plus_plus_baseline_with_one_group_is_the_same_as_without(bandit):
    ones = torch.ones(4, 1, dtype=torch.bool)
    rewards = torch.tensor([1.0, 0.5, 0.0, 0.0])
    torch.testing.assert_close(reinforce_plus_plus_baseline(rewards, ones), reinforce_plus_plus(rewards[:, None], ones))


def test_a_mean_over_the_tokens_of_a_response_divides_its_gradient_by_its_length(world):
    lengths = world.mask.sum(-1)
    expected = (world.probabilities(world.logits) * world.rewards).sum()

    def loss_of(logprobs: Tensor, groups: Tensor) -> Tensor:
        loss = reinforce(logprobs, leave_one_out(world.rewards[groups])[..., None].expand(logprobs.shape))
        return (loss * world.mask[groups]).sum(-1) / lengths[groups] / groups.shape[-1]

    got = world.expected_gradient(loss_of, 2)

    def weighted(logits: Tensor) -> Tensor:
        weights = world.probabilities(logits).detach() * (world.rewards - expected) / lengths
        return (weights * world.logprobs(logits).sum(-1)).sum()

    torch.testing.assert_close(got, world.gradient_of(weighted), **EXACT)
    assert (got - world.true_gradient(world.rewards)).abs().max() > 1e-2


def test_a_constant_denominator_is_the_true_gradient_by_that_constant(world):
    def loss_of(logprobs: Tensor, groups: Tensor) -> Tensor:
        advantages = leave_one_out(world.rewards[groups])
        losses = [
            constant_denominator(reinforce(row, weights), world.mask[group], length=7)
            for row, weights, group in zip(logprobs, advantages, groups, strict=True)
        ]
        return torch.stack(losses)

    got = world.expected_gradient(loss_of, 2)
    torch.testing.assert_close(got, world.true_gradient(world.rewards) / 7, **EXACT)


# --- process rewards, returns, values ---


def totals(world) -> Tensor:
    return (world.token_rewards * world.mask).sum(-1)


@pytest.mark.parametrize(("advantage", "factor"), [(leave_one_out, 1.0), (group_centred, 0.5)])
def test_stepwise_process_rewards(world, advantage, factor):
    got = per_sample(
        world, lambda groups: stepwise(world.token_rewards[groups], world.mask[groups], advantage=advantage), 2
    )
    torch.testing.assert_close(got, factor * world.true_gradient(totals(world)), **EXACT)


def test_returns_to_go(world):
    returns = discounted_returns(world.token_rewards, world.mask)
    torch.testing.assert_close(
        per_sample(world, lambda groups: returns[groups]), world.true_gradient(totals(world)), **EXACT
    )
    outcome = discounted_returns(at_last_token(world.rewards, world.mask), world.mask)
    torch.testing.assert_close(
        per_sample(world, lambda groups: outcome[groups]), world.true_gradient(world.rewards), **EXACT
    )


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_gae_with_the_policys_own_values_is_unbiased_for_any_lambda(world, lam):
    values = world.values(world.logits, world.token_rewards)
    advantages = gae(world.token_rewards, values, world.mask, lam=lam).advantages
    got = per_sample(world, lambda groups: advantages[groups])
    torch.testing.assert_close(got, world.true_gradient(totals(world)), **EXACT)


def test_gae_with_wrong_values_is_unbiased_at_lambda_one_alone(world):
    true = world.true_gradient(totals(world))
    wrong = torch.sin(3.0 * world.states.double() + 1)  # a value for each beginning, and a wrong one
    at_one = gae(world.token_rewards, wrong, world.mask, lam=1.0).advantages
    torch.testing.assert_close(per_sample(world, lambda groups: at_one[groups]), true, **EXACT)
    at_zero = gae(world.token_rewards, wrong, world.mask, lam=0.0).advantages
    assert (per_sample(world, lambda groups: at_zero[groups]) - true).abs().max() > 1e-2


def test_differences_of_values_at_step_ends(world):
    outcome = at_last_token(world.rewards, world.mask)
    values = torch.cat([world.values(world.logits, outcome), torch.zeros(len(outcome), 1)], dim=1)
    # A finished response is worth its reward, from its end on.
    ended = torch.cat([torch.zeros(len(outcome), 1, dtype=torch.bool), ~world.mask], dim=1)
    ended[:, 1:] |= outcome != 0
    values = torch.where(ended, world.rewards[:, None], values)
    advantages = value_differences(values)
    torch.testing.assert_close(
        per_sample(world, lambda groups: advantages[groups]), world.true_gradient(world.rewards), **EXACT
    )


@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0])
def test_progress_by_the_policys_own_values_is_a_longer_true_gradient(world, alpha):
    steps = world.mask
    outcome = at_last_token(world.rewards, steps)
    values = world.values(world.logits, outcome)
    after = torch.cat([values[:, 1:], torch.zeros(len(outcome), 1)], dim=1)
    ends = steps & ~torch.cat([steps[:, 1:], torch.zeros(len(outcome), 1, dtype=torch.bool)], dim=1)
    paid = alpha * (torch.where(ends, world.rewards[:, None], after) - values)
    got = per_sample(
        world, lambda groups: progress(leave_one_out(world.rewards[groups]), paid[groups], steps[groups]), 2
    )
    torch.testing.assert_close(got, (1 + alpha) * world.true_gradient(world.rewards), **EXACT)


def test_joint_comparison_cannot_see_that_more_steps_earn_more(world):
    ones = torch.ones_like(world.token_rewards)
    got = per_sample(world, lambda groups: joint(ones[groups], world.mask[groups]), 2)
    assert not got.any()
    assert world.true_gradient(world.mask.sum(-1).double()).abs().max() > 1e-2


def test_prime_is_unbiased_at_equal_lengths(even_world):
    world = even_world
    got = per_sample(
        world, lambda groups: prime(world.token_rewards[groups], world.rewards[groups], world.mask[groups]), 2
    )
    torch.testing.assert_close(got, world.true_gradient(totals(world) + world.rewards), **EXACT)


def test_prime_punishes_length_by_the_mean_reward_of_a_token(world):
    got = per_sample(
        world, lambda groups: prime(world.token_rewards[groups], world.rewards[groups], world.mask[groups]), 3
    )
    lengths = world.mask.sum(-1)
    mean_token = (world.probabilities(world.logits) * totals(world) / lengths).sum()
    wanted = world.true_gradient(totals(world) + world.rewards) - mean_token * world.true_gradient(lengths.double())
    torch.testing.assert_close(got, wanted, **EXACT)


# --- trees ---


def test_advantages_of_the_whole_tree(world):
    """The tree of all beginnings: each node's advantage, weighed by how likely its step is reached."""
    beginnings = [()]
    beginnings += sorted(
        {
            tuple(r[: t + 1])
            for r, m in zip(world.tokens.tolist(), world.mask.sum(-1).tolist(), strict=True)
            for t in range(m)
        },
        key=lambda b: (len(b), b),
    )
    rows = [tuple(r[:m]) for r, m in zip(world.tokens.tolist(), world.mask.sum(-1).tolist(), strict=True)]

    def below(beginning: tuple[int, ...]) -> Tensor:
        return torch.tensor([row[: len(beginning)] == beginning for row in rows])

    p = world.probabilities(world.logits)
    values = torch.stack([(p * world.rewards)[below(b)].sum() / p[below(b)].sum() for b in beginnings])
    parents = torch.tensor([beginnings.index(b[:-1]) if b else -1 for b in beginnings])
    advantages = above_parent(values, parents)

    def weighted(logits: Tensor) -> Tensor:
        total = logits.new_zeros(())
        for node, beginning in enumerate(beginnings[1:], start=1):
            row = int(below(beginning).nonzero()[0])
            step = world.logprobs(logits)[row, len(beginning) - 1]
            total = total + p[below(beginning)].sum() * advantages[node] * step
        return total

    torch.testing.assert_close(world.gradient_of(weighted), world.true_gradient(world.rewards), **EXACT)


def test_independent_siblings(bandit):
    def advantages(groups: Tensor) -> Tensor:
        parents = torch.tensor([-1, 0, 0, 0])
        values = torch.cat([torch.zeros(len(groups), 1), bandit.rewards[groups]], dim=1)
        return torch.stack([above_siblings(row, parents)[1:] for row in values])

    got = per_sample(bandit, advantages, 3)
    torch.testing.assert_close(got, bandit.true_gradient(bandit.rewards), **EXACT)


# --- losses ---


def flat(loss, **settings):
    """A loss of [batch, time] on any leading axes."""

    def of(logprobs: Tensor, advantages: Tensor) -> Tensor:
        rows = (-1, logprobs.shape[-1])
        old = logprobs.detach().reshape(rows)
        return loss(logprobs.reshape(rows), old, advantages.reshape(rows), **settings).reshape(logprobs.shape)

    return of


@pytest.mark.parametrize("loss", [flat(clipped_surrogate), flat(cispo)])
def test_at_ratio_one_other_losses_have_the_gradient_of_reinforce(world, loss):
    got = per_sample(world, lambda groups: leave_one_out(world.rewards[groups]), 2, loss)
    torch.testing.assert_close(got, world.true_gradient(world.rewards), **EXACT)


def test_gspo_at_ratio_one_is_reinforce_with_the_mean_over_tokens(world):
    advantages = world.rewards[:, None]

    def gradient(loss_of) -> Tensor:
        def total(logits: Tensor) -> Tensor:
            logprobs = world.logprobs(logits)
            loss = torch.where(world.mask, loss_of(logprobs), 0.0).sum(-1) / world.mask.sum(-1)
            return -(world.probabilities(logits).detach() * loss).sum()

        return world.gradient_of(total)

    ours = gradient(lambda logprobs: gspo(logprobs, logprobs.detach(), world.rewards, world.mask))
    torch.testing.assert_close(ours, gradient(lambda logprobs: reinforce(logprobs, advantages)), **EXACT)


def test_a_ratio_makes_other_samples_exact_on_one_token(bandit):
    """Importance sampling: groups come from another policy, the gradient is the policy's."""
    sampled = bandit.logprobs(bandit.other_logits)

    def by_surrogate(logprobs: Tensor, groups: Tensor) -> Tensor:
        loss = clipped_surrogate(
            logprobs[:, 0], sampled[groups][:, 0], bandit.rewards[groups[:, 0]], clip_low=1.0, clip_high=WIDE
        )
        return loss.sum(-1)

    def by_weight(logprobs: Tensor, groups: Tensor) -> Tensor:
        mask = torch.ones(len(groups), 1, dtype=torch.bool)
        weights = truncated(logprobs[:, 0], sampled[groups][:, 0], mask, highest=WIDE)
        return (weights * reinforce(logprobs[:, 0], bandit.rewards[groups[:, 0]])).sum(-1)

    true = bandit.true_gradient(bandit.rewards)
    for loss_of in (by_surrogate, by_weight):
        got = bandit.expected_gradient(loss_of, 1, sampler=bandit.other_logits)
        torch.testing.assert_close(got, true, **EXACT)


def test_responses_of_another_policy_need_the_ratio_of_the_whole_response(world):
    sampled = world.logprobs(world.other_logits)
    true = world.true_gradient(world.rewards)

    def expected(weigh, highest: float) -> Tensor:
        def loss_of(logprobs: Tensor, groups: Tensor) -> Tensor:
            row = groups[:, 0]
            weights = weigh(logprobs[:, 0], sampled[row], world.mask[row], highest=highest)
            return (weights * reinforce(logprobs[:, 0], world.rewards[row])).sum(-1)

        return world.expected_gradient(loss_of, 1, sampler=world.other_logits)

    torch.testing.assert_close(expected(sequence_truncated, WIDE), true, **EXACT)
    assert (expected(truncated, WIDE) - true).abs().max() > 1e-2
    assert (expected(sequence_truncated, 1.5) - true).abs().max() > 1e-2
