"""The training forward pass of a Qwen3, written for small models on a CPU, float32.

It computes what `Qwen3ForCausalLM` computes, from the same parameters (a test holds them equal), but
fuses what eager mode leaves apart: a small model spends more time moving activations than multiplying.
Each fused function carries its own backward pass; tests check them against autograd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clew.models import kernels
from clew.models.chunked_logprobs import chunked_logprobs, worth_chunking
from clew.models.positions import Positions, distinct_positions

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


TIMES_AT_ONCE = 64
"""Attention multiplies whole blocks of so many queries with all keys up to their last: what is above the diagonal of
a larger block would be wasted."""


def _array(x: Tensor) -> NDArray[Any]:
    return x.detach().contiguous().numpy()


def _normalised(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / rms(x) [tokens, width] and 1 / rms(x) [tokens]."""
    z, scale = torch.empty_like(x), x.new_empty(len(x))
    kernels.normalise(_array(x), np.float32(eps), z.numpy(), scale.numpy())
    return z, scale


def _normalised_backward(grad: Tensor, z: Tensor, scale: Tensor, residual: Tensor) -> Tensor:
    """`residual` + the gradient of x from that of z = x * scale [tokens, width]."""
    out = torch.empty_like(z)
    kernels.normalise_backward(_array(grad), z.numpy(), scale.numpy(), _array(residual), out.numpy())
    return out


class _Rows(torch.autograd.Function):
    """Rows `places` [n] of x [tokens, width]; a row may be asked for any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.tokens = len(x)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        out = grads[0].new_zeros(ctx.tokens, grads[0].shape[1])
        kernels.add_rows(_array(grads[0]), places.numpy(), out.numpy())
        return out, None


class _Projected(torch.autograd.Function):
    """y = x / rms(x) @ weight.T for x [tokens, width]; the norm's weight is folded into `weight`.

    It passes x on as well, for the residual connection, so that both gradients of x are added in one loop.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        z, scale = _normalised(x, eps)
        ctx.save_for_backward(z, scale, weight)
        return z @ weight.t(), x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad, residual = grads
        z, scale, weight = ctx.saved_tensors
        return _normalised_backward(grad @ weight, z, scale, residual), grad.t() @ z, None


class _Normalise(torch.autograd.Function):
    """y = x / rms(x) [tokens, width]; the norm's weight is folded into what follows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        z, scale = _normalised(x, eps)
        ctx.save_for_backward(z, scale)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        z, scale = ctx.saved_tensors
        return _normalised_backward(grads[0], z, scale, torch.zeros_like(z)), None


class _FeedForward(torch.autograd.Function):
    """y = x + (silu(gate) * up) @ down.T for x [tokens, width], where gate and up are x / rms(x) @ gate_up.T."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor, eps: float) -> Tensor:
        z, scale = _normalised(x, eps)
        lifted = z @ gate_up.t()
        product = x.new_empty(len(x), down.shape[1])
        kernels.swiglu(lifted.numpy(), product.numpy())
        ctx.save_for_backward(z, scale, lifted, product, gate_up, down)
        return torch.addmm(x, product, down.t())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (grad,) = grads
        z, scale, lifted, product, gate_up, down = ctx.saved_tensors
        grad_lifted = torch.empty_like(lifted)
        kernels.swiglu_backward((grad @ down).numpy(), lifted.numpy(), grad_lifted.numpy())
        grad_x = _normalised_backward(grad_lifted @ gate_up, z, scale, grad)
        return grad_x, grad_lifted.t() @ z, grad.t() @ product, None


