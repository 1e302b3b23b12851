"""The training forward pass against `Qwen3ForCausalLM`, and every hand-written backward pass against differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clew.models import body_kernels, forward, kernels
from clew.models.architecture import SmallQwen3
from clew.models.blas import sgemm
from clew.models.forward import hidden_states, rotary_table, token_logprobs

F = np.float32
LOGPROB_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 2e-4
"""Relative to the largest entry of the gradient."""

SIZES = {
    "multi-query": SmallQwen3(width=32, layers=2, heads=4, kv_heads=1, head_width=8, ffn_width=48, context=64),
    "grouped": SmallQwen3(width=32, layers=3, heads=4, kv_heads=2, head_width=16, ffn_width=40, context=64),
    "multi-head": SmallQwen3(width=64, layers=1, heads=4, kv_heads=4, head_width=16, ffn_width=96, context=64),
    "one-head": SmallQwen3(width=16, layers=2, heads=1, kv_heads=1, head_width=16, ffn_width=16, context=64),
    "wide": SmallQwen3(width=256, layers=1, heads=2, kv_heads=1, head_width=16, ffn_width=520, context=256),
    "default": SmallQwen3(),
}


def batch(lengths: list[int], seed: int = 0, vocabulary: int = 1051) -> tuple[Tensor, Tensor, Tensor]:
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


@pytest.mark.parametrize(
    "size",
    [SmallQwen3(width=16, layers=1, heads=2, kv_heads=1, head_width=8, ffn_width=16, context=256), SIZES["wide"]],
    ids=["narrow", "wide"],
)
def test_long_sequences_equal_transformers(make_model: Callable[..., Any], size: SmallQwen3) -> None:
    """Of several blocks of attention and of tokens, the last of them not full."""
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
    expected = torch.tensor(1051.0).log()
    torch.testing.assert_close(out.entropies[mask], expected.expand(int(mask.sum())), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(out.logprobs[mask].detach(), -expected.expand(int(mask.sum())), rtol=1e-6, atol=1e-6)


def test_rotary_table_by_hand() -> None:
    cos, sin = rotary_table(3, 4, 100.0)
    angles = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.1, 1.0, 0.1], [2.0, 0.2, 2.0, 0.2]])
    torch.testing.assert_close(cos, angles.cos())
    torch.testing.assert_close(sin, angles.sin())


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).requires_grad_()


def same_gradients(
    ours: Callable[..., Tensor | tuple[Tensor, ...]],
    plain: Callable[..., Tensor | tuple[Tensor, ...]],
    arguments: tuple[Tensor, ...],
) -> None:
    """Results and gradients of `ours` are those of `plain`, which autograd differentiates in double precision."""
    doubles = tuple(a.detach().double().requires_grad_() for a in arguments)
    results = [f(*a) for f, a in ((ours, arguments), (plain, doubles))]
    results = [r if isinstance(r, tuple) else (r,) for r in results]
    weights = [torch.randn(r.shape, generator=torch.Generator().manual_seed(i)) for i, r in enumerate(results[0])]
    gradients = []
    for outputs, inputs in zip(results, (arguments, doubles), strict=True):
        loss = sum(((o * w).sum() for o, w in zip(outputs, weights, strict=True)), torch.zeros(()))
        gradients.append(torch.autograd.grad(loss, inputs))
    for ours_are, expected in zip((*results[0], *gradients[0]), (*results[1], *gradients[1]), strict=True):
        torch.testing.assert_close(ours_are.double(), expected, rtol=2e-5, atol=2e-5)


def normed(x: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("residual", [0.0, 1.0])
def test_gradient_of_normalise(residual: float) -> None:
    class Normalise(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            z, scale = torch.empty_like(x), torch.empty(len(x))
            kernels.normalise(x.detach().numpy(), F(1e-2), z.numpy(), scale.numpy())
            ctx.save_for_backward(z, scale)
            return z

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            z, scale = ctx.saved_tensors
            out = torch.full_like(z, residual)
            # In place, as the layers use it.
            kernels.normalise_backward(grads[0].numpy(), z.numpy(), scale.numpy(), out.numpy(), out.numpy())
            return out - residual

    same_gradients(Normalise.apply, lambda x: normed(x, 1e-2), (rand(6, 5),))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_gradient_of_the_gated_activation(scale: float) -> None:
    class Gated(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, gate_up: Tensor) -> Tensor:
            ctx.save_for_backward(gate_up)
            out = torch.empty(len(gate_up), gate_up.shape[1] // 2)
            kernels.swiglu(gate_up.detach().numpy(), out.numpy())
            return out

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            (gate_up,) = ctx.saved_tensors
            out, again = torch.empty_like(gate_up), torch.empty_like(grads[0])
            body_kernels.swiglu_again(grads[0].numpy(), gate_up.numpy(), out.numpy(), again.numpy())
            torch.testing.assert_close(again, Gated.apply(gate_up))
            return out

    def plain(gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return torch.nn.functional.silu(gate) * up

    same_gradients(Gated.apply, plain, ((rand(3, 14).detach() * scale).requires_grad_(),))


HEADS = [(1, 1), (4, 1), (4, 2), (3, 3)]


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("first", [0, 2])
def test_heads_are_split_normalised_and_rotated(heads: int, kv_heads: int, first: int) -> None:
    """A block of six tokens, which may stand among others and at any times."""
    width, groups, tokens = 6, heads // kv_heads, 6
    times = torch.tensor([0, 5, 5, 1, 2, 0])
    cos, sin = (table[times] for table in rotary_table(6, width, 10.0))
    angles = [table[:, : width // 2].contiguous().numpy() for table in rotary_table(6, width, 10.0)]
    shapes = (kv_heads, (tokens + first) * groups, width), *[(tokens + first, kv_heads, width)] * 2

    class Split(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor, norms: Tensor) -> tuple[Tensor, ...]:
            q, k, v = (torch.empty(shape) for shape in shapes)
            scale = torch.empty(tokens + first, heads + kv_heads)
            made = (x.numpy() for x in (q, k, v, scale))
            given = (y.detach().numpy(), norms.detach().numpy(), *angles, F(1e-2), times.numpy(), first)
            kernels.split_heads(*given, *made)
            ctx.save_for_backward(y, norms, scale)
            return q[:, first * groups :].clone(), k[first:].clone(), v[first:].clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
            y, norms, scale = ctx.saved_tensors
            whole = [torch.full(shape, torch.nan) for shape in shapes]
            whole[0][:, first * groups :], whole[1][first:], whole[2][first:] = grads
            of_y, of_norms = torch.empty_like(y), torch.zeros_like(norms)
            given = (y.numpy(), norms.numpy(), *angles, times.numpy(), first, scale.numpy())
            kernels.join_heads_backward(*(x.numpy() for x in whole), *given, of_y.numpy(), of_norms.numpy())
            return of_y, of_norms

    def plain(y: Tensor, norms: Tensor) -> tuple[Tensor, ...]:
        y = y.unflatten(1, (-1, width))
        x = normed(y[:, : heads + kv_heads], 1e-2) * norms
        turned = torch.cat([-x[..., width // 2 :], x[..., : width // 2]], dim=-1)
        x = x * cos[:, None] + turned * sin[:, None]
        by_group = x[:, :heads].unflatten(1, (kv_heads, groups)).transpose(0, 1).flatten(1, 2)
        return by_group, x[:, heads:], y[:, heads + kv_heads :]

    arguments = rand(tokens, (heads + 2 * kv_heads) * width), rand(heads + kv_heads, width)
    same_gradients(Split.apply, plain, arguments)


SHARED = {
    "apart": ([[0, 1, 2], [3, 4, 5]], [0, 3, 6], [0, 1], [0, 0]),
    "one token": ([[0]], [0, 1], [0], [0]),
    "a common beginning": ([[0, 1, 4, 5], [0, 1, 2, 3], [0, 1, 2, 6]], [0, 4, 6, 7], [1, 0, 2], [0, 2, 3]),
    "several blocks": ([list(range(75)), [*range(40), *range(75, 110)]], [0, 75, 110], [0, 1], [0, 40]),
}


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("name", SHARED)
def test_attention_by_the_definition(heads: int, kv_heads: int, name: str) -> None:
    """Sequences of any length, which may have their beginnings in common."""
    groups, width = heads // kv_heads, 3
    places, *rest = (np.array(values) for values in SHARED[name])
    begins, rows, firsts = rest
    layout, tokens = (begins, rows, firsts, places), int(begins[-1])

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            probs = torch.empty(kv_heads, body_kernels.attention_room(begins, firsts, groups))
            mixed = torch.full_like(q, torch.nan)
            given = (x.detach().numpy() for x in (q, k, v))
            body_kernels.attend(sgemm(), *given, *layout, probs.numpy(), mixed.numpy())
            ctx.save_for_backward(q, k, v, probs)
            return mixed

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
            q, k, v, probs = ctx.saved_tensors
            found = torch.full_like(q, torch.nan), torch.zeros_like(k), torch.zeros_like(v)
            given = (x.numpy() for x in (grads[0].contiguous(), q, k, v))
            body_kernels.attend_backward(sgemm(), *given, *layout, probs.numpy(), *(x.numpy() for x in found))
            return found

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixed: dict[tuple[int, int, int], Tensor] = {}
        for piece, (row, first) in enumerate(zip(rows, firsts, strict=True)):
            for at in range(begins[piece + 1] - begins[piece]):
                seen = places[row, : first + at + 1]
                for h, g in itertools.product(range(kv_heads), range(groups)):
                    query = (begins[piece] + at) * groups + g
                    mixed[h, query, 0] = (k[seen, h] @ q[h, query]).softmax(0) @ v[seen, h]
        ordered = [mixed[h, query, 0] for h in range(kv_heads) for query in range(tokens * groups)]
        return torch.stack(ordered).view(q.shape)

    arguments = (
        rand(kv_heads, tokens * groups, width), rand(tokens, kv_heads, width), rand(tokens, kv_heads, width, seed=1)
    )  # fmt: skip
    same_gradients(Attention.apply, plain, arguments)


@pytest.mark.parametrize("size", [1.0, 50.0, 0.0])
@pytest.mark.parametrize("count", [4, 70])
def test_gradient_of_token_logprob(size: float, count: int) -> None:
    """Targets in any order, of which several may follow one state and none another."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(1, count + 1, (2 * count,), generator=generator)
    targets = torch.randint(7, (2 * count,), generator=generator)

    def plain(hidden: Tensor, weight: Tensor) -> Tensor:
        return (hidden[places] @ weight.t() / 0.7).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)

    hidden = (rand(count + 1, 5).detach() * size).requires_grad_()
    same_gradients(lambda h, w: forward._TokenLogProb.apply(h, w, places, targets, 0.7)[0], plain, (hidden, rand(7, 5)))
