"""The training forward pass of a Qwen3, written for small models on a CPU, float32.

It computes what `Qwen3ForCausalLM` computes, from the same parameters (a test holds them equal), but
in compiled loops over all layers: a small model spends more time between its products than multiplying.
Each function carries its own backward pass; tests check them against autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clew.models import body_kernels, kernels
from clew.models.blas import sgemm
from clew.models.chunked_logprobs import chunked_logprobs, worth_chunking
from clew.models.positions import Positions, distinct_positions

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
OF_A_LAYER = 11
"""Parameters of a layer."""


def _array(x: Tensor) -> NDArray[Any]:
    return x.detach().contiguous().numpy()


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


class _Layout(NamedTuple):
    """Where tokens stand in their sequences; see `body_kernels`."""

    times: Ints
    begins: Ints
    rows: Ints
    firsts: Ints
    places: Ints


def _layout(batch: int, time: int, positions: Positions | None) -> _Layout:
    if positions is None:
        numbers = np.arange(batch * time)
        begins = np.arange(batch + 1) * time
        return _Layout(
            numbers % time, begins, np.arange(batch), np.zeros(batch, np.int64), numbers.reshape(batch, time)
        )
    rows, times = np.divmod(positions.computed.numpy(), time)
    begins = np.flatnonzero(np.diff(rows, prepend=-1, append=-1))
    return _Layout(times, begins, rows[begins[:-1]], times[begins[:-1]], positions.places.numpy().reshape(batch, time))


class _Size(NamedTuple):
    """What the layers of a model are like."""

    layers: int
    heads: int
    kv_heads: int
    head_width: int
    eps: np.float32

    @property
    def channels(self) -> int:
        """Of queries, keys and values together."""
        return (self.heads + 2 * self.kv_heads) * self.head_width


class Folded(NamedTuple):
    """Weights of all layers as they are multiplied, joined and with norms folded in."""

    plain: tuple[Floats, ...]
    """[layers, out, in]: queries, keys and values; output of the attention; gates and ups; down."""
    turned: tuple[Floats, ...]
    """The same, transposed: [layers, in, out]."""
    norms: Floats
    """[layers, heads + kv_heads, head_width], with 1 / sqrt(head_width) in those of the queries."""


def _pieces(of_layer: Sequence[Floats]) -> list[tuple[int, int, Floats, Floats | None]]:
    """Of a layer's parameters, in the order of `_parameters`, the projections: which product, from which row of it on,
    the weight and the norm before it.
    """
    before, q, k, v, _, _, o, after, gate, up, down = of_layer
    qkv, gate_up = (0, before, (q, k, v)), (2, after, (gate, up))
    found: list[tuple[int, int, Floats, Floats | None]] = []
    for place, norm, weights in (qkv, (1, None, (o,)), gate_up, (3, None, (down,))):
        first = 0
        for weight in weights:
            found.append((place, first, weight, norm))
            first += len(weight)
    return found


def _folded(layers: Sequence[Sequence[Floats]], size: _Size) -> Folded:
    width, inner = layers[0][10].shape
    shapes = (size.channels, width), (width, size.heads * size.head_width), (2 * inner, width), (width, inner)
    plain = tuple(np.empty((len(layers), *shape), np.float32) for shape in shapes)
    turned = tuple(np.empty((len(layers), *shape[::-1]), np.float32) for shape in shapes)
    norms = np.empty((len(layers), size.heads + size.kv_heads, size.head_width), np.float32)
    ones = np.ones(max(inner, width, size.heads * size.head_width), np.float32)
    for layer, of_layer in enumerate(layers):
        for place, first, weight, norm in _pieces(of_layer):
            by = ones[: weight.shape[1]] if norm is None else norm
            body_kernels.fold(weight, by, plain[place][layer], turned[place][layer], first)
        norms[layer, : size.heads] = of_layer[4] * np.float32(size.head_width**-0.5)
        norms[layer, size.heads :] = of_layer[5]
    return Folded(plain, turned, norms)


def _unfolded(
    grads: Sequence[Floats], of_norms: Floats, layers: Sequence[Sequence[Floats]], size: _Size
) -> list[Tensor]:
    """Gradients of the parameters of all layers from those of what `_folded` makes of them."""
    found: list[Tensor] = []
    for layer, of_layer in enumerate(layers):
        own = [np.zeros_like(parameter) if parameter.ndim == 1 else np.empty_like(parameter) for parameter in of_layer]
        for place, first, weight, norm in _pieces(of_layer):
            at = next(index for index, parameter in enumerate(of_layer) if parameter is weight)
            grad = grads[place][layer, first : first + len(weight)]
            if norm is None:
                own[at] = grad
            else:
                of_norm = own[0] if norm is of_layer[0] else own[7]
                body_kernels.unfold(grad, weight, norm, own[at], of_norm)
        own[4] = of_norms[layer, : size.heads].sum(axis=0) * np.float32(size.head_width**-0.5)
        own[5] = of_norms[layer, size.heads :].sum(axis=0)
        found += [torch.from_numpy(grad) for grad in own]
    return found


def _kept(tokens: int, layout: _Layout, folded: Folded, size: _Size) -> tuple[Floats, ...]:
    """Memory for what the backward pass needs, in the order of `body_kernels.forward`."""
    layers, (width, inner) = size.layers, folded.plain[3].shape[1:]
    groups = size.heads // size.kv_heads
    room = body_kernels.attention_room(layout.begins, layout.firsts, groups)
    mixed = np.empty((layers, size.kv_heads, tokens, groups * size.head_width), np.float32)
    shapes = {
        "z1": (layers, tokens, width),
        "scale1": (layers, tokens),
        "y": (layers, tokens, size.channels),
        "scales": (layers, tokens, size.heads + size.kv_heads),
        "q": (layers, size.kv_heads, tokens * groups, size.head_width),
        "k": (layers, tokens, size.kv_heads, size.head_width),
        "v": (layers, tokens, size.kv_heads, size.head_width),
        "probs": (layers, size.kv_heads, room),
    }
    after = {
        "z2": (layers, tokens, width),
        "scale2": (layers, tokens),
        "lifted": (layers, tokens, 2 * inner),
        "z": (tokens, width),
        "scale": (tokens,),
    }
    first, last = ([np.empty(shape, np.float32) for shape in some.values()] for some in (shapes, after))
    return (*first, mixed, mixed.reshape(layers, size.kv_heads, tokens * groups, size.head_width), *last)


class _Given(NamedTuple):
    """What a pass through the body is of, besides its parameters."""

    ids: Ints
    """[tokens]: which."""
    layout: _Layout
    size: _Size
    angles: tuple[Floats, Floats]
    unlearnt: int | None
    """The token whose embedding gets no gradient."""
    learns: bool
    """Whether what gradients need is to be kept."""


class _Body(torch.autograd.Function):
    """Normalised final hidden states [tokens, width]; the final norm's weight is folded into what follows.

    `parameters` are those of `_parameters`.
    """

    @staticmethod
    def forward(ctx: Any, given: _Given, *parameters: Tensor) -> Tensor:
        embedding, layers = _by_layer(parameters)
        size = given.size
        folded = _folded(layers, size)
        kept = _kept(len(given.ids), given.layout, folded, size if given.learns else size._replace(layers=1))
        x = embedding[given.ids]
        weights = (*folded.turned, folded.norms)
        # Where nothing is to be learnt, each layer overwrites what the one before has left.
        for some in [slice(None)] if given.learns else [slice(layer, layer + 1) for layer in range(size.layers)]:
            own = (*(weight[some] for weight in weights), *given.angles, size.eps)
            body_kernels.forward(sgemm(), own, given.layout, kept, x)
        if given.learns:
            ctx.save_for_backward(*parameters)
            ctx.given, ctx.folded, ctx.kept = given, folded, kept
        return torch.from_numpy(kept[-2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        embedding, layers = _by_layer(ctx.saved_tensors)
        given, folded = ctx.given, ctx.folded
        found = tuple(np.zeros_like(weights) for weights in (*folded.plain, folded.norms))
        grad = grads[0].contiguous().clone().numpy()
        own = (*folded.plain, folded.norms, *given.angles)
        body_kernels.backward(sgemm(), own, given.layout, ctx.kept, found, grad)
        of_embedding = np.zeros_like(embedding)
        kernels.add_rows(grad, given.ids, of_embedding)
        if given.unlearnt is not None:
            of_embedding[given.unlearnt] = 0.0
        *products, of_norms = found
        return None, torch.from_numpy(of_embedding), *_unfolded(products, of_norms, layers, given.size)


def _by_layer(parameters: Sequence[Tensor]) -> tuple[Floats, list[list[Floats]]]:
    embedding, *arrays = map(_array, parameters)
    return embedding, [arrays[at : at + OF_A_LAYER] for at in range(0, len(arrays), OF_A_LAYER)]


def _parameters(model: Qwen3ForCausalLM) -> list[Tensor]:
    """The embedding, then of each layer norm, q, k, v, the norms of their heads, o, norm, gate, up, down."""
    found: list[Tensor] = [model.model.embed_tokens.weight]
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        modules = (
            layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj, attention.q_norm,
            attention.k_norm, attention.o_proj, layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj,
            mlp.down_proj,
        )  # fmt: skip
        found += [module.weight for module in modules]
    return found


class _TokenLogProb(torch.autograd.Function):
    """log softmax(hidden @ weight.T / temperature)[target] and its entropy, of hidden states `places` [targets]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, places: Tensor, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        order = places.numpy().argsort(kind="stable")
        rows, starts = np.unique(places.numpy()[order], return_index=True)
        starts = np.append(starts, len(order))
        aims = targets.numpy()[order]
        probs = np.empty((len(rows), len(weight)), np.float32)
        found = np.empty((2, len(order)), np.float32)
        turned = weight.t().contiguous().numpy()
        states = _array(hidden)
        body_kernels.log_softmax_at(
            sgemm(), states, turned, rows, starts, aims, np.float32(temperature), probs, found[0], found[1]
        )
        ctx.save_for_backward(hidden, weight)
        ctx.order, ctx.rows, ctx.starts, ctx.aims, ctx.probs, ctx.temperature = (
            order, rows, starts, aims, probs, temperature
        )  # fmt: skip
        chosen, entropy = np.empty_like(found)
        chosen[order], entropy[order] = found
        result = torch.from_numpy(chosen), torch.from_numpy(entropy)
        ctx.mark_non_differentiable(result[1])
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden, weight = ctx.saved_tensors
        of_hidden, of_weight = torch.zeros_like(hidden), torch.zeros_like(weight)
        grad = _array(grads[0] / ctx.temperature)[ctx.order]
        body_kernels.log_softmax_at_backward(
            sgemm(), _array(hidden), _array(weight), ctx.rows, ctx.starts, ctx.aims, ctx.probs, grad,
            of_hidden.numpy(), of_weight.numpy(),
        )  # fmt: skip
        return of_hidden, of_weight, None, None, None


