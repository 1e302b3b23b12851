"""Losses of policies and critics against loops, and what must not change them: padding, micro-batches, masked NaN."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clew.core.errors import InvalidValue
from clew.learn.aggregate import constant_denominator, sequence_mean, token_mean
from clew.learn.losses import cispo, clipped_surrogate, clipped_value_loss, gspo, reinforce

numbers = st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 1.0, -1.0]))
log_ratios = st.one_of(st.floats(-2, 2), st.sampled_from([0.0, 30.0, -30.0]))


@st.composite
def ragged(draw):
    """Rows of (log-ratio, old log-prob), lengths 0 to 4, and an advantage a row."""
    rows = draw(st.lists(st.lists(st.tuples(log_ratios, st.floats(-4, 0)), max_size=4), min_size=1, max_size=4))
    return rows, draw(st.lists(numbers, min_size=len(rows), max_size=len(rows)))


def padded(rows, advantages, width=5, fill=math.nan):
    """New and old log-probs [batch, width], advantages, mask."""
    old = torch.tensor([[*(o for _, o in row), *[fill] * (width - len(row))] for row in rows], dtype=torch.float64)
    new = torch.tensor([[*(o + x for x, o in row), *[fill] * (width - len(row))] for row in rows], dtype=torch.float64)
    mask = torch.tensor([[t < len(row) for t in range(width)] for row in rows])
    return new.requires_grad_(), old, torch.tensor(advantages, dtype=torch.float64), mask


def ratio(x):
    return math.exp(min(max(x, -20.0), 20.0))


def pessimistic(r, a, low, high):
    return -min(r * a, min(max(r, 1 - low), 1 + high) * a)


@given(case=ragged())
@settings(max_examples=60)
def test_against_loops(case):
    rows, advantages = case
    new, old, weights, mask = padded(rows, advantages)
    got = {
        "reinforce": reinforce(new, weights),
        "clipped": clipped_surrogate(new, old, weights, clip_high=0.28),
        "cispo": cispo(new, old, weights, lowest=0.5, highest=2.0),
        "gspo": gspo(new, old, weights, mask, clip_low=0.1, clip_high=0.2),
    }
    for row, (pairs, a) in enumerate(zip(rows, advantages, strict=True)):
        of_row = ratio(sum((o + x) - o for x, o in pairs) / len(pairs)) if pairs else 1.0
        for at, (x, o) in enumerate(pairs):
            wanted = {
                "reinforce": -a * (o + x),
                "clipped": pessimistic(ratio(x), a, 0.2, 0.28),
                "cispo": -min(max(ratio(x), 0.5), 2.0) * a * (o + x),
                "gspo": pessimistic(of_row, a, 0.1, 0.2),
            }
            for name, value in wanted.items():
                assert got[name][row, at].item() == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_the_gradient_of_gspo_is_that_of_the_ratio_of_a_sequence():
    """Against autograd through exp(mean log-ratio) itself, where nothing is clipped."""
    draw = torch.Generator().manual_seed(0)
    new = -torch.rand(3, 4, generator=draw, dtype=torch.float64)
    old = new - 0.1 * torch.rand(3, 4, generator=draw, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    new.requires_grad_()
    ours = sequence_mean(gspo(new, old, weights, mask, clip_low=1.0, clip_high=9.0), mask)
    ratios = (torch.where(mask, new - old, 0.0).sum(-1) / mask.sum(-1)).exp()
    direct = -(ratios * weights).mean()
    torch.testing.assert_close(ours, direct)
    slopes = [torch.autograd.grad(loss, new)[0] for loss in (ours, direct)]
    torch.testing.assert_close(*slopes)


def test_a_clipped_sequence_has_no_gradient_and_a_clipped_token_of_cispo_has():
    new = torch.full((1, 2), 0.5, dtype=torch.float64, requires_grad=True)
    old, mask, good = torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.ones(1)
    assert not torch.autograd.grad(gspo(new, old, good, mask).sum(), new)[0].any()
    assert torch.autograd.grad(cispo(new, old, good, highest=1.2).sum(), new)[0].tolist() == [[-1.2, -1.2]]


@pytest.mark.parametrize(("lowest", "highest"), [(0.0, 0.2), (1.1, 2.0), (-0.1, 2.0)])
def test_cispo_refuses_bounds_that_scale_tokens_of_the_policy_itself(lowest, highest):
    with pytest.raises(InvalidValue, match="bounds of the ratio"):
        cispo(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1), lowest=lowest, highest=highest)


@given(v=numbers, old=numbers, goal=numbers, clip=st.sampled_from([0.2, 1.0]))
@settings(max_examples=60)
def test_value_loss(v, old, goal, clip):
    value = torch.tensor([v], dtype=torch.float64, requires_grad=True)
    loss = clipped_value_loss(value, *(torch.tensor([x], dtype=torch.float64) for x in (old, goal)), clip=clip)
    near = old + min(max(v - old, -clip), clip)
    assert loss.item() == pytest.approx(max((v - goal) ** 2, (near - goal) ** 2) / 2, abs=1e-12)
    assert loss.item() >= (v - goal) ** 2 / 2 - 1e-12
    slope = torch.autograd.grad(loss.sum(), value)[0].item()
    if abs(v - old) < clip - 1e-9:
        assert slope == pytest.approx(v - goal, abs=1e-9)
    elif abs(v - old) > clip and (near - goal) ** 2 > (v - goal) ** 2:
        assert slope == 0.0


LOSSES = {
    "reinforce": lambda new, old, a, mask: reinforce(new, a),
    "clipped": lambda new, old, a, mask: clipped_surrogate(new, old, a),
    "cispo": lambda new, old, a, mask: cispo(new, old, a),
    "gspo": gspo,
}
AGGREGATES = {
    "token": lambda loss, mask, tokens, rows: token_mean(loss, mask, tokens=tokens),
    "sequence": lambda loss, mask, tokens, rows: sequence_mean(loss, mask, sequences=rows),
    "constant": lambda loss, mask, tokens, rows: constant_denominator(loss, mask, length=4, sequences=rows),
}


def total(loss: str, aggregate: str, case, *, parts: int = 1, width: int = 5) -> tuple[float, Tensor]:
    """Loss and gradient of a batch, given in `parts` micro-batches, padded to `width` with zeros."""
    new, old, weights, mask = padded(*case, width=width, fill=0.0)
    tokens, rows = int(mask.sum()), len(mask)
    value = 0.0
    gradient = torch.zeros_like(new)
    for chosen in torch.arange(rows).chunk(parts):
        per_token = LOSSES[loss](new[chosen], old[chosen], weights[chosen], mask[chosen])
        part = AGGREGATES[aggregate](per_token, mask[chosen], tokens, rows)
        value += part.item()
        gradient += torch.autograd.grad(part, new)[0]
    return value, gradient


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("loss", LOSSES)
@given(case=ragged())
@settings(max_examples=15)
def test_neither_micro_batches_nor_padding_change_anything(loss, aggregate, case):
    value, gradient = total(loss, aggregate, case)
    for parts, width in ((2, 5), (len(case[0]), 5), (1, 7)):
        other, slopes = total(loss, aggregate, case, parts=parts, width=width)
        assert other == pytest.approx(value, rel=1e-9, abs=1e-9)
        torch.testing.assert_close(slopes[:, :5], gradient, rtol=1e-9, atol=1e-9)
        assert not slopes[:, 5:].any()


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("loss", LOSSES)
def test_masked_nan_is_never_read(loss, aggregate):
    case = [[(0.1, -1.0), (0.0, -2.0)], []], [1.0, -1.0]
    new, old, weights, mask = padded(*case)
    value = AGGREGATES[aggregate](LOSSES[loss](new, old, weights, mask), mask, 2, 2).item()
    assert value == pytest.approx(total(loss, aggregate, case)[0])


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_to_learn_from_is_zero(loss):
    case = [[], []], [1.0, -1.0]
    for aggregate in AGGREGATES:
        value, gradient = total(loss, aggregate, case)
        assert value == 0.0 and not gradient.any()
