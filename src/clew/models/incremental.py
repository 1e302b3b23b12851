"""The forward pass of a small Qwen3 over new tokens alone: what came before them is in a cache of keys and values.

Weights are copied and laid out for it; what stands between the matrix products are compiled loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clew.models import column_kernels, kernels
from clew.models.forward import rotary_table, rotary_tables
from clew.models.prefix_cache import PrefixCache, Slots
from clew.models.prefix_counts import Shape

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

ROWS_WORTH_A_PRODUCT = 8
"""Fewer rows attend in one compiled loop, more in two batched matrix products."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of one block, transposed for `x @ w`, joined where eager mode multiplies apart.

    Norm weights are folded into what follows them: into the projections, and into the rotary tables `cos` and `sin`
    [context, heads + kv_heads, head_width], which also carry the attention's 1 / sqrt(head_width).
    """

    qkv: Tensor
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]
    output: Tensor
    gate_up: Tensor
    down: Tensor


class RowCache(NamedTuple):
    """Of the rows being written, per layer: keys [rows, kv_heads, head_width, capacity] and values [rows, kv_heads,
    capacity, head_width], so that both attention products read them without a transposition; and `padding` [rows], the
    columns before each row's context. The last rows may wait for their first use.
    """

    keys: list[Tensor]
    values: list[Tensor]
    padding: NDArray[np.int64]

    def load(self, prefixes: PrefixCache, slots: Slots, rows: Slots, columns: Slots) -> None:
        """Fetch `slots` [tokens] to `rows` and `columns` [tokens]."""
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            column_kernels.load_columns(prefixes.keys_values, slots, layer, keys.numpy(), values.numpy(), rows, columns)

    def keep(self, prefixes: PrefixCache, slots: Slots, rows: Slots, columns: Slots) -> None:
        """Put what is at `rows` and `columns` [tokens] into `slots` [tokens]."""
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            column_kernels.keep_columns(keys.numpy(), values.numpy(), rows, columns, layer, prefixes.keys_values, slots)

    def copy(self, rows: Slots, stop: int, into: RowCache, new_rows: Slots, new_stop: int) -> None:
        """Copy `rows` [n] up to column `stop` to `new_rows` [n] of `into`, so that they end at column `new_stop`.

        It may be the same cache if no row is both copied and overwritten.
        """
        first = self.padding[rows]
        counts = stop - first
        columns = new_stop - counts
        for keys, values, new_keys, new_values in zip(self.keys, self.values, into.keys, into.values, strict=True):
            old, new = (keys.numpy(), values.numpy(), rows, first), (new_keys.numpy(), new_values.numpy())
            column_kernels.copy_columns(*old, *new, new_rows, columns, counts)
        into.padding[new_rows] = columns


class Scratch:
    """Memory of one pass over `rows` tokens: each array as a matrix for torch and, by heads, for the kernels."""

    def __init__(self, memory: Sequence[Tensor], head_width: int) -> None:
        self._memory, self._head_width = memory, head_width
        *self.tensors, self.logits = memory
        self.x, self.z, y, queries, mixed, self.gate_up, self.product = (tensor.numpy() for tensor in self.tensors)
        self.scale = np.empty(len(self.x), np.float32)
        self._smaller: dict[int, Scratch] = {}
        self.y, self.queries, self.mixed = (flat.reshape(len(flat), -1, head_width) for flat in (y, queries, mixed))

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
        self._embedding = core.embed_tokens.weight.detach().clone()
        self.unembedding = _folded(core.norm.weight, self._model.lm_head.weight)
        self._layers = [_fuse(layer, *self._rotary, self._heads, self.shape.kv_heads) for layer in core.layers]

    def new_cache(self, padding: NDArray[np.int64], capacity: int, rows: int = 0) -> RowCache:
        """Room for `capacity` columns of as many rows as `padding` [first rows] has, or `rows` if that is more."""
        _, kv_heads, width, _, _ = self.shape
        padding = np.concatenate([padding, np.zeros(max(0, rows - len(padding)), np.int64)])
        keys = [torch.empty(len(padding), kv_heads, width, capacity) for _ in self._layers]
        values = [torch.empty(len(padding), kv_heads, capacity, width) for _ in self._layers]
        for layer in values:
            # Padding has weight 0 where rows attend in one product, but 0 times what memory happens to hold may be NaN.
            layer[:, :, : padding.max(initial=0)] = 0.0
        return RowCache(keys, values, padding)

    def scratch(self, tokens: int) -> Scratch:
        """Memory of a pass over up to `tokens` tokens."""
        layer = self._layers[0]
        inner, width = layer.down.shape
        heads = layer.output.shape[0]
        widths = width, width, layer.qkv.shape[1], heads, heads, 2 * inner, inner, self.unembedding.shape[1]
        return Scratch([torch.empty(tokens, size) for size in widths], self.shape.head_width)

    def run(self, tokens: NDArray[np.int64], rows: Slots, columns: Slots, cache: RowCache, scratch: Scratch) -> Tensor:
        """Write `tokens` at `rows` and `columns` of the cache, all [tokens]: their final hidden states [tokens, width].

        They are normalised and lie in `scratch` until its next use. A token sees those of its row in earlier columns.
        """
        places = rows, columns, cache.padding

        def attend(keys: Tensor, values: Tensor) -> None:
            kernels.attend(scratch.queries, keys.numpy(), values.numpy(), *places, scratch.mixed)

        return self._through_layers(tokens, places, cache, scratch, attend)

    def step(self, tokens: NDArray[np.int64], column: int, cache: RowCache, scratch: Scratch) -> Tensor:
        """`run` for one token in each of the first rows, all of them in the same `column`."""
        rows, columns = np.arange(len(tokens)), np.full(len(tokens), column)
        if len(tokens) < ROWS_WORTH_A_PRODUCT:
            return self.run(tokens, rows, columns, cache, scratch)

        def attend(keys: Tensor, values: Tensor) -> None:
            seen = keys[: len(tokens), ..., : column + 1], values[: len(tokens), :, : column + 1]
            self._attend(*seen, cache.padding, scratch)

        return self._through_layers(tokens, (rows, columns, cache.padding), cache, scratch, attend)

    def _through_layers(
        self,
        tokens: NDArray[np.int64],
        places: tuple[Slots, Slots, NDArray[np.int64]],
        cache: RowCache,
        scratch: Scratch,
        attend: Callable[[Tensor, Tensor], None],
    ) -> Tensor:
        with self._counting:
            self.computed += len(tokens)
        torch.index_select(self._embedding, 0, torch.from_numpy(tokens), out=scratch.tensors[0])
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            torch.mm(self._normed(scratch), layer.qkv, out=scratch.tensors[2])
            into = keys.numpy(), values.numpy(), *places, self._eps, scratch.queries
            column_kernels.rotate_into_cache(scratch.y, layer.cos, layer.sin, *into)
            attend(keys, values)
            self._finish(layer, scratch)
        return self._normed(scratch)

    def _attend(self, keys: Tensor, values: Tensor, padding: NDArray[np.int64], scratch: Scratch) -> None:
        """What `kernels.attend` does, where all rows see the same columns."""
        _, _, _, queries, mixed, _, _ = scratch.tensors
        shape = len(queries) * keys.shape[1], self._heads // keys.shape[1], keys.shape[2]
        scores = torch.bmm(queries.view(shape), keys.flatten(0, 1))
        kernels.softmax_after(scores.view(len(queries), self._heads, -1).numpy(), padding)
        torch.bmm(scores, values.flatten(0, 1), out=mixed.view(shape))

    def _normed(self, scratch: Scratch) -> Tensor:
        """The hidden states divided by their root mean square; norm weights are folded elsewhere."""
        kernels.normalise(scratch.x, self._eps, scratch.z, scratch.scale)
        return scratch.tensors[1]

    def _finish(self, layer: _Layer, scratch: Scratch) -> None:
        """Add output projection and feed-forward layer to the hidden states."""
        x, _, _, _, mixed, gate_up, product = scratch.tensors
        x.addmm_(mixed, layer.output)
        torch.mm(self._normed(scratch), layer.gate_up, out=gate_up)
        kernels.swiglu(scratch.gate_up, scratch.product)
        x.addmm_(product, layer.down)


def _folded(norm: Tensor, *projections: Tensor) -> Tensor:
    """Projections [out, in] joined, with the norm weight [in] in front of them folded in, as [in, out]."""
    return (torch.cat(projections) * norm).detach().t().contiguous()


def _fuse(layer: torch.nn.Module, cos: Tensor, sin: Tensor, heads: int, kv_heads: int) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    tables = rotary_tables(attention.q_norm.weight, attention.k_norm.weight, cos, sin, heads=heads, kv_heads=kv_heads)
    return _Layer(
        qkv=_folded(
            layer.input_layernorm.weight, attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight
        ),
        cos=tables[0].numpy(),
        sin=tables[1].numpy(),
        output=attention.o_proj.weight.detach().t().contiguous(),
        gate_up=_folded(layer.post_attention_layernorm.weight, mlp.gate_proj.weight, mlp.up_proj.weight),
        down=mlp.down_proj.weight.detach().t().contiguous(),
    )
