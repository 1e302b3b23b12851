"""Losses, aggregation, KL and entropy: exact gradients on policies small enough to enumerate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clew.core.errors import TrainingDiverged
from clew.learn.advantages import group_centred, leave_one_out
from clew.learn.aggregate import constant_denominator, sequence_mean, token_mean
from clew.learn.entropy import token_entropy
from clew.learn.guard import check_finite
from clew.learn.kl import k1, k2, k3
from clew.learn.losses import clipped_surrogate, cross_entropy, reinforce, token_logprobs

EXACT = 1e-12
LOGITS = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64)
REWARDS = torch.tensor([1.0, 0.25, -0.5], dtype=torch.float64)


def gradient(value: Tensor, at: Tensor) -> Tensor:
    (answer,) = torch.autograd.grad(value, at, retain_graph=True)
    return answer


# --- the policy gradient of a bandit, by enumeration of every group ---


@pytest.mark.parametrize("group_size", [2, 3, 4])
@pytest.mark.parametrize("advantage", [group_centred, leave_one_out])
def test_expected_gradient_is_the_policy_gradient(group_size: int, advantage: Callable[[Tensor], Tensor]) -> None:
    logits = LOGITS.clone().requires_grad_()
    true = gradient((logits.softmax(-1) * REWARDS).sum(), logits)
    expected = torch.zeros_like(logits)
    for actions in itertools.product(range(3), repeat=group_size):
        chosen = torch.tensor(actions)
        logprobs = logits.log_softmax(-1)[chosen]
        loss = token_mean(reinforce(logprobs[:, None], advantage(REWARDS[chosen])), torch.ones(group_size, 1).bool())
        expected += logprobs.sum().exp().detach() * -gradient(loss, logits)
    scale = (group_size - 1) / group_size if advantage is group_centred else 1.0
    assert torch.allclose(expected, scale * true, atol=EXACT)


# --- surrogates ---

log_ratios = st.one_of(st.floats(-2, 2), st.sampled_from([0.0, math.log(1.2), -50.0, 50.0, -1e4, 1e4]))


@given(advantages=st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_at_ratio_one_the_surrogate_has_the_gradient_of_reinforce(advantages: list[float]) -> None:
    logprobs = -torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.tensor(advantages, dtype=torch.float64)
    ours = gradient(clipped_surrogate(logprobs, logprobs.detach(), weights).sum(), logprobs)
    assert torch.allclose(ours, gradient(reinforce(logprobs, weights).sum(), logprobs), atol=EXACT)


@given(log_ratio=log_ratios, advantage=st.floats(-5, 5))
def test_clipping_only_removes_incentive(log_ratio: float, advantage: float) -> None:
    logprobs = torch.tensor([[log_ratio]], dtype=torch.float64, requires_grad=True)
    loss = clipped_surrogate(
        logprobs, torch.zeros(1, 1), torch.tensor([advantage], dtype=torch.float64), clip_high=0.28
    )
    ratio = math.exp(min(max(log_ratio, -20), 20))
    # A pessimistic bound of the unclipped objective, finite at any ratio.
    assert math.isfinite(loss.item()) and loss.item() >= -ratio * advantage - 1e-9
    got = gradient(loss.sum(), logprobs).item()
    clipped = (advantage > 0 and ratio > 1.28) or (advantage < 0 and ratio < 0.8) or abs(log_ratio) > 20
    assert got == pytest.approx(0.0 if clipped else -ratio * advantage, rel=1e-9, abs=1e-12)


def test_clipped_surrogate_golden() -> None:
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.25]])
    advantages = torch.tensor([[2.0, -2.0, 2.0, -2.0, 1.0]])
    loss = clipped_surrogate(ratio.log(), torch.zeros(1, 5), advantages, clip_low=0.2, clip_high=0.28)
    assert loss[0].tolist() == pytest.approx([-2.56, 3.0, -1.0, 1.6, -1.25], rel=1e-6)


def test_token_logprobs_and_cross_entropy_against_numpy() -> None:
    logits = torch.randn(3, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 5
    targets = torch.randint(0, 7, (3, 4), generator=torch.Generator().manual_seed(2))
    for row, time in itertools.product(range(3), range(4)):
        x = logits[row, time].numpy()
        wanted = x[targets[row, time]] - np.log(np.exp(x).sum())
        assert token_logprobs(logits, targets)[row, time].item() == pytest.approx(wanted, abs=1e-12)
        assert cross_entropy(logits, targets)[row, time].item() == pytest.approx(-wanted, abs=1e-12)


def test_cross_entropy_gradient_is_softmax_minus_one_hot() -> None:
    logits = LOGITS.clone().requires_grad_()
    got = gradient(cross_entropy(logits[None], torch.tensor([2])).sum(), logits)
    wanted = LOGITS.softmax(-1) - torch.tensor([0, 0, 1.0], dtype=torch.float64)
    assert torch.allclose(got, wanted, atol=EXACT)


# --- aggregation ---

AGGREGATES: list[Callable[[Tensor, Tensor], Tensor]] = [
    token_mean,
    sequence_mean,
    lambda loss, mask: constant_denominator(loss, mask, length=4),
]


def test_aggregates_golden() -> None:
    loss = torch.tensor([[1.0, 2, 3], [10.0, math.nan, math.nan], [math.nan] * 3])
    mask = torch.tensor([[True, True, True], [True, False, False], [False] * 3])
    assert token_mean(loss, mask).item() == 4.0
    assert sequence_mean(loss, mask).item() == 6.0
    assert sequence_mean(loss, mask, sequences=3).item() == 4.0
    assert constant_denominator(loss, mask, length=8).item() == pytest.approx(16 / 24)


@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    width=st.integers(4, 7),
    seed=st.integers(0, 9),
)
def test_aggregates_against_loops_with_padding_and_empty_rows(lengths: list[int], width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [rng.normal(size=n) for n in lengths]
    loss = torch.full((len(rows), width), math.nan, dtype=torch.float64)
    for i, row in enumerate(rows):
        loss[i, : len(row)] = torch.from_numpy(row)
    mask = ~loss.isnan()
    loss.requires_grad_()
    filled = [row for row in rows if len(row)]
    total = sum(row.sum() for row in rows)
    wanted = [
        total / max(sum(lengths), 1),
        sum(row.mean() for row in filled) / max(len(filled), 1),
        total / (len(rows) * 4),
    ]
    for aggregate, value in zip(AGGREGATES, wanted, strict=True):
        result = aggregate(loss, mask)
        assert result.item() == pytest.approx(value, abs=1e-12)
        slope = gradient(result, loss)
        assert torch.equal(slope != 0, mask) and bool(slope.isfinite().all())


# --- KL and entropy ---

REFERENCE = torch.tensor([-0.4, 0.2, 0.9], dtype=torch.float64).log_softmax(-1)


def test_kl_estimators_in_expectation_over_an_enumerated_policy() -> None:
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(-1)
    p = logprobs.exp()
    kl = (p * (logprobs - REFERENCE)).sum()
    reverse = (REFERENCE.exp() * (REFERENCE - logprobs)).sum()
    assert (p * k1(logprobs, REFERENCE)).sum().item() == pytest.approx(kl.item(), abs=EXACT)
    assert (p * k3(logprobs, REFERENCE)).sum().item() == pytest.approx(kl.item(), abs=EXACT)

    def expected_gradient(estimator: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        logprobs = logits.log_softmax(-1)
        return gradient((logprobs.exp().detach() * estimator(logprobs, REFERENCE)).sum(), logits)

    assert torch.allclose(expected_gradient(k1), torch.zeros(3, dtype=torch.float64), atol=EXACT)
    assert torch.allclose(expected_gradient(k2), gradient(kl, logits), atol=EXACT)
    assert torch.allclose(expected_gradient(k3), gradient(reverse, logits), atol=EXACT)


@given(difference=st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1e-9, -1e-9, -1e4, 1e4])))
def test_k2_and_k3_are_never_negative_and_finite(difference: float) -> None:
    for dtype in (torch.float32, torch.float64):
        logprobs, zero = torch.tensor([difference], dtype=dtype), torch.zeros(1, dtype=dtype)
        for estimator in (k2, k3):
            assert 0.0 <= estimator(logprobs, zero).item() < math.inf
    assert k3(torch.tensor([0.7]), torch.tensor([0.7])).item() == 0.0


def test_k_golden() -> None:
    d = torch.tensor([0.5], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    assert [f(d, zero).item() for f in (k1, k2, k3)] == pytest.approx([0.5, 0.125, math.exp(-0.5) - 0.5], abs=EXACT)


def test_entropy_is_exact_and_its_gradient_survives_impossible_tokens() -> None:
    assert token_entropy(torch.zeros(2, 3, 4)).tolist() == [[pytest.approx(math.log(4))] * 3] * 2
    p = [0.7, 0.2, 0.1]
    wanted = -sum(x * math.log(x) for x in p)
    assert token_entropy(torch.tensor(p).log()).item() == pytest.approx(wanted, rel=1e-6)
    logits = torch.tensor([0.0, 0.0, -math.inf], requires_grad=True)
    entropy = token_entropy(logits)
    assert entropy.item() == pytest.approx(math.log(2))
    assert bool(gradient(entropy, logits).isfinite().all())


# --- guard ---


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (-math.inf, math.nan)])
def test_guard_names_the_step_and_the_last_good_checkpoint(loss: float, norm: float) -> None:
    with pytest.raises(TrainingDiverged) as caught:
        check_finite(loss=loss, grad_norm=norm, step=17, checkpoint=Path("runs/a/checkpoints/sft"))
    text = str(caught.value)
    assert "step 17" in text and "runs/a/checkpoints/sft" in text and str(loss) in text and "what to do" in text
    with pytest.raises(TrainingDiverged, match="no checkpoint"):
        check_finite(loss=loss, grad_norm=norm, step=0, checkpoint=None)


def test_guard_is_silent_on_finite_numbers() -> None:
    check_finite(loss=-1e30, grad_norm=0.0, step=1, checkpoint=None)
