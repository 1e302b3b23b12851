"""Settings that nobody gives are those of docs/reference/learning.md: each is seen on both sides of its bound."""

from __future__ import annotations

import math

import pytest
import torch

from clew.learn import kl, losses, off_policy, preference
from clew.learn.advantages import group_normalised
from clew.learn.aggregate import constant_denominator, sequence_mean, token_mean
from clew.learn.baselines import moving_average
from clew.learn.batch import micro_batches
from clew.learn.batch_normalised import whitened
from clew.learn.mismatch import EDGES, mismatch
from clew.learn.returns import gae

ONE = torch.ones(1, 1, dtype=torch.bool)


def of_ratio(loss, ratio, advantage, *mask):
    """A loss of one token whose probability was multiplied by `ratio`."""
    new = torch.tensor([[math.log(ratio)]], dtype=torch.float64)
    return loss(new, torch.zeros(1, 1), torch.tensor([float(advantage)], dtype=torch.float64), *mask).item()


def weight_of(rule, ratio):
    """The weight of one token by `rule`."""
    trainer = torch.tensor([[math.log(ratio)]], dtype=torch.float64)
    return rule(trainer, torch.zeros(1, 1), ONE).item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "kept"), [(1.19, 1, 1.19), (1.3, 1, 1.2), (0.81, -1, 0.81), (0.7, -1, 0.8)]
)
def test_the_clip_of_ppo_and_grpo_is_a_fifth_on_both_sides(ratio, advantage, kept):
    assert of_ratio(losses.clipped_surrogate, ratio, advantage) == pytest.approx(-kept * advantage)


@pytest.mark.parametrize(
    ("ratio", "advantage", "kept"),
    [(1.00039, 1, 1.00039), (1.0005, 1, 1.0004), (0.99971, -1, 0.99971), (0.9996, -1, 0.9997)],
)
def test_the_clip_of_gspo_is_of_ten_thousandths(ratio, advantage, kept):
    assert of_ratio(losses.gspo, ratio, advantage, ONE) == pytest.approx(-kept * advantage, abs=1e-9)


@pytest.mark.parametrize(("ratio", "kept"), [(4.9, 4.9), (5.1, 5.0), (1e-3, 1e-3)])
def test_cispo_scales_a_token_to_five_at_most_and_to_nothing_at_least(ratio, kept):
    assert of_ratio(losses.cispo, ratio, 1) == pytest.approx(-kept * math.log(ratio))


@pytest.mark.parametrize(("value", "loss"), [(0.19, 0.81**2 / 2), (0.9, 0.8**2 / 2), (-0.5, 1.5**2 / 2)])
def test_a_value_counts_within_a_fifth_of_what_it_was(value, loss):
    found = losses.clipped_value_loss(*(torch.tensor([x]) for x in (value, 0.0, 1.0)))
    assert found.item() == pytest.approx(loss)


@pytest.mark.parametrize(
    ("rule", "weights"),
    [
        (off_policy.truncated, {1.9: 1.9, 2.1: 2.0, 1e-3: 1e-3}),
        (off_policy.token_masked, {0.51: 0.51, 0.49: 0.0, 4.9: 4.9, 5.1: 0.0}),
        (off_policy.sequence_truncated, {1.9: 1.9, 2.1: 2.0, 1e-3: 1e-3}),
        (off_policy.sequence_masked, {0.51: 0.51, 0.49: 0.0, 1.9: 1.9, 2.1: 0.0}),
    ],
)
def test_weights_of_samples_of_another_policy(rule, weights):
    for ratio, weight in weights.items():
        assert weight_of(rule, ratio) == pytest.approx(weight), ratio


def test_bad_samples_are_near_up_to_a_twentieth_of_a_nat_and_good_ones_begin_at_zero():
    far = torch.tensor([[-0.04], [-0.06], [-0.06]], dtype=torch.float64)
    found = off_policy.keep_good_or_near(torch.tensor([-1.0, -1.0, 0.0]), far, torch.zeros(3, 1), ONE.expand(3, 1))
    assert found[:, 0].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("loss", [losses.clipped_surrogate, lambda *given: losses.gspo(*given, ONE)])
def test_the_ratio_of_a_bad_token_grows_up_to_a_log_of_twenty(loss):
    """Nothing else holds it, as the clip only takes incentive away."""
    for log_ratio in (20.0, 25.0):
        new = torch.tensor([[log_ratio]], dtype=torch.float64)
        found = loss(new, torch.zeros(1, 1), torch.tensor([-1.0], dtype=torch.float64))
        assert found.item() == pytest.approx(math.exp(20.0))


