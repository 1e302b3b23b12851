"""The training forward pass against `Qwen3ForCausalLM`, and every hand-written backward pass against differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clew.models import forward
from clew.models.architecture import SmallQwen3
from clew.models.forward import hidden_states, rotary_table, rotary_tables, token_logprobs

LOGPROB_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 2e-4
"""Relative to the largest entry of the gradient."""

SIZES = {
    "multi-query": SmallQwen3(width=32, layers=2, heads=4, kv_heads=1, head_width=8, ffn_width=48, context=64),
    "grouped": SmallQwen3(width=32, layers=3, heads=4, kv_heads=2, head_width=16, ffn_width=40, context=64),
    "multi-head": SmallQwen3(width=64, layers=1, heads=4, kv_heads=4, head_width=16, ffn_width=96, context=64),
    "one-head": SmallQwen3(width=16, layers=2, heads=1, kv_heads=1, head_width=16, ffn_width=16, context=64),
    "default": SmallQwen3(),
}


def batch(lengths: list[int], seed: int = 0, vocabulary: int = 551) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded inputs, targets and a mask that leaves out the first two targets and the padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, vocabulary, (len(lengths), max(lengths) + 1), generator=generator)
    time = torch.arange(max(lengths))
    mask = (time[None, :] < torch.tensor(lengths)[:, None]) & (time >= 2)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), mask


def plain(model: Any, ids: Tensor, targets: Tensor, mask: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The same from transformers, by plain autograd."""
    distribution = (model(input_ids=ids, use_cache=False).logits / temperature).log_softmax(dim=-1)
    logprobs = distribution.gather(-1, targets[..., None]).squeeze(-1)
    entropies = -(distribution.exp() * distribution).sum(dim=-1)
    return torch.where(mask, logprobs, 0.0), torch.where(mask, entropies, 0.0)


def test_an_untied_unembedding_gets_its_own_gradient(make_model: Callable[..., Any]) -> None:
    model = make_model(tied=False)
    inputs = batch([6, 9])
    plain(model, *inputs)[0].sum().backward()
    expected = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    token_logprobs(model, *inputs).logprobs.sum().backward()
    for key in ("lm_head.weight", "model.embed_tokens.weight"):
        gradient = dict(model.named_parameters())[key].grad
        torch.testing.assert_close(gradient, expected[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("time", [1, 2, 17, 48])
def test_logits_equal_transformers(make_model: Callable[..., Any], name: str, time: int) -> None:
    model = make_model(SIZES[name])
    ids = batch([time] * 3)[0]
    with torch.no_grad():
        logits = hidden_states(model, ids) @ (model.lm_head.weight * model.model.norm.weight).t()
        expected = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=LOGPROB_TOLERANCE)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_logprobs_entropies_and_gradients_equal_transformers(
    make_model: Callable[..., Any], name: str, temperature: float
) -> None:
    model = make_model(SIZES[name])
    inputs = batch([20, 3, 11, 7])
    weights = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    expected, expected_entropies = plain(model, *inputs, temperature)
    (expected * weights).sum().backward()
    gradients = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    ours = token_logprobs(model, *inputs, temperature=temperature)
    (ours.logprobs * weights).sum().backward()
    torch.testing.assert_close(ours.logprobs, expected, rtol=1e-5, atol=LOGPROB_TOLERANCE)
    torch.testing.assert_close(ours.entropies, expected_entropies, rtol=1e-4, atol=1e-4)
    assert not ours.entropies.requires_grad
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        difference = (parameter.grad - gradients[key]).abs().max() / gradients[key].abs().max()
        assert difference < GRADIENT_TOLERANCE, key


def test_long_sequences_equal_transformers(make_model: Callable[..., Any]) -> None:
    """Above the length up to which attention is written out."""
    size = SmallQwen3(width=16, layers=1, heads=2, kv_heads=1, head_width=8, ffn_width=16, context=256)
    model = make_model(size)
    inputs = batch([230, 170])
    expected, _ = plain(model, *inputs)
    expected.sum().backward()
    gradients = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    ours = token_logprobs(model, *inputs).logprobs
    ours.sum().backward()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=LOGPROB_TOLERANCE)
    for key, parameter in model.named_parameters():
        assert (parameter.grad - gradients[key]).abs().max() / gradients[key].abs().max() < GRADIENT_TOLERANCE, key


