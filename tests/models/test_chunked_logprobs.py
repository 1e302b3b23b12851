"""Chunked log-probabilities against log_softmax of all logits, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.models import any_backbone
from clew.models import chunked_logprobs as chunked
from clew.models.chunked_logprobs import WORTHWHILE_BYTES, chunked_logprobs, worth_chunking


def whole(hidden, weight, targets, temperature):
    logprobs = (hidden @ weight.t() / temperature).log_softmax(-1)
    chosen = logprobs.gather(-1, targets[:, None]).squeeze(-1)
    return chosen, -(logprobs.exp() * logprobs).sum(-1)


@given(
    tokens=st.integers(0, 9),
    vocabulary=st.integers(1, 11),
    chunk=st.integers(1, 10),
    temperature=st.sampled_from([1.0, 0.7]),
    scale=st.sampled_from([0.0, 1.0, 30.0]),
    parts=st.sampled_from([(1.0, 0.0), (0.0, 1.0), (0.5, -2.0)]),
)
@settings(max_examples=60)
def test_values_and_gradients(tokens, vocabulary, chunk, temperature, scale, parts):
    draw = torch.Generator().manual_seed(tokens + 10 * vocabulary)
    hidden = (scale * torch.randn(tokens, 4, generator=draw, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(vocabulary, 4, generator=draw, dtype=torch.float64).requires_grad_()
    targets = torch.randint(0, vocabulary, (tokens,), generator=draw)
    pull = torch.randn(tokens, generator=draw, dtype=torch.float64)
    found = []
    for chosen, entropies in (
        chunked_logprobs(hidden, weight, targets, temperature=temperature, chunk=chunk),
        whole(hidden, weight, targets, temperature),
    ):
        loss = (pull * (parts[0] * chosen + parts[1] * entropies)).sum()
        found.append((chosen, entropies, *torch.autograd.grad(loss, (hidden, weight))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_in_float32_and_bfloat16():
    draw = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(50, 16, generator=draw), torch.randn(300, 16, generator=draw)
    targets = torch.randint(0, 300, (50,), generator=draw)
    chosen, _ = whole(hidden.double(), weight.double(), targets, 1.0)
    ours = chunked_logprobs(hidden, weight, targets, chunk=7).logprobs
    torch.testing.assert_close(ours.double(), chosen, rtol=1e-5, atol=1e-5)
    narrow = chunked_logprobs(hidden.bfloat16(), weight.bfloat16(), targets, chunk=7).logprobs
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), chosen, rtol=0.05, atol=0.1)


def test_logits_too_large_for_exp():
    hidden = torch.tensor([[300.0]], requires_grad=True)
    found = chunked_logprobs(hidden, torch.tensor([[1.0], [1.0], [-1.0]]), torch.tensor([0]))
    assert found.entropies.item() == pytest.approx(math.log(2))
    assert found.logprobs.item() == pytest.approx(-math.log(2))


def test_memory_is_that_of_a_chunk(monkeypatch):
    """No logits of more than a chunk are ever made."""
    made = []
    original = torch.Tensor.__matmul__

    def watched(self, other):
        answer = original(self, other)
        made.append(answer.shape)
        return answer

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    hidden = torch.randn(20, 4, requires_grad=True)
    chunked_logprobs(hidden, torch.randn(50, 4), torch.zeros(20, dtype=torch.long), chunk=3).logprobs.sum().backward()
    assert max(shape[0] for shape in made if shape[1] == 50) == 3
    assert sum(shape[0] for shape in made if shape[1] == 50) == 40


def test_when_it_is_worth_it():
    assert not worth_chunking(2048, 300)
    assert worth_chunking(2048, WORTHWHILE_BYTES // 4 // 2048)


def test_models_of_the_library_are_read_in_chunks_where_their_logits_are_large(monkeypatch, make_model):
    """In float64, so that the library reads the model and not clew."""
    draw = torch.Generator().manual_seed(0)
    ids, targets = torch.randint(2, 300, (2, 3, 9), generator=draw)
    mask = torch.rand(3, 9, generator=draw) < 0.6
    model = make_model(vocabulary=300).to(torch.float64)
    found, used = [], []

    def watched(*args, **settings):
        used.append(len(args[0]))
        return chunked_logprobs(*args, **settings, chunk=4)

    monkeypatch.setattr(any_backbone, "chunked_logprobs", watched)
    for limit in (WORTHWHILE_BYTES, 0):
        monkeypatch.setattr(chunked, "WORTHWHILE_BYTES", limit)
        logprobs = any_backbone.target_logprobs(model, ids, targets, mask)
        found.append((logprobs, *torch.autograd.grad(logprobs.sum(), list(model.parameters()))))
    assert used == [int(mask.sum())]
    for whole_batch, in_chunks in zip(*found, strict=True):
        torch.testing.assert_close(in_chunks.double(), whole_batch.double(), rtol=1e-5, atol=1e-5)
