"""The training forward pass of a Qwen3, written for small models on a CPU.

It computes what `Qwen3ForCausalLM` computes, from the same parameters (a test holds them equal), but
fuses what eager mode leaves apart: a small model spends more time moving activations than multiplying.
Each fused function carries its own backward pass; tests check them against autograd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


LONGEST_WRITTEN_OUT = 96
"""Longest sequence whose attention is computed from whole [time, time] matrices."""


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _normalise_backward(grad: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    """The gradient of x from that of `normed` = x * scale, where scale is 1 / rms(x)."""
    mean = torch.linalg.vecdot(grad, normed, dim=-1).div_(-normed.shape[-1]).unsqueeze_(-1)
    return torch.addcmul(grad, normed, mean).mul_(scale)


class _Normalise(torch.autograd.Function):
    """y = x / rms(x) over the last dimension; norm weights are folded into the projection that follows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        scale = _inverse_rms(x, eps)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _normalise_backward(grads[0], *ctx.saved_tensors), None


class _FeedForward(torch.autograd.Function):
    """y = x + (silu(z @ gate.T) * (z @ up.T)) @ down.T for normalised x [tokens, width], z = x / rms(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, eps: float) -> Tensor:
        scale = _inverse_rms(x, eps)
        z = x * scale
        gated, lifted = z @ gate.t(), z @ up.t()
        activated = F.silu(gated)
        product = activated * lifted
        ctx.save_for_backward(z, scale, gated, lifted, activated, product, gate, up, down)
        return torch.addmm(x, product, down.t())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        (grad,) = grads
        z, scale, gated, lifted, activated, product, gate, up, down = ctx.saved_tensors
        grad_gated = grad @ down
        grad_lifted = grad_gated * activated
        # In place: half of the time of such products goes into touching new memory.
        torch.ops.aten.silu_backward.grad_input(grad_gated.mul_(lifted), gated, grad_input=grad_gated)
        grad_z = torch.addmm(grad_gated @ gate, grad_lifted, up)
        grad_x = _normalise_backward(grad_z, z, scale).add_(grad)
        return grad_x, grad_gated.t() @ z, grad_lifted.t() @ z, grad.t() @ product, None


class _TokenLogProb(torch.autograd.Function):
    """log softmax(hidden @ weight.T / temperature)[target] and its entropy; keeps a single [tokens, vocab] array."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logits = hidden @ weight.t()
        if temperature != 1.0:
            logits.div_(temperature)
        logits.sub_(logits.amax(dim=-1, keepdim=True))
        chosen = logits.gather(1, targets[:, None]).squeeze(1)
        probs = logits.exp()
        total = probs.sum(dim=-1)
        log_total = total.log()
        entropy = log_total - torch.linalg.vecdot(probs, logits, dim=-1) / total
        probs.div_(total[:, None])
        ctx.save_for_backward(hidden, weight, targets, probs)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return chosen - log_total, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad = grads[0] / ctx.temperature
        hidden, weight, targets, probs = ctx.saved_tensors
        grad_logits = probs * -grad[:, None]
        grad_logits.scatter_add_(1, targets[:, None], grad[:, None])
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


