"""What the training pass leaves out: only what is equal or what nobody needs, at the same values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clew.models import positions
from clew.models.forward import token_logprobs
from clew.models.positions import distinct_positions

VALUES, GRADIENTS = 1e-5, 1e-5


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Rows over two tokens, so that many begin alike, with targets anywhere or nowhere."""
    batch, time = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cells = st.lists(st.booleans(), min_size=batch * time, max_size=batch * time)
    ids, mask = (torch.tensor(draw(cells)).view(batch, time) for _ in range(2))
    return ids.long() * 300, mask


@given(batches())
def test_each_needed_beginning_is_computed_once(inputs: tuple[Tensor, Tensor]) -> None:
    ids, mask = inputs
    batch, time = ids.shape
    beginnings = {tuple(ids[row, : t + 1].tolist()) for row in range(batch) for t in range(time) if mask[row, t:].any()}
    found = distinct_positions(ids, mask)
    if not 0 < len(beginnings) <= positions.WORTHWHILE * batch * time:
        assert found is None
        return
    assert found is not None
    written = [tuple(ids[place // time, : place % time + 1].tolist()) for place in found.computed.tolist()]
    assert len(written) == len(beginnings)
    assert set(written) == beginnings
    for place, held in enumerate(found.places.tolist()):
        beginning = tuple(ids[place // time, : place % time + 1].tolist())
        assert written[held] == beginning if beginning in beginnings else held == 0


def grouped(groups: int, samples: int, prompt: int, response: int) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of a group share a prompt; the second of each group also the first half of the first's response."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(2, 800, (groups, prompt), generator=generator).repeat_interleave(samples, 0)
    responses = torch.randint(2, 800, (groups * samples, response), generator=generator)
    responses[1::samples, : response // 2] = responses[::samples, : response // 2]
    ids = torch.cat([prompts, responses], 1)
    mask = torch.zeros(groups * samples, prompt + response - 1, dtype=torch.bool)
    mask[:, prompt - 1 :] = True
    # One that was cut off before another that begins like it, and one that teaches nothing.
    mask[0, prompt + 1 :] = False
    mask[-1] = False
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), mask


def measured(model: Any, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
    out = token_logprobs(model, *inputs)
    weights = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((out.logprobs * weights).sum(), list(model.parameters()))
    return out.logprobs.detach(), out.entropies, list(gradients)


@pytest.mark.parametrize("order", ["together", "mixed"])
@pytest.mark.parametrize("shape", [(3, 4, 9, 8), (2, 5, 1, 6), (1, 2, 70, 3)], ids=str)
def test_shared_beginnings_change_neither_values_nor_gradients(
    make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int, int], order: str
) -> None:
    model = make_model()
    ids, targets, mask = grouped(*shape)
    if order == "mixed":
        rows = torch.randperm(len(ids), generator=torch.Generator().manual_seed(2))
        ids, targets, mask = ids[rows], targets[rows], mask[rows]
    found = distinct_positions(ids, mask)
    assert found is not None
    assert len(found.computed) < 0.85 * ids.numel()
    logprobs, entropies, gradients = measured(model, (ids, targets, mask))
    monkeypatch.setattr(positions, "WORTHWHILE", 0.0)
    plain, plain_entropies, plain_gradients = measured(model, (ids, targets, mask))
    torch.testing.assert_close(logprobs, plain, rtol=0, atol=VALUES)
    torch.testing.assert_close(entropies, plain_entropies, rtol=0, atol=VALUES)
    for gradient, expected in zip(gradients, plain_gradients, strict=True):
        assert (gradient - expected).abs().max() <= GRADIENTS * expected.abs().max()


def test_rows_that_have_nothing_in_common_are_computed_as_they_are() -> None:
    ids = torch.arange(12).view(3, 4)
    assert distinct_positions(ids, torch.ones(3, 4, dtype=torch.bool)) is None
    assert distinct_positions(ids, torch.zeros(3, 4, dtype=torch.bool)) is None
