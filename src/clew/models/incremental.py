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
from clew.models.forward import angles, folded_weights
from clew.models.prefix_cache import PrefixCache, Slots
from clew.models.prefix_counts import Shape
from clew.models.side_by_side import on_one_thread

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


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
        self._eps = np.float32(config.rms_norm_eps)
        self._angles = angles(model, config.max_position_embeddings)
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

    def refresh(self) -> None:
        """Copy the model's present weights."""
        on_one_thread(self._copy, self._model)

    @torch.no_grad()
    def _copy(self, model: Qwen3ForCausalLM) -> None:
        core = model.model
        self._embedding = core.embed_tokens.weight.detach().numpy().copy()
        self.unembedding = (model.lm_head.weight * core.norm.weight).t().contiguous()
        """[width, vocabulary], with the final norm's weight folded in."""
        folded = folded_weights(model)
        self._weights = folded.turned
        self._norms = folded.norms

    def new_cache(self, padding: NDArray[np.int64], capacity: int, rows: int = 0) -> RowCache:
        """Room for `capacity` columns of as many rows as `padding` [first rows] has, or `rows` if that is more."""
        layers, kv_heads, width, _, _ = self.shape
        padding = np.concatenate([padding, np.zeros(max(0, rows - len(padding)), np.int64)])
        keys = np.empty((layers, len(padding), kv_heads, width, capacity), np.float32)
        values = np.empty((layers, len(padding), kv_heads, capacity, width), np.float32)
        return RowCache(keys, values, padding)

    def scratch(self, tokens: int) -> Scratch:
        """Memory of a pass over up to `tokens` tokens."""
        qkv, output, _, down = self._weights
        (inner, width), heads = down.shape[1:], output.shape[1]
        widths = width, width, qkv.shape[2], heads, heads, 2 * inner, inner, self.unembedding.shape[1]
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
            *(*self._weights, self._norms, *self._angles),
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