class _Rotate(torch.autograd.Function):
    """y = x * cos + swapped(x) * sin for tables [time, heads, head_width] that carry sign and norm weights.

    With w the weight of the norm, cos = w * cos0 and sin = swapped(w) * [-sin0, +sin0]: the rotary embedding of w * x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(x, cos, sin)
        return torch.addcmul(x * cos, _swap_halves(x), sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (grad,) = grads
        x, cos, sin = ctx.saved_tensors
        swapped = _swap_halves(grad)
        grad_x = torch.addcmul(grad * cos, swapped, _swap_halves(sin))
        grad_cos = torch.linalg.vecdot(grad, x, dim=0)
        grad_sin = _swap_halves(torch.linalg.vecdot(swapped, x, dim=0))
        return grad_x, grad_cos, grad_sin


class _Attention(torch.autograd.Function):
    """Causal attention with queries and keys `qk` [batch, time, heads + kv_heads, head_width], already scaled.

    Values `v` are [batch, time, kv_heads, head_width], the result [batch, time, heads * head_width]. It multiplies
    whole [time, time] matrices, which for short sequences is faster than tiles.
    """

    @staticmethod
    def forward(ctx: Any, qk: Tensor, v: Tensor) -> Tensor:
        batch, time, kv_heads, _ = v.shape
        q, k = (_by_kv_head(z, kv_heads) for z in qk.split([qk.shape[2] - kv_heads, kv_heads], dim=2))
        v = _by_kv_head(v, kv_heads)
        groups = q.shape[1] // time
        future = torch.full((time, time), -torch.inf, dtype=qk.dtype).triu_(1).repeat_interleave(groups, dim=0)
        probs = torch.baddbmm(future, q, k.transpose(1, 2)).softmax(dim=-1)
        ctx.save_for_backward(q, k, v, probs)
        ctx.batch = batch
        return _by_time(probs @ v, batch, time).flatten(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, probs = ctx.saved_tensors
        batch, time, kv_heads = ctx.batch, k.shape[1], len(k) // ctx.batch
        grad = _by_kv_head(grads[0].view(batch, time, -1, k.shape[2]), kv_heads)
        grad_v = probs.transpose(1, 2) @ grad
        grad_scores = torch.ops.aten._softmax_backward_data(grad @ v.transpose(1, 2), probs, -1, probs.dtype)
        parts = (grad_scores @ k, grad_scores.transpose(1, 2) @ q)
        return torch.cat([_by_time(z, batch, time) for z in parts], dim=2), _by_time(grad_v, batch, time)


def _by_kv_head(x: Tensor, kv_heads: int) -> Tensor:
    """[batch, time, kv_heads * groups, width] as [batch * kv_heads, time * groups, width]."""
    batch, time, heads, width = x.shape
    return x.unflatten(2, (kv_heads, -1)).transpose(1, 2).reshape(batch * kv_heads, time * heads // kv_heads, width)


def _by_time(x: Tensor, batch: int, time: int) -> Tensor:
    """The inverse of `_by_kv_head`."""
    return x.view(batch, -1, time, x.shape[1] // time, x.shape[2]).transpose(1, 2).flatten(2, 3)


def _attend_in_tiles(qk: Tensor, v: Tensor) -> Tensor:
    """What `_Attention` computes, in memory that does not grow with the square of the time."""
    kv_heads = v.shape[2]
    q, k = qk.split([qk.shape[2] - kv_heads, kv_heads], dim=2)
    q, k, v = (z.transpose(1, 2) for z in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0, enable_gqa=True)
    return mixed.transpose(1, 2).flatten(2)


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
    config = model.config
    batch, time = input_ids.shape
    heads, kv_heads, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    table = rotary_table(time, width, config.rope_parameters["rope_theta"])
    eps = config.rms_norm_eps
    attend = _Attention.apply if time <= LONGEST_WRITTEN_OUT else _attend_in_tiles
    x = F.embedding(input_ids, model.model.embed_tokens.weight, padding_idx=config.pad_token_id)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        qkv = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        y = _Normalise.apply(x, eps) @ (qkv * layer.input_layernorm.weight).t()
        qk, v = y.view(batch, time, heads + 2 * kv_heads, width).split([heads + kv_heads, kv_heads], dim=2)
        tables = rotary_tables(attention.q_norm.weight, attention.k_norm.weight, *table, heads=heads, kv_heads=kv_heads)
        mixed = attend(_Rotate.apply(_Normalise.apply(qk, eps), *tables), v)
        x = x + mixed @ attention.o_proj.weight.t()
        gate, up = (part.weight * layer.post_attention_layernorm.weight for part in (mlp.gate_proj, mlp.up_proj))
        x = _FeedForward.apply(x.flatten(0, 1), gate, up, mlp.down_proj.weight, eps).view_as(x)
    return _Normalise.apply(x, eps)


class TokenLogProbs(NamedTuple):
    """Log-probabilities of targets and the entropies of the distributions they were drawn from, equal shapes."""

    logprobs: Tensor
    entropies: Tensor


def token_logprobs(
    model: Qwen3ForCausalLM, input_ids: Tensor, targets: Tensor, target_mask: Tensor, *, temperature: float = 1.0
) -> TokenLogProbs:
    """Log-probabilities of the `targets` [batch, time] that follow `input_ids` [batch, time], as [batch, time].

    Positions outside `target_mask` [batch, time] are 0: logits are computed at the marked ones alone.
    Rows are right-padded. Entropies carry no gradient.
    """
    hidden = hidden_states(model, input_ids)[target_mask]
    unembedding = model.lm_head.weight * model.model.norm.weight
    chosen, entropy = _TokenLogProb.apply(hidden, unembedding, targets[target_mask], temperature)
    blank = torch.zeros(targets.shape, dtype=chosen.dtype)
    return TokenLogProbs(blank.masked_scatter(target_mask, chosen), blank.masked_scatter(target_mask, entropy))
