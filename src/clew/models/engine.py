"""The rollout engine: batched decoding of a small Qwen3 with a preallocated KV cache.

A context that several samples share is read once, finished rows leave the batch, and every sample
draws from its own random stream. Rows are aligned at the right end of their contexts, so that all
of them write the same cache column in the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from clew.core.errors import InvalidValue
from clew.core.types import Sampling
from clew.models.forward import rotary_table, rotary_tables
from clew.models.sampling import draw, uniforms

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

    Norm weights are folded into what follows them: into the projections, and into the rotary tables
    [context, heads + kv_heads, head_width], which also carry the attention's 1 / sqrt(head_width).
    """

    qkv: Tensor
    cos: Tensor
    sin: Tensor
    output: Tensor
    gate_up: Tensor
    down: Tensor


class _Batch(NamedTuple):
    """Rows being decoded: per layer keys [rows, kv_heads, head_width, capacity] and values [rows, kv_heads,
    capacity, head_width], so that both attention products read them without a transposition. `padding` is
    [rows], or None when no context is shorter than the longest.
    """

    keys: list[Tensor]
    values: list[Tensor]
    padding: Tensor | None


class RolloutEngine:
    """Samples completions from a copy of `model`'s weights; call `refresh` after the model was trained."""

    def __init__(self, model: Qwen3ForCausalLM, *, stop_ids: Sequence[int], max_rows: int = 512) -> None:
        config = model.config
        self._model = model
        self.stop_ids = tuple(stop_ids)
        self.max_rows = max_rows
        self.context: int = config.max_position_embeddings
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        self._head_width: int = config.head_dim
        self._eps: float = config.rms_norm_eps
        self._rotary = rotary_table(self.context, self._head_width, config.rope_parameters["rope_theta"])
        self._continues = torch.tensor([token not in self.stop_ids for token in range(config.vocab_size)])
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
        """Divide the rows among as many threads as torch may use, each of which computes alone.

        The operations of a decoding step are too small to be worth dividing one by one. A sample does not depend on
        its place, so neither do the answers.
        """
        threads = torch.get_num_threads()
        edges = _edges(contexts, threads)
        if len(edges) == 2:
            return self._sample_batch(contexts, seeds, sampling)
        shards = [slice(start, stop) for start, stop in pairwise(edges)]
        try:
            with ThreadPoolExecutor(len(shards), initializer=torch.set_num_threads, initargs=(1,)) as pool:
                parts = pool.map(lambda rows: self._sample_batch(contexts[rows], seeds[rows], sampling), shards)
                return [sample for part in parts for sample in part]
        finally:
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def _sample_batch(
        self, contexts: Sequence[tuple[int, ...]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Sampled]:
        distinct = {context: index for index, context in enumerate(dict.fromkeys(contexts))}
        owner = torch.tensor([distinct[c] for c in contexts])
        width = max(map(len, distinct))
        batch, hidden = self._read(list(distinct), width, owner, width + sampling.max_tokens)
        noise = torch.from_numpy(uniforms(seeds, sampling.max_tokens).T.copy())
        rows = torch.arange(len(contexts))
        tokens = torch.zeros(sampling.max_tokens, len(contexts), dtype=torch.long)
        logprobs = torch.zeros(sampling.max_tokens, len(contexts))
        active = torch.ones(len(contexts), dtype=torch.bool)
        for step in range(sampling.max_tokens):
            drawn = draw(hidden @ self._unembedding, noise[step], sampling)
            tokens[step, rows], logprobs[step, rows] = drawn
            next_tokens = drawn.tokens
            active &= self._continues[next_tokens]
            alive = int(active.count_nonzero())
            if alive == 0 or step + 1 == sampling.max_tokens:
                break
            if alive <= KEEP_FINISHED * len(rows):
                keep = active.nonzero().squeeze(1)
                batch = self._compact(batch, keep, width + step)
                rows, active, noise, next_tokens = rows[keep], active[keep], noise[:, keep], next_tokens[keep]
            hidden = self._decode(next_tokens, width + step, batch)
        return _collect(contexts, tokens.t(), logprobs.t(), ~self._continues)

    def _read(self, contexts: list[tuple[int, ...]], width: int, owner: Tensor, capacity: int) -> tuple[_Batch, Tensor]:
        """Read each distinct context once, then give every row the keys and values of its own."""
        lengths = torch.tensor([len(c) for c in contexts])
        padding = width - lengths if int(lengths.min()) < width else None
        ids = torch.tensor([(0,) * (width - len(c)) + c for c in contexts])
        positions = torch.arange(width) - (width - lengths)[:, None]
        positions = positions.clamp_min(0)
        mask = None
        if padding is not None:
            column = torch.arange(width)
            visible = (column[None, :] >= padding[:, None])[:, None, :] & (column[:, None] >= column[None, :])
            mask = (visible | torch.eye(width, dtype=torch.bool))[:, None]
        keys, values = [], []
        x = self._embedding[ids]
        for layer in self._layers:
            q, k, v = self._project(layer, x, positions)
            mixed = F.scaled_dot_product_attention(
                *(y.transpose(1, 2) for y in (q, k, v)), mask, is_causal=mask is None, scale=1.0, enable_gqa=True
            )
            self._finish(layer, x.flatten(0, 1), mixed.transpose(1, 2).flatten(2).flatten(0, 1))
            keys.append(torch.empty(len(owner), self._kv_heads, self._head_width, capacity))
            keys[-1][..., :width] = k.permute(0, 2, 3, 1)[owner]
            values.append(torch.empty(len(owner), self._kv_heads, capacity, self._head_width))
            values[-1][:, :, :width] = v.transpose(1, 2)[owner]
        return _Batch(keys, values, None if padding is None else padding[owner]), self._normed(x[:, -1])[owner]

    def _decode(self, tokens: Tensor, column: int, batch: _Batch) -> Tensor:
        """Write `tokens` [rows] at cache `column` and return their normalised final hidden states [rows, width]."""
        rows, groups, head_width = len(tokens), self._heads // self._kv_heads, self._head_width
        positions: int | Tensor = column
        mask = None
        if batch.padding is not None:
            positions = column - batch.padding
            hidden = torch.arange(column + 1)[None, :] < batch.padding[:, None]
            mask = hidden.repeat_interleave(self._kv_heads, dim=0)[:, None, :]
        x = self._embedding[tokens]
        for layer, keys, values in zip(self._layers, batch.keys, batch.values, strict=True):
            q, k, v = self._project(layer, x, positions)
            keys[:, :, :, column] = k
            values[:, :, column] = v
            past_keys = keys[..., : column + 1].view(rows * self._kv_heads, head_width, column + 1)
            past_values = values[:, :, : column + 1].view(rows * self._kv_heads, column + 1, head_width)
            scores = torch.bmm(q.reshape(rows * self._kv_heads, groups, head_width), past_keys)
            if mask is not None:
                scores.masked_fill_(mask, -torch.inf)
            mixed = torch.bmm(scores.softmax(dim=-1), past_values)
            self._finish(layer, x, mixed.view(rows, -1))
        return self._normed(x)

    def _normed(self, x: Tensor) -> Tensor:
        """`x` divided by its root mean square over the last dimension; norm weights are folded elsewhere."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * norm.square_().mul_(1 / x.shape[-1]).add_(self._eps).rsqrt_()

    def _project(self, layer: _Layer, x: Tensor, positions: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalised and rotated to `positions`, and values, [..., heads, head_width]."""
        y = self._normed(x) @ layer.qkv
        y = y.view(*x.shape[:-1], self._heads + 2 * self._kv_heads, self._head_width)
        qk, v = y.split([self._heads + self._kv_heads, self._kv_heads], dim=-2)
        qk = self._normed(qk)
        swapped = qk.roll(self._head_width // 2, dims=-1)
        qk = qk.mul_(layer.cos[positions]).addcmul_(swapped, layer.sin[positions])
        q, k = qk.split([self._heads, self._kv_heads], dim=-2)
        return q, k, v

    def _finish(self, layer: _Layer, x: Tensor, mixed: Tensor) -> None:
        """Add output projection and feed-forward layer to `x` [tokens, width], in place."""
        x.addmm_(mixed, layer.output)
        gate, up = (self._normed(x) @ layer.gate_up).chunk(2, dim=-1)
        x.addmm_(F.silu(gate).mul_(up), layer.down)

    def _compact(self, batch: _Batch, keep: Tensor, columns: int) -> _Batch:
        """Only the rows `keep`, with the first `columns` of their caches."""
        keys, values = [], []
        for old_keys, old_values in zip(batch.keys, batch.values, strict=True):
            keys.append(torch.empty(len(keep), *old_keys.shape[1:]))
            keys[-1][..., :columns] = old_keys[keep, :, :, :columns]
            values.append(torch.empty(len(keep), *old_values.shape[1:]))
            values[-1][:, :, :columns] = old_values[keep, :, :columns]
        return _Batch(keys, values, None if batch.padding is None else batch.padding[keep])


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


def _collect(contexts: Sequence[tuple[int, ...]], tokens: Tensor, logprobs: Tensor, is_stop: Tensor) -> list[Sampled]:
    """Rows of `tokens` and `logprobs` [rows, max_tokens] up to their first stop token."""
    stops = is_stop[tokens]
    stopped = stops.any(dim=1)
    lengths = torch.where(stopped, stops.int().argmax(dim=1) + 1, tokens.shape[1])
    seen: set[tuple[int, ...]] = set()
    results = []
    rows = zip(contexts, tokens.tolist(), logprobs.tolist(), lengths.tolist(), stopped.tolist(), strict=True)
    for context, row, logprob, length, stop in rows:
        first = context not in seen
        seen.add(context)
        read, cached = (len(context), 0) if first else (0, len(context))
        results.append(Sampled(tuple(row[:length]), tuple(logprob[:length]), stop, read, cached))
    return results