def test_padding_changes_neither_values_nor_gradients(make_model: Callable[..., Any]) -> None:
    model = make_model()
    ids, targets, mask = batch([9, 5])
    results = []
    for extra, filler in ((0, 0), (7, 0), (7, 123)):
        pad = torch.full((2, extra), filler)
        padded = (torch.cat([ids, pad], 1), torch.cat([targets, pad], 1), torch.cat([mask, pad.bool() & False], 1))
        model.zero_grad()
        out = token_logprobs(model, *padded)
        (out.logprobs * torch.arange(1.0, 1.0 + 9 + extra)).sum().backward()
        assert not out.logprobs[:, 9:].any()
        assert not out.entropies[:, 9:].any()
        results.append(
            (out.logprobs[:, :9].detach(), out.entropies[:, :9], [p.grad.clone() for p in model.parameters()])
        )
    for logprobs, entropies, gradients in results[1:]:
        torch.testing.assert_close(logprobs, results[0][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(entropies, results[0][1], rtol=0, atol=1e-5)
        for gradient, expected in zip(gradients, results[0][2], strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_no_marked_target_gives_zeros_and_zero_gradients(model: Any) -> None:
    ids, targets, mask = batch([6, 4])
    out = token_logprobs(model, ids, targets, mask & False)
    assert not out.logprobs.any()
    grads = torch.autograd.grad(out.logprobs.sum(), list(model.parameters()))
    assert not any(g.any() for g in grads)


def test_the_forward_pass_works_without_gradients(model: Any) -> None:
    inputs = batch([8, 8])
    with torch.inference_mode():
        quiet = token_logprobs(model, *inputs).logprobs
    torch.testing.assert_close(quiet, token_logprobs(model, *inputs).logprobs.detach(), rtol=0, atol=0)


def test_entropy_of_equal_logits_is_that_of_the_uniform_distribution(make_model: Callable[..., Any]) -> None:
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(0.25)
    ids, targets, mask = batch([5])
    out = token_logprobs(model, ids, targets, mask, temperature=0.5)
    expected = torch.tensor(551.0).log()
    torch.testing.assert_close(out.entropies[mask], expected.expand(int(mask.sum())), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(out.logprobs[mask].detach(), -expected.expand(int(mask.sum())), rtol=1e-6, atol=1e-6)


def test_rotary_table_by_hand() -> None:
    cos, sin = rotary_table(3, 4, 100.0)
    angles = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.1, 1.0, 0.1], [2.0, 0.2, 2.0, 0.2]])
    torch.testing.assert_close(cos, angles.cos())
    torch.testing.assert_close(sin, angles.sin())


def double(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.double).requires_grad_()


def test_gradient_of_normalise() -> None:
    assert torch.autograd.gradcheck(lambda x: forward._Normalise.apply(x, 1e-2), (double(2, 3, 5),))


def test_gradient_of_feed_forward() -> None:
    arguments = (double(3, 5), double(7, 5), double(7, 5).detach().flip(0).requires_grad_(), double(5, 7))
    assert torch.autograd.gradcheck(lambda *a: forward._FeedForward.apply(*a, 1e-2), arguments)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 1), (4, 2), (3, 3)])
def test_gradient_of_attention(heads: int, kv_heads: int) -> None:
    arguments = (double(2, 5, heads + kv_heads, 3), double(2, 5, kv_heads, 3))
    assert torch.autograd.gradcheck(forward._Attention.apply, arguments)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 1), (4, 2), (3, 3)])
@pytest.mark.parametrize("time", [1, 6])
def test_attention_by_the_definition_and_in_tiles(heads: int, kv_heads: int, time: int) -> None:
    qk, v = double(2, time, heads + kv_heads, 3), double(2, time, kv_heads, 3)
    expected = torch.zeros(2, time, heads, 3, dtype=torch.double)
    for b, t, h in itertools.product(range(2), range(time), range(heads)):
        group = h // (heads // kv_heads)
        scores = qk[b, : t + 1, heads + group] @ qk[b, t, h]
        expected[b, t, h] = scores.softmax(0) @ v[b, : t + 1, group]
    torch.testing.assert_close(forward._Attention.apply(qk, v), expected.flatten(2))
    torch.testing.assert_close(forward._attend_in_tiles(qk, v), expected.flatten(2))


def test_gradient_of_rotation() -> None:
    assert torch.autograd.gradcheck(forward._Rotate.apply, (double(2, 3, 4, 6), double(3, 4, 6), double(3, 4, 6)))


def test_gradient_of_token_logprob() -> None:
    targets = torch.tensor([3, 0, 6, 3])

    def logprobs(hidden: Tensor, weight: Tensor) -> Tensor:
        return forward._TokenLogProb.apply(hidden, weight, targets, 0.7)[0]  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(logprobs, (double(4, 5), double(7, 5)))


def test_rotation_with_folded_norms_is_the_rotation_of_the_normed_vector() -> None:
    cos, sin = (t.double() for t in rotary_table(3, 6, 10.0))
    x, q_norm, k_norm = double(2, 3, 4, 6), double(6), double(1, 6)[0]
    tables = rotary_tables(q_norm, k_norm, cos, sin, heads=3, kv_heads=1)
    normed = x * torch.stack([q_norm / 6**0.5] * 3 + [k_norm])
    rotated_half = torch.cat([-normed[..., 3:], normed[..., :3]], dim=-1)
    expected = normed * cos[:, None] + rotated_half * sin[:, None]
    torch.testing.assert_close(forward._Rotate.apply(x, *tables), expected)
