"""Preference losses: formulas in plain Python, and what they are least at."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.learn.preference import (
    averaged,
    conservative_dpo,
    dpo,
    hinge,
    ipo,
    kto,
    kto_reference_point,
    margin,
    orpo,
    robust_dpo,
    simpo,
    summed,
    visit_uncertainty,
)

EXACT = {"rtol": 0, "atol": 1e-10}
margins = st.one_of(st.floats(-50, 50), st.sampled_from([0.0, 1e4, -1e4]))
betas = st.sampled_from([0.05, 0.1, 2.0])


def log_sigmoid(x):
    return -math.log1p(math.exp(-x)) if x > -30 else x


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def wide(*numbers):
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=True)


@given(x=margins, beta=betas, flipped=st.sampled_from([0.0, 0.1, 0.4]))
@settings(max_examples=80)
def test_margin_losses_are_their_formulas_and_their_gradients_finite(x, beta, flipped):
    wanted = {
        "dpo": -log_sigmoid(beta * x),
        "hinge": max(0.0, 1 - beta * x),
        "ipo": (x - 1 / (2 * beta)) ** 2,
        "conservative": -(1 - flipped) * log_sigmoid(beta * x) - flipped * log_sigmoid(-beta * x),
        "robust": (-(1 - flipped) * log_sigmoid(beta * x) + flipped * log_sigmoid(-beta * x)) / (1 - 2 * flipped),
    }
    at = wide(x)
    got = {
        "dpo": dpo(at, beta=beta),
        "hinge": hinge(at, beta=beta),
        "ipo": ipo(at, beta=beta),
        "conservative": conservative_dpo(at, beta=beta, flipped=flipped),
        "robust": robust_dpo(at, beta=beta, flipped=flipped),
    }
    for name, loss in got.items():
        assert loss.item() == pytest.approx(wanted[name], rel=1e-6, abs=1e-9), name
        (slope,) = torch.autograd.grad(loss.sum(), at)
        assert bool(slope.isfinite().all()), name


@given(x=st.floats(-50, 50), point=st.floats(0, 5), beta=betas)
@settings(max_examples=50)
def test_kto(x, point, beta):
    got = kto(wide(x, x), torch.tensor([True, False]), point, beta=beta, weight_desirable=2.0, weight_undesirable=0.5)
    gain = beta * (x - point)
    assert got.tolist() == pytest.approx([2 * (1 - sigmoid(gain)), 0.5 * (1 - sigmoid(-gain))], abs=1e-9)


def test_kto_reference_point_has_no_gradient_and_is_not_negative():
    assert kto_reference_point(wide(1.0, 2.0)).item() == 1.5
    assert kto_reference_point(wide(-1.0, -2.0)).item() == 0.0
    assert not kto_reference_point(wide(1.0)).requires_grad


@given(chosen=st.floats(-20, -1e-4), rejected=st.floats(-20, -1e-4))
@settings(max_examples=50)
def test_orpo_and_simpo(chosen, rejected):
    odds = [math.exp(x) / -math.expm1(x) for x in (chosen, rejected)]
    wanted = -chosen - 0.2 * log_sigmoid(math.log(odds[0]) - math.log(odds[1]))
    assert orpo(wide(chosen), wide(rejected), weight=0.2).item() == pytest.approx(wanted, rel=1e-6)
    wanted = -log_sigmoid(2.5 * (chosen - rejected) - 0.7)
    assert simpo(wide(chosen), wide(rejected), beta=2.5, target=0.7).item() == pytest.approx(wanted, rel=1e-6)


def test_orpo_of_a_certain_response_is_finite():
    at = wide(0.0)
    loss = orpo(at, wide(-1.0))
    loss.sum().backward()
    assert math.isfinite(loss.item()) and at.grad is not None and at.grad.item() == -1.0


# --- what they are for ---

REFERENCE = torch.tensor([-0.4, 0.2, 0.9, 0.0], dtype=torch.float64).log_softmax(-1)
REWARDS = torch.tensor([1.0, -0.5, 0.3, 0.0], dtype=torch.float64)


def expected_over_labels(loss, beta, rewards=REWARDS):
    """A loss over all ordered pairs of four responses, labelled by Bradley and Terry, at the optimal policy."""
    best = (REFERENCE + rewards / beta).log_softmax(-1).requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            preferred = (rewards[i] - rewards[j]).sigmoid()
            total = total + preferred * loss(margin(best[i], best[j], REFERENCE[i], REFERENCE[j]))
    return total, best


def test_dpo_is_least_at_the_policy_that_best_trades_reward_against_kl():
    """arXiv 2305.18290, section 4: p proportional to p_ref exp(r / beta)."""
    total, best = expected_over_labels(lambda m: dpo(m, beta=0.3), 0.3)
    (slope,) = torch.autograd.grad(total, best)
    torch.testing.assert_close(slope, torch.zeros_like(slope), **EXACT)
    wrong, at = expected_over_labels(lambda m: dpo(m, beta=0.2), 0.3)
    assert torch.autograd.grad(wrong, at)[0].abs().max() > 1e-2


def test_conservative_dpo_is_least_at_the_log_odds_of_its_label():
    flipped = torch.tensor([0.1, 0.4], dtype=torch.float64)
    at = (((1 - flipped) / flipped).log() / 0.2).requires_grad_()
    (slope,) = torch.autograd.grad(conservative_dpo(at, beta=0.2, flipped=flipped).sum(), at)
    torch.testing.assert_close(slope, torch.zeros_like(slope), **EXACT)


@given(x=st.floats(-20, 20), flipped=st.floats(0, 0.45))
@settings(max_examples=50)
def test_robust_dpo_is_dpo_on_average_over_wrong_labels(x, flipped):
    right, wrong = robust_dpo(wide(x, -x), flipped=flipped).tolist()
    assert (1 - flipped) * right + flipped * wrong == pytest.approx(dpo(wide(x)).item(), abs=1e-9)


def test_ipo_is_least_at_its_margin():
    at = wide(1 / (2 * 0.1))
    assert ipo(at, beta=0.1).item() == 0.0


def test_a_pair_swapped_is_the_margin_negated():
    a, b, ra, rb = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(margin(a, b, ra, rb), -margin(b, a, rb, ra))
    assert dpo(margin(a, b, a, b)).tolist() == pytest.approx([math.log(2)] * 3)


def test_a_pair_of_steps_is_the_pair_of_responses_that_share_their_beginning():
    draw = torch.Generator().manual_seed(0)
    chosen, rejected, ref_chosen, ref_rejected = -torch.rand(4, 2, 5, generator=draw, dtype=torch.float64)
    rejected[:, :3], ref_rejected[:, :3] = chosen[:, :3], ref_chosen[:, :3]
    whole, step = torch.ones(2, 5, dtype=torch.bool), torch.tensor([[False] * 3 + [True] * 2]).expand(2, 5)
    pair = chosen, rejected, ref_chosen, ref_rejected
    torch.testing.assert_close(
        dpo(margin(*(summed(x, step) for x in pair))), dpo(margin(*(summed(x, whole) for x in pair)))
    )


def test_sums_and_means_do_not_read_what_is_masked():
    logprobs = torch.tensor([[-1.0, -2.0, math.nan], [math.nan] * 3], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False] * 3])
    assert summed(logprobs, mask).tolist() == [-3.0, 0.0]
    assert averaged(logprobs, mask).tolist() == [-1.5, 0.0]
    averaged(logprobs, mask).sum().backward()
    assert logprobs.grad is not None and logprobs.grad.tolist() == [[0.5, 0.5, 0.0], [0.0] * 3]


def test_visits_say_how_sure_the_search_was():
    got = visit_uncertainty(torch.tensor([3.0, 5.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 2.0]))
    # arXiv 2405.00451: 1 / (N(chosen) / N(rejected) + 1)
    assert got.tolist() == [0.25, 0.0, 0.5, 1.0]
