"""The rollout engine: batched decoding of a small Qwen3 with a preallocated KV cache.

A context that several samples share is read once, finished rows leave the batch, and every sample
draws from its own random stream. Rows are aligned at the right end of their contexts, so that all
of them write the same cache column in the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clew.core.errors import InvalidValue
from clew.core.types import Sampling
from clew.models import kernels
from clew.models.forward import rotary_table, rotary_tables
from clew.models.sampling import draw, uniforms
from clew.models.side_by_side import side_by_side

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


KEEP_FINISHED = 0.85
"""Rows are copied together when fewer than this share of them is still being written: copying has its price too."""


ROWS_WORTH_A_THREAD = 32
"""Fewer rows are not worth a thread of their own."""


class Sampled(NamedTuple):
    """One completion: its tokens, their log-probabilities, whether it ended by a stop token, and its reading cost."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    read: int
    cached: int


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of one block, transposed for `x @ w`, joined where eager mode multiplies apart.

    Norm weights are folded into what follows them: into the projections, and into the rotary tables `cos` and `sin`
    [context, heads + kv_heads, head_width], which also carry the attention's 1 / sqrt(head_width).
    """

    qkv: Tensor
    cos: Tensor
    sin: Tensor
    tables: tuple[NDArray[np.float32], NDArray[np.float32]]
    """`cos` and `sin` once more, for the kernels."""
    output: Tensor
    gate_up: Tensor
    down: Tensor


class _Cache(NamedTuple):
    """Of the rows being written, per layer: keys [rows, kv_heads, head_width, capacity] and values [rows, kv_heads,
    capacity, head_width], so that both attention products read them without a transposition; and `padding` [rows], the
    columns before each row's context.
    """

    keys: list[Tensor]
    values: list[Tensor]
    padding: NDArray[np.int64]


class _Scratch:
    """Memory of one decoding step for `rows` rows: each array as a matrix for torch and, by heads, for the kernels."""

    def __init__(self, memory: Sequence[Tensor], head_width: int) -> None:
        self._memory, self._head_width = memory, head_width
        *self.tensors, self.logits = memory
        self.x, self.z, y, queries, _, self.gate_up, self.product = (tensor.numpy() for tensor in self.tensors)
        self.scale = np.empty(len(self.x), np.float32)
        self.y, self.queries = (flat.reshape(len(flat), -1, head_width) for flat in (y, queries))

    def first(self, rows: int) -> _Scratch:
        """The same memory for fewer rows."""
        return _Scratch([tensor[:rows] for tensor in self._memory], self._head_width)


class RolloutEngine:
    """Samples completions from a copy of `model`'s weights; call `refresh` after the model was trained."""

    def __init__(self, model: Qwen3ForCausalLM, *, stop_ids: Sequence[int], max_rows: int = 2048) -> None:
        config = model.config
        self._model = model
        self.stop_ids = tuple(stop_ids)
        self.max_rows = max_rows
        self.context: int = config.max_position_embeddings
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        self._head_width: int = config.head_dim
        self._eps = np.float32(config.rms_norm_eps)
        self._rotary = rotary_table(self.context, self._head_width, config.rope_parameters["rope_theta"])
        self._continues = np.array([token not in self.stop_ids for token in range(config.vocab_size)])
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the model's present weights."""
        core = self._model.model
        self._embedding = core.embed_tokens.weight.detach().clone()
        self._unembedding = _folded(core.norm.weight, self._model.lm_head.weight)
        self._layers = [_fuse(layer, *self._rotary, self._heads, self._kv_heads) for layer in core.layers]

    def sample(self, contexts: Sequence[tuple[int, ...]], seeds: Sequence[int], sampling: Sampling) -> list[Sampled]:
        """Continue each of `contexts` (token ids, not empty) once with its seed; answers in the same order."""
        if not all(contexts):
            raise InvalidValue("a context", (), "at least one token", "begin with a prompt")
        longest = max((len(c) for c in contexts), default=0)
        if longest + sampling.max_tokens > self.context:
            raise InvalidValue(
                "prompt and max_tokens together",
                longest + sampling.max_tokens,
                f"at most {self.context} tokens, the model's context",
                "lower max_tokens or shorten the prompt",
            )
        results: list[Sampled] = []
        for start in range(0, len(contexts), self.max_rows):
            rows = slice(start, start + self.max_rows)
            results += self._sample_side_by_side(contexts[rows], seeds[rows], sampling)
        return results

    def _sample_side_by_side(
        self, contexts: Sequence[tuple[int, ...]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Sampled]:
        """Divide the rows among threads; a sample does not depend on its place, so neither do the answers."""
        edges = _edges(contexts, torch.get_num_threads())
        shards = [slice(start, stop) for start, stop in pairwise(edges)]
        parts = side_by_side(lambda rows: self._sample_batch(contexts[rows], seeds[rows], sampling), shards)
        return [sample for part in parts for sample in part]

    @torch.inference_mode()
    def _sample_batch(
        self, contexts: Sequence[tuple[int, ...]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Sampled]:
        distinct = {context: index for index, context in enumerate(dict.fromkeys(contexts))}
        owner = torch.tensor([distinct[c] for c in contexts])
        width = max(map(len, distinct))
        cache, hidden = self._read(list(distinct), width, owner, width + sampling.max_tokens)
        noise = np.ascontiguousarray(uniforms(seeds, sampling.max_tokens).T)
        tokens = np.zeros((sampling.max_tokens, len(contexts)), np.int64)
        logprobs = np.zeros((sampling.max_tokens, len(contexts)), np.float32)
        rows = np.arange(len(contexts))
        active = np.ones(len(contexts), np.bool_)
        scratch = self._scratch(len(contexts))
        for step in range(sampling.max_tokens):
            logits = torch.mm(hidden, self._unembedding, out=scratch.logits)
            drawn, chosen = _draw(logits, noise[step, rows], sampling)
            tokens[step, rows], logprobs[step, rows] = drawn, chosen
            active &= self._continues[drawn]
            alive = np.count_nonzero(active)
            if alive == 0 or step + 1 == sampling.max_tokens:
                break
            if alive <= KEEP_FINISHED * len(rows):
                cache = _compact(cache, active, width + step)
                rows, drawn, scratch, active = rows[active], drawn[active], scratch.first(alive), active[active]
            hidden = self._decode(drawn, width + step, cache, scratch)
        return _collect(contexts, tokens.T, logprobs.T, ~self._continues)

    def _read(self, contexts: list[tuple[int, ...]], width: int, owner: Tensor, capacity: int) -> tuple[_Cache, Tensor]:
        """Read each distinct context once, then give every sample the keys and values of its own."""
        lengths = torch.tensor([len(c) for c in contexts])
        padding = width - lengths
        ids = torch.tensor([(0,) * (width - len(c)) + c for c in contexts])
        positions = (torch.arange(width) - padding[:, None]).clamp_min(0)
        mask = None
        if int(padding.max()) > 0:
            column = torch.arange(width)
            visible = (column[None, :] >= padding[:, None])[:, None, :] & (column[:, None] >= column[None, :])
            mask = (visible | torch.eye(width, dtype=torch.bool))[:, None]
        keys, values = [], []
        scratch = self._scratch(ids.numel())
        self._embed(ids.flatten(), scratch)
        for layer in self._layers:
            q, k, v = self._project(layer, scratch, positions)
            mixed = F.scaled_dot_product_attention(
                *(y.transpose(1, 2) for y in (q, k, v)), mask, is_causal=mask is None, scale=1.0, enable_gqa=True
            )
            self._finish(layer, mixed.transpose(1, 2).flatten(2).flatten(0, 1), scratch)
            keys.append(torch.empty(len(owner), self._kv_heads, self._head_width, capacity))
            keys[-1][..., :width] = k.permute(0, 2, 3, 1)[owner]
            values.append(torch.empty(len(owner), self._kv_heads, capacity, self._head_width))
            values[-1][:, :, :width] = v.transpose(1, 2)[owner]
        return _Cache(keys, values, padding[owner].numpy()), self._normed(scratch)[width - 1 :: width][owner]

    def _decode(self, tokens: NDArray[np.int64], column: int, cache: _Cache, scratch: _Scratch) -> Tensor:
        """Write `tokens` [rows] at `column` of the cache and return their normalised final hidden states [rows, width].

        The result lies in `scratch` until the next step.
        """
        _, _, y, queries, mixed, _, _ = scratch.tensors
        self._embed(torch.from_numpy(tokens), scratch)
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            torch.mm(self._normed(scratch), layer.qkv, out=y)
            heads = scratch.y, *layer.tables, keys.numpy(), values.numpy()
            kernels.rotate_into_cache(*heads, cache.padding, column, self._eps, scratch.queries)
            self._attend(queries, keys[..., : column + 1], values[:, :, : column + 1], cache.padding, mixed)
            self._finish(layer, mixed, scratch)
        return self._normed(scratch)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, padding: NDArray[np.int64], out: Tensor) -> None:
        """Values [rows, kv_heads, columns, head_width] mixed by the attention of `queries` [rows, width] to `keys`."""
        shape = len(queries) * self._kv_heads, self._heads // self._kv_heads, self._head_width
        scores = torch.bmm(queries.view(shape), keys.flatten(0, 1))
        kernels.softmax_after(scores.view(len(queries), self._heads, -1).numpy(), padding)
        torch.bmm(scores, values.flatten(0, 1), out=out.view(shape))

    def _scratch(self, rows: int) -> _Scratch:
        layer = self._layers[0]
        width, inner = layer.down.shape[1], layer.down.shape[0]
        heads = self._heads * self._head_width
        widths = width, width, layer.qkv.shape[1], heads, heads, 2 * inner, inner, self._unembedding.shape[1]
        return _Scratch([torch.empty(rows, size) for size in widths], self._head_width)

    def _embed(self, tokens: Tensor, scratch: _Scratch) -> None:
        torch.index_select(self._embedding, 0, tokens, out=scratch.tensors[0])

    def _normed(self, scratch: _Scratch) -> Tensor:
        """The hidden states divided by their root mean square; norm weights are folded elsewhere."""
        kernels.normalise(scratch.x, self._eps, scratch.z, scratch.scale)
        return scratch.tensors[1]

    def _project(self, layer: _Layer, scratch: _Scratch, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalised and rotated to `positions` [contexts, width], and values, [contexts, width,
        heads, head_width].
        """
        y = (self._normed(scratch) @ layer.qkv).view(*positions.shape, -1, self._head_width)
        qk, v = y.split([self._heads + self._kv_heads, self._kv_heads], dim=-2)
        qk = qk.contiguous()
        flat = qk.view(-1, self._head_width).numpy()
        kernels.normalise(flat, self._eps, flat, np.empty(len(flat), np.float32))
        swapped = qk.roll(self._head_width // 2, dims=-1)
        qk = qk.mul_(layer.cos[positions]).addcmul_(swapped, layer.sin[positions])
        q, k = qk.split([self._heads, self._kv_heads], dim=-2)
        return q, k, v

    def _finish(self, layer: _Layer, mixed: Tensor, scratch: _Scratch) -> None:
        """Add output projection and feed-forward layer to the hidden states."""
        x, *_, gate_up, product = scratch.tensors
        x.addmm_(mixed, layer.output)
        torch.mm(self._normed(scratch), layer.gate_up, out=gate_up)
        kernels.swiglu(scratch.gate_up, scratch.product)
        x.addmm_(product, layer.down)


def _compact(cache: _Cache, keep: NDArray[np.bool_], columns: int) -> _Cache:
    """Only the rows to `keep` [rows], with the first `columns` of their caches."""
    rows = torch.from_numpy(keep.nonzero()[0])
    keys, values = [], []
    for old_keys, old_values in zip(cache.keys, cache.values, strict=True):
        keys.append(torch.empty(len(rows), *old_keys.shape[1:]))
        keys[-1][..., :columns] = old_keys[rows, :, :, :columns]
        values.append(torch.empty(len(rows), *old_values.shape[1:]))
        values[-1][:, :, :columns] = old_values[rows, :, :columns]
    return _Cache(keys, values, cache.padding[keep])


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
        cos=tables[0],
        sin=tables[1],
        tables=(tables[0].numpy(), tables[1].numpy()),
        output=attention.o_proj.weight.detach().t().contiguous(),
        gate_up=_folded(layer.post_attention_layernorm.weight, mlp.gate_proj.weight, mlp.up_proj.weight),
        down=mlp.down_proj.weight.detach().t().contiguous(),
    )


def _edges(contexts: Sequence[tuple[int, ...]], parts: int) -> list[int]:
    """Where to cut the rows into about equal parts without parting neighbours that share a context."""
    edges = [0]
    for part in range(1, parts):
        edge = len(contexts) * part // parts
        while 0 < edge < len(contexts) and contexts[edge] == contexts[edge - 1]:
            edge += 1
        if edge - edges[-1] >= ROWS_WORTH_A_THREAD and len(contexts) - edge >= ROWS_WORTH_A_THREAD:
            edges.append(edge)
    return [*edges, len(contexts)]


def _draw(
    logits: Tensor, uniform: NDArray[np.float32], sampling: Sampling
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What `sampling.draw` draws; in one pass, which overwrites `logits`, where nothing shapes the distribution."""
    if sampling.temperature != 1.0 or sampling.top_k > 0 or sampling.top_p < 1.0:
        drawn = draw(logits, torch.from_numpy(uniform), sampling)
        return drawn.tokens.numpy(), drawn.logprobs.numpy()
    tokens, logprobs = np.empty(len(uniform), np.int64), np.empty(len(uniform), np.float32)
    kernels.draw_plainly(logits.numpy(), uniform, tokens, logprobs)
    return tokens, logprobs


def _collect(
    contexts: Sequence[tuple[int, ...]],
    tokens: NDArray[np.int64],
    logprobs: NDArray[np.float32],
    is_stop: NDArray[np.bool_],
) -> list[Sampled]:
    """Rows of `tokens` and `logprobs` [rows, max_tokens] up to their first stop token."""
    stops = is_stop[tokens]
    stopped = stops.any(axis=1)
    lengths = np.where(stopped, stops.argmax(axis=1) + 1, tokens.shape[1])
    seen: set[tuple[int, ...]] = set()
    results = []
    rows = zip(contexts, tokens.tolist(), logprobs.tolist(), lengths.tolist(), stopped.tolist(), strict=True)
    for context, row, logprob, length, stop in rows:
        first = context not in seen
        seen.add(context)
        read, cached = (len(context), 0) if first else (0, len(context))
        results.append(Sampled(tuple(row[:length]), tuple(logprob[:length]), stop, read, cached))
    return results