def test_log_ratios_are_cut_at_twenty():
    beyond, at = torch.tensor([25.0], dtype=torch.float64), torch.tensor([20.0], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    for sign in (1.0, -1.0):
        assert kl.k3(sign * beyond, zero).item() == kl.k3(sign * at, zero).item()
        assert kl.k3(sign * at, zero).item() == pytest.approx(math.exp(-20.0 * sign) - 1 + 20.0 * sign)
        assert kl.ratio_weighted(torch.ones(1), sign * beyond, zero).item() == pytest.approx(math.exp(20.0 * sign))


def test_the_coefficient_of_a_penalty_is_for_a_tenth_of_a_nat_and_ten_thousand_samples():
    assert kl.adapted_coefficient(1.0, 0.11, samples=1000) == pytest.approx(1.01)
    assert kl.adapted_coefficient(1.0, 0.11, samples=100) == pytest.approx(1.001)


def test_preferences():
    x = torch.tensor([3.0], dtype=torch.float64)

    def log_sigmoid(z):
        return -math.log1p(math.exp(-z))

    wanted = {
        "dpo": (preference.dpo(x), -log_sigmoid(0.3)),
        "hinge": (preference.hinge(x), 0.7),
        "ipo": (preference.ipo(x), 4.0),
        "cdpo": (preference.conservative_dpo(x), -0.9 * log_sigmoid(0.3) - 0.1 * log_sigmoid(-0.3)),
        "robust": (preference.robust_dpo(x), (-0.9 * log_sigmoid(0.3) + 0.1 * log_sigmoid(-0.3)) / 0.8),
        "kto": (preference.kto(x, torch.tensor([True]), 1.0), 1 - 1 / (1 + math.exp(-0.2))),
        "kto, bad": (preference.kto(x, torch.tensor([False]), 1.0), 1 - 1 / (1 + math.exp(0.2))),
        "simpo": (preference.simpo(-x, -2 * x), -log_sigmoid(2 * 3.0 - 1.0)),
    }
    for name, (found, value) in wanted.items():
        assert found.item() == pytest.approx(value), name
    odds = [-3.0 - math.log(1 - math.exp(-3.0)), -6.0 - math.log(1 - math.exp(-6.0))]
    assert preference.orpo(-x, -2 * x).item() == pytest.approx(3.0 - 0.1 * log_sigmoid(odds[0] - odds[1]))


def test_deviations_have_the_eps_of_trl_and_next_to_none():
    rewards = torch.tensor([0.0, 1e-4], dtype=torch.float64)
    deviation = 1e-4 / math.sqrt(2)
    assert group_normalised(rewards)[1].item() == pytest.approx(5e-5 / (deviation + 1e-4))
    assert group_normalised(torch.tensor([0.0, 2.0]))[1].item() == pytest.approx(1 / (math.sqrt(2) + 1e-4))
    small = torch.tensor([0.0, 1e-8], dtype=torch.float64)
    found = whitened(small, torch.ones(2, dtype=torch.bool))
    assert found[1].item() == pytest.approx(5e-9 / (1e-8 / math.sqrt(2) + 1e-8))


def test_one_sequence_is_divided_by_one():
    loss, mask = torch.tensor([[2.0, 4.0]]), torch.ones(1, 2, dtype=torch.bool)
    assert (sequence_mean(loss, mask).item(), sequence_mean(loss, mask, sequences=1).item()) == (3.0, 3.0)
    assert constant_denominator(loss, mask, length=2, sequences=1).item() == 3.0
    assert token_mean(loss[:, :1], mask[:, :1]).item() == token_mean(loss[:, :1], mask[:, :1], tokens=1).item() == 2.0


def test_the_average_of_rewards_keeps_nineteen_twentieths():
    assert moving_average(1.0, torch.tensor([0.0, 0.0])) == pytest.approx(0.95)


def test_a_return_is_not_discounted_and_lambda_is_nineteen_twentieths():
    found = gae(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]]), torch.ones(1, 2, dtype=torch.bool))
    assert found.advantages[0].tolist() == pytest.approx([0.25 - 0.5 + 0.95 * 0.75, 0.75])


def test_bins_of_the_histogram_are_powers_of_ten():
    inside = [-5.0, -0.5, -0.05, -5e-3, -5e-4, 0.0, 5e-4, 5e-3, 0.05, 0.5, 5.0]
    found = mismatch(torch.tensor([inside]), torch.zeros(1, 11), torch.ones(1, 11, dtype=torch.bool))
    assert found is not None
    assert found.histogram == (1,) * 11
    assert [round(math.log10(abs(edge)), 9) for edge in EDGES] == [0, -1, -2, -3, -4, -4, -3, -2, -1, 0]


def test_a_full_batch_takes_no_sequence_that_fills_less_than_three_quarters_of_its_row():
    """A batch is full from 1,024 tokens on; before that it takes shorter ones too."""
    assert micro_batches([512, 512, 384], 10_000) == [[0, 1, 2]]
    assert micro_batches([512, 512, 383], 10_000) == [[0, 1], [2]]
    assert micro_batches([511, 511, 10], 10_000) == [[0, 1, 2]]
    assert micro_batches([512, 512, 512], 1536) == [[0, 1, 2]]
    assert micro_batches([512, 512, 512], 1535) == [[0, 1], [2]]
