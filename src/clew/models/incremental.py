"""The forward pass of a small Qwen3 over new tokens alone: what came before them is in a cache of keys and values.

Weights are copied and laid out for it; what stands between the matrix products are compiled loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clew.models import blas, column_kernels, decoder_kernels
from clew.models.forward import rotary_table, rotary_tables
from clew.models.prefix_cache import PrefixCache, Slots
from clew.models.prefix_counts import Shape

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


class _Weights(NamedTuple):
    """Weights of the layers, transposed for `x @ w` [layers, in, out], joined where eager mode multiplies apart.

    Norm weights are folded into what follows them: into the projections, and into the rotary tables `cos` and `sin`
    [layers, context, heads + kv_heads, head_width], which also carry the attention's 1 / sqrt(head_width).
    """

    qkv: NDArray[np.float32]
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]
    output: NDArray[np.float32]
    gate_up: NDArray[np.float32]
    down: NDArray[np.float32]


class RowCache(NamedTuple):
    """Of the rows being written: keys [layers, rows, kv_heads, head_width, capacity] and values [layers, rows,
    kv_heads, capacity, head_width], so that both attention products read them without a transposition; and `padding`
    [rows], the columns before each row's context. The last rows may wait for their first use.
    """

    keys: NDArray[np.float32]
    values: NDArray[np.float32]
    padding: NDArray[np.int64]

    def load(self, prefixes: PrefixCache, slots: Slots, rows: Slots, columns: Slots) -> None:
        """Fetch `slots` [tokens] to `rows` and `columns` [tokens]."""
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            column_kernels.load_columns(prefixes.keys_values, slots, layer, keys, values, rows, columns)

    def keep(self, prefixes: PrefixCache, slots: Slots, rows: Slots, columns: Slots) -> None:
        """Put what is at `rows` and `columns` [tokens] into `slots` [tokens]."""
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            column_kernels.keep_columns(keys, values, rows, columns, layer, prefixes.keys_values, slots)

    def copy(self, rows: Slots, stop: int, into: RowCache, new_rows: Slots, new_stop: int) -> None:
        """Copy `rows` [n] up to column `stop` to `new_rows` [n] of `into`, so that they end at column `new_stop`.

        It may be the same cache if no row is both copied and overwritten.
        """
        first = self.padding[rows]
        counts = stop - first
        columns = new_stop - counts
        for keys, values, new_keys, new_values in zip(self.keys, self.values, into.keys, into.values, strict=True):
            old, new = (keys, values, rows, first), (new_keys, new_values)
            column_kernels.copy_columns(*old, *new, new_rows, columns, counts)
        into.padding[new_rows] = columns


class Scratch:
    """Memory of one pass over `rows` tokens: hidden states and logits as tensors too, heads apart."""

    def __init__(self, memory: Sequence[Tensor], head_width: int) -> None:
        self._memory, self._head_width = memory, head_width
        self.x, self.z, self.y, queries, mixed, self.gate_up, self.product, _ = (tensor.numpy() for tensor in memory)
        self.scale = np.empty(len(self.x), np.float32)
        self._smaller: dict[int, Scratch] = {}
        self.queries, self.mixed = (flat.reshape(len(flat), -1, head_width) for flat in (queries, mixed))

    @property
    def states(self) -> Tensor:
        """Normalised final hidden states [rows, width]."""
        return self._memory[1]

    @property
    def logits(self) -> Tensor:
        """[rows, vocabulary]."""
        return self._memory[-1]

    def __len__(self) -> int:
        return len(self.x)

    def first(self, rows: int) -> Scratch:
        """The same memory for fewer tokens."""
        if rows == len(self):
            return self
        if rows not in self._smaller:
            self._smaller[rows] = Scratch([tensor[:rows] for tensor in self._memory], self._head_width)
        return self._smaller[rows]


class IncrementalForward:
    """Computes with a copy of `model`'s weights; call `refresh` after the model was trained."""

    def __init__(self, model: Qwen3ForCausalLM) -> None:
        config = model.config
        self._model = model
        self._heads: int = config.num_attention_heads
        self._eps = np.float32(config.rms_norm_eps)
        base = config.rope_parameters["rope_theta"]
        self._rotary = rotary_table(config.max_position_embeddings, config.head_dim, base)
        self.shape = Shape(
            config.num_hidden_layers,
            config.num_key_value_heads,
            config.head_dim,
            config.hidden_size,
            config.vocab_size,
        )
        self.computed = 0
        """Tokens that went through the layers so far."""
        self._counting = Lock()
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the model's present weights."""
        core = self._model.model
        self._embedding = core.embed_tokens.weight.detach().numpy().copy()
        self.unembedding = _folded(core.norm.weight, self._model.lm_head.weight)
        fused = [_fuse(layer, *self._rotary, self._heads, self.shape.kv_heads) for layer in core.layers]
        self._weights = _Weights(*(torch.stack(parts).numpy() for parts in zip(*fused, strict=True)))

    def new_cache(self, padding: NDArray[np.int64], capacity: int, rows: int = 0) -> RowCache:
        """Room for `capacity` columns of as many rows as `padding` [first rows] has, or `rows` if that is more."""
        layers, kv_heads, width, _, _ = self.shape
        padding = np.concatenate([padding, np.zeros(max(0, rows - len(padding)), np.int64)])
        keys = np.empty((layers, len(padding), kv_heads, width, capacity), np.float32)
        values = np.empty((layers, len(padding), kv_heads, capacity, width), np.float32)
        return RowCache(keys, values, padding)

    def scratch(self, tokens: int) -> Scratch:
        """Memory of a pass over up to `tokens` tokens."""
        weights = self._weights
        _, inner, width = weights.down.shape
        heads = weights.output.shape[1]
        widths = width, width, weights.qkv.shape[2], heads, heads, 2 * inner, inner, self.unembedding.shape[1]
        return Scratch([torch.empty(tokens, size) for size in widths], self.shape.head_width)

    def run(self, tokens: NDArray[np.int64], rows: Slots, columns: Slots, cache: RowCache, scratch: Scratch) -> Tensor:
        """Write `tokens` at `rows` and `columns` of the cache, all [tokens]: their final hidden states [tokens, width].

        They are normalised and lie in `scratch` until its next use. A token sees those of its row in earlier columns.
        """
        with self._counting:
            self.computed += len(tokens)
        np.take(self._embedding, tokens, axis=0, out=scratch.x)
        decoder_kernels.through_layers(
            blas.sgemm(),
            *self._weights,
            *(cache.keys, cache.values, rows, columns, cache.padding, self._eps),
            *(scratch.x, scratch.z, scratch.y, scratch.queries, scratch.mixed),
            *(scratch.gate_up, scratch.product, scratch.scale),
        )
        return scratch.states

    def logits(self, scratch: Scratch) -> Tensor:
        """Logits [tokens, vocabulary] of what was run with `scratch`, where they lie until its next use."""
        hidden, logits = scratch.z, scratch.logits
        blas.multiply(blas.sgemm(), hidden, self.unembedding.numpy(), logits.numpy(), np.float32(0.0))
        return logits

    def step(self, tokens: NDArray[np.int64], column: int, cache: RowCache, scratch: Scratch) -> Tensor:
        """`run` for one token in each of the first rows, all of them in the same `column`."""
        return self.run(tokens, np.arange(len(tokens)), np.full(len(tokens), column), cache, scratch)


def _folded(norm: Tensor, *projections: Tensor) -> Tensor:
    """Projections [out, in] joined, with the norm weight [in] in front of them folded in, as [in, out]."""
    return (torch.cat(projections) * norm).detach().t().contiguous()


def _fuse(layer: torch.nn.Module, cos: Tensor, sin: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, ...]:
    """Of one layer, in the order of `_Weights`."""
    attention, mlp = layer.self_attn, layer.mlp
    projections = attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight
    return (
        _folded(layer.input_layernorm.weight, *projections),
        *rotary_tables(attention.q_norm.weight, attention.k_norm.weight, cos, sin, heads=heads, kv_heads=kv_heads),
        attention.o_proj.weight.detach().t(),
        _folded(layer.post_attention_layernorm.weight, mlp.gate_proj.weight, mlp.up_proj.weight),
        mlp.down_proj.weight.detach().t(),
    )