class _SplitHeads(torch.autograd.Function):
    """Normalised, rotated queries [batch, kv_heads, time, groups, head_width] and keys [batch, kv_heads, time,
    head_width], and values like keys, of y [batch, time, heads + 2 * kv_heads, head_width].

    `norms` [heads + kv_heads, head_width] are the norms' weights; 1 / sqrt(head_width) may be folded into them.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, norms: Tensor, angles: tuple[NDArray[Any], NDArray[Any]], kv_heads: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, time, _, width = y.shape
        q = y.new_empty(batch, kv_heads, time, len(norms) // kv_heads - 1, width)
        k, v = (y.new_empty(batch, kv_heads, time, width) for _ in range(2))
        scale = y.new_empty(batch, time, len(norms))
        written = (x.numpy() for x in (scale, q, k, v))
        kernels.split_heads(_array(y), _array(norms), *angles, np.float32(eps), *written)
        ctx.save_for_backward(y, norms, scale)
        ctx.angles = angles
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        y, norms, scale = ctx.saved_tensors
        grad_y, grad_norms = torch.empty_like(y), torch.zeros_like(norms)
        kernels.split_heads_backward(
            *map(_array, grads),
            _array(y),
            _array(norms),
            *ctx.angles,
            scale.numpy(),
            grad_y.numpy(),
            grad_norms.numpy(),
        )
        return grad_y, grad_norms, None, None, None


class _Attention(torch.autograd.Function):
    """Causal attention of what `_SplitHeads` makes, as [batch * kv_heads, time * groups, head_width]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        groups = q.shape[3]
        ctx.shape = q.shape
        q, k, v = q.flatten(2, 3).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        mixed = torch.empty_like(q)
        probs = []
        for rows, seen in _blocks(k.shape[1], groups):
            weights = torch.bmm(q[:, rows], k[:, seen].transpose(1, 2))
            kernels.causal_softmax(weights.numpy(), rows.start // groups, groups)
            mixed[:, rows] = torch.bmm(weights, v[:, seen])
            probs.append(weights)
        ctx.save_for_backward(q, k, v, *probs)
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (grad,) = grads
        q, k, v, *probs = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (rows, seen), weights in zip(_blocks(k.shape[1], ctx.shape[3]), probs, strict=True):
            grad_v[:, seen] += torch.bmm(weights.transpose(1, 2), grad[:, rows])
            grad_scores = torch.bmm(grad[:, rows], v[:, seen].transpose(1, 2))
            kernels.softmax_backward(weights.numpy(), grad_scores.numpy())
            grad_q[:, rows] = torch.bmm(grad_scores, k[:, seen])
            grad_k[:, seen] += torch.bmm(grad_scores.transpose(1, 2), q[:, rows])
        batch, kv_heads, _, _, width = ctx.shape
        grad_k, grad_v = (x.view(batch, kv_heads, -1, width) for x in (grad_k, grad_v))
        return grad_q.view(ctx.shape), grad_k, grad_v


def _blocks(time: int, groups: int) -> list[tuple[slice, slice]]:
    """Rows of queries [time * groups] and the times of the keys that some of them see, block by block."""
    starts = range(0, time, TIMES_AT_ONCE)
    stops = [min(start + TIMES_AT_ONCE, time) for start in starts]
    return [(slice(a * groups, b * groups), slice(b)) for a, b in zip(starts, stops, strict=True)]


class _TokenLogProb(torch.autograd.Function):
    """log softmax(hidden @ weight.T / temperature)[target] and its entropy; keeps a single [tokens, vocab] array."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        probs = hidden @ weight.t()
        chosen, entropy = hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden))
        written = (x.numpy() for x in (probs, targets, chosen, entropy))
        logits, aims, *results = written
        kernels.log_softmax_at(logits, aims, np.float32(temperature), *results)
        ctx.save_for_backward(hidden, weight, targets, probs)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return chosen, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, targets, probs = ctx.saved_tensors
        grad_logits = torch.empty_like(probs)
        grad = _array(grads[0] / ctx.temperature)
        kernels.log_softmax_at_backward(probs.numpy(), targets.numpy(), grad, grad_logits.numpy())
        return grad_logits @ weight, grad_logits.t() @ hidden, None, None


def rotary_table(length: int, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding (arXiv 2104.09864), each [length, head_width]."""
    frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies[None, :]
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _swap_halves(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat([x[..., half:], x[..., :half]], dim=-1)


def rotary_tables(
    q_norm: Tensor, k_norm: Tensor, cos: Tensor, sin: Tensor, *, heads: int, kv_heads: int
) -> tuple[Tensor, Tensor]:
    """Tables for `_Rotate`, [time, heads + kv_heads, head_width]; norm weights and 1 / sqrt(head_width) folded in."""
    half = cos.shape[-1] // 2
    q_norm = q_norm * cos.shape[-1] ** -0.5
    norms = torch.cat([q_norm.expand(heads, -1), k_norm.expand(kv_heads, -1)])
    signed = torch.cat([-sin[:, :half], sin[:, half:]], dim=-1)
    return cos[:, None, :] * norms, signed[:, None, :] * _swap_halves(norms)


def hidden_states(model: Qwen3ForCausalLM, input_ids: Tensor) -> Tensor:
    """Normalised final hidden states [batch, time, width] of right-padded `input_ids` [batch, time], causal attention.

    The final norm's weight is not yet applied: it is folded into the unembedding.
    Padding needs no mask: it stands to the right, where causal attention never looks.
    """
    return _states(model, input_ids, None).view(*input_ids.shape, -1)


def _states(model: Qwen3ForCausalLM, input_ids: Tensor, positions: Positions | None) -> Tensor:
    """The same as [tokens, width], of the computed `positions` alone; None for all of them."""
    config = model.config
    batch, time = input_ids.shape
    heads, kv_heads, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    angles = _angles(time, width, config.rope_parameters["rope_theta"])
    eps = config.rms_norm_eps
    ids = input_ids.flatten() if positions is None else input_ids.flatten()[positions.computed]
    x = F.embedding(ids, model.model.embed_tokens.weight, padding_idx=config.pad_token_id)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        qkv = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        y, x = _Projected.apply(x, qkv * layer.input_layernorm.weight, eps)
        if positions is not None:
            y = _Rows.apply(y, positions.places)
        q_norm = attention.q_norm.weight * width**-0.5
        norms = torch.cat([q_norm.expand(heads, -1), attention.k_norm.weight.expand(kv_heads, -1)])
        split = _SplitHeads.apply(y.view(batch, time, heads + 2 * kv_heads, width), norms, angles, kv_heads, eps)
        mixed = _Attention.apply(*split).view(batch, kv_heads, time, -1).transpose(1, 2).reshape(batch * time, -1)
        if positions is not None:
            mixed = _Rows.apply(mixed, positions.computed)
        x = torch.addmm(x, mixed, attention.o_proj.weight.t())
        gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * layer.post_attention_layernorm.weight
        x = _FeedForward.apply(x, gate_up, mlp.down_proj.weight, eps)
    return _Normalise.apply(x, eps)


def _angles(time: int, head_width: int, base: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cosines and sines, [time, head_width / 2]: the halves of a table are alike."""
    cos, sin = (table[:, : head_width // 2] for table in rotary_table(time, head_width, base))
    return _array(cos), _array(sin)


class TokenLogProbs(NamedTuple):
    """Log-probabilities of targets and the entropies of the distributions they were drawn from, equal shapes."""

    logprobs: Tensor
    entropies: Tensor


def token_logprobs(
    model: Qwen3ForCausalLM, input_ids: Tensor, targets: Tensor, target_mask: Tensor, *, temperature: float = 1.0
) -> TokenLogProbs:
    """Log-probabilities of the `targets` [batch, time] that follow `input_ids` [batch, time], as [batch, time].

    Positions outside `target_mask` [batch, time] are 0: logits are computed at the marked ones alone.
    Rows are right-padded. Entropies carry no gradient. What rows that begin alike have in common is computed once, and
    logits of a large vocabulary are made in chunks.
    """
    positions = distinct_positions(input_ids, target_mask)
    marked = target_mask.flatten().nonzero().squeeze(1)
    hidden = _Rows.apply(
        _states(model, input_ids, positions), marked if positions is None else positions.places[marked]
    )
    unembedding = model.lm_head.weight * model.model.norm.weight
    wanted = targets[target_mask]
    if worth_chunking(len(hidden), len(unembedding)):
        chosen, entropy = chunked_logprobs(hidden, unembedding, wanted, temperature=temperature)
        entropy = entropy.detach()
    else:
        chosen, entropy = _TokenLogProb.apply(hidden, unembedding, wanted, temperature)
    blank = torch.zeros(targets.shape, dtype=chosen.dtype)
    return TokenLogProbs(blank.masked_scatter(target_mask, chosen), blank.masked_scatter(target_mask, entropy))