def rotary_table(length: int, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding (arXiv 2104.09864), each [length, head_width]."""
    frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies[None, :]
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def hidden_states(model: Qwen3ForCausalLM, input_ids: Tensor) -> Tensor:
    """Normalised final hidden states [batch, time, width] of right-padded `input_ids` [batch, time], causal attention.

    The final norm's weight is not yet applied: it is folded into the unembedding.
    Padding needs no mask: it stands to the right, where causal attention never looks.
    """
    return _states(model, input_ids, None).view(*input_ids.shape, -1)


def _states(model: Qwen3ForCausalLM, input_ids: Tensor, positions: Positions | None) -> Tensor:
    """The same as [tokens, width], of the computed `positions` alone; None for all of them."""
    batch, time = input_ids.shape
    ids = input_ids.flatten() if positions is None else input_ids.flatten()[positions.computed]
    parameters = _parameters(model)
    learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters)
    where = _layout(batch, time, positions), _size(model), angles(model, time), model.config.pad_token_id
    states: Tensor = _Body.apply(_Given(ids.numpy(), *where, learns), *parameters)
    return states


def _size(model: Qwen3ForCausalLM) -> _Size:
    config = model.config
    heads = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    return _Size(config.num_hidden_layers, *heads, np.float32(config.rms_norm_eps))


def angles(model: Qwen3ForCausalLM, time: int) -> tuple[Floats, Floats]:
    """Cosines and sines of the rotary embedding, [time, head_width / 2]: the halves of its table are alike."""
    config = model.config
    cos, sin = rotary_table(time, config.head_dim, config.rope_parameters["rope_theta"])
    half = config.head_dim // 2
    return _array(cos[:, :half]), _array(sin[:, :half])


def folded_weights(model: Qwen3ForCausalLM) -> Folded:
    """A copy of the layers' present weights."""
    _, layers = _by_layer(_parameters(model))
    return _folded(layers, _size(model))


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
    places = marked if positions is None else positions.places[marked]
    hidden = _states(model, input_ids, positions)
    unembedding = model.lm_head.weight * model.model.norm.weight
    wanted = targets[target_mask]
    if worth_chunking(len(wanted), len(unembedding)):
        chosen, entropy = chunked_logprobs(_Rows.apply(hidden, places), unembedding, wanted, temperature=temperature)
        entropy = entropy.detach()
    else:
        chosen, entropy = _TokenLogProb.apply(hidden, unembedding, places, wanted, temperature)
    blank = torch.zeros(targets.shape, dtype=chosen.dtype)
    return TokenLogProbs(blank.masked_scatter(target_mask, chosen), blank.masked_scatter(target_mask, entropy))
