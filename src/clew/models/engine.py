"""The rollout engine: batched decoding of a small Qwen3 with a preallocated KV cache.

A context that several samples share is read once, what they write is computed once for as long as they
draw the same tokens, finished samples leave the batch, and each draws from its own random stream. Rows are
aligned at the right end of their contexts, so that all of them write the same cache column in the same
step. With a prefix cache, what was read or written in earlier calls is not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clew.core.errors import InvalidValue
from clew.core.types import Sampling
from clew.models import kernels
from clew.models.branches import Branches, Keeper
from clew.models.incremental import IncrementalForward, RowCache
from clew.models.prefix_cache import PrefixCache
from clew.models.reading import Context, Reader
from clew.models.side_by_side import on_one_thread, side_by_side
from clew.models.walking import begin
from clew.models.written import Sampled, Written

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


ROWS_WORTH_A_THREAD = 24
"""Fewer rows are not worth a thread of their own."""

Answer = TypeVar("Answer")
Contexts = Sequence[tuple[int, ...]]


class Scored(NamedTuple):
    """Log-probabilities asked for after or within one context, and its reading cost."""

    logprobs: NDArray[np.float32]
    read: int
    cached: int
    reread: int


class RolloutEngine:
    """Samples completions from a copy of `model`'s weights; call `refresh` after the model was trained."""

    def __init__(
        self, model: Qwen3ForCausalLM, *, stop_ids: Sequence[int], max_rows: int = 2048, cache_bytes: int = 0
    ) -> None:
        self.stop_ids = tuple(stop_ids)
        self.max_rows = max_rows
        self.context: int = model.config.max_position_embeddings
        self._forward = IncrementalForward(model)
        self._continues = np.array([token not in self.stop_ids for token in range(model.config.vocab_size)])
        self.remember(cache_bytes)

    @property
    def computed(self) -> int:
        """Tokens that the model computed so far, those of contexts and those of completions."""
        return self._forward.computed

    def refresh(self) -> None:
        """Copy the model's present weights; what the prefix cache holds came from the old ones and is dropped."""
        self._forward.refresh()
        if self.prefixes is not None:
            self.prefixes.forget()

    def remember(self, cache_bytes: int) -> None:
        """Keep what is computed from now on in a new prefix cache of so many bytes; 0 for none."""
        self.prefixes = PrefixCache(cache_bytes, self._forward.shape) if cache_bytes else None
        self._reader = Reader(self._forward, self.prefixes)

    def sample(
        self,
        contexts: Contexts,
        seeds: Sequence[int],
        sampling: Sampling,
        step_ends: NDArray[np.bool_] | None = None,
    ) -> list[Sampled]:
        """Continue each of `contexts` (token ids, not empty) once with its seed; answers in the same order.

        Tokens marked in `step_ends` [vocab] end a completion besides the stop tokens.
        """
        self._check(contexts, sampling.max_tokens)
        continues = self._continues if step_ends is None else self._continues & ~step_ends

        def work(rows: list[int]) -> list[Sampled]:
            return self._sample_batch(
                [contexts[row] for row in rows], [seeds[row] for row in rows], sampling, continues
            )

        return self._divided(contexts, work)

    def next_logprobs(self, contexts: Contexts, tokens: Sequence[int]) -> list[Scored]:
        """Log-probabilities of each of `tokens` as the next one after each of `contexts`, at temperature 1."""
        self._check(contexts, 0)
        wanted = torch.tensor(tokens)

        @torch.inference_mode()
        def measure(some: Contexts) -> tuple[list[NDArray[np.float32]], list[Context]]:
            readings, _, hidden = self._read(some, max(map(len, some)))
            logprobs = (hidden @ self._forward.unembedding).log_softmax(dim=-1)[:, wanted]
            return list(logprobs.numpy()), readings

        return self._scored(contexts, measure)

    def token_logprobs(self, contexts: Contexts) -> list[Scored]:
        """Log-probabilities of all tokens but the first of each of `contexts`, which have at least two."""
        self._check(contexts, 0)

        @torch.inference_mode()
        def measure(some: Contexts) -> tuple[list[NDArray[np.float32]], list[Context]]:
            states: list[Tensor] = []
            readings, _, _ = self._read([context[:-1] for context in some], max(map(len, some)) - 1, states)
            unembedding = self._forward.unembedding
            found = [_logprobs_at(s @ unembedding, c[1:]) for s, c in zip(states, some, strict=True)]
            return found, readings

        return self._scored(contexts, measure)

    def _check(self, contexts: Contexts, max_tokens: int) -> None:
        if not all(contexts):
            raise InvalidValue("a context", (), "at least one token", "begin with a prompt")
        longest = max((len(c) for c in contexts), default=0)
        if longest + max_tokens > self.context:
            raise InvalidValue(
                "prompt and max_tokens together",
                longest + max_tokens,
                f"at most {self.context} tokens, the model's context",
                "lower max_tokens or shorten the prompt",
            )

    def _divided(self, contexts: Contexts, work: Callable[[list[int]], list[Answer]]) -> list[Answer]:
        """`work` of the rows, divided among threads: an answer does not depend on the place of its row."""
        order = list(range(len(contexts)))
        # Rows of one context become neighbours, so that one thread has them all and computes what they share once.
        first: dict[tuple[int, ...], int] = {}
        order.sort(key=lambda row: first.setdefault(contexts[row], row))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), self.max_rows):
            rows = order[start : start + self.max_rows]
            edges = _edges([contexts[row] for row in rows], torch.get_num_threads())
            shards = [rows[a:b] for a, b in pairwise(edges)]
            with nullcontext() if self.prefixes is None else self.prefixes.in_use():
                few = len(rows) < 2 * ROWS_WORTH_A_THREAD
                parts = [on_one_thread(work, rows)] if few else side_by_side(work, shards)
            answers.update(zip(rows, (answer for part in parts for answer in part), strict=True))
        return [answers[row] for row in range(len(contexts))]

    def _scored(
        self, contexts: Contexts, measure: Callable[[Contexts], tuple[list[NDArray[np.float32]], list[Context]]]
    ) -> list[Scored]:
        """What `measure` finds for distinct contexts, for all of them; the first of equal ones pays for the reading."""

        def work(rows: list[int]) -> list[Scored]:
            distinct = list(dict.fromkeys(contexts[row] for row in rows))
            found = dict(zip(distinct, zip(*measure(distinct), strict=True), strict=True))
            unpaid = set(distinct)
            scored = []
            for row in rows:
                logprobs, reading = found[contexts[row]]
                read, reread = (reading.read, reading.reread) if contexts[row] in unpaid else (0, 0)
                unpaid.discard(contexts[row])
                scored.append(Scored(logprobs, read, len(reading.tokens) - read, reread))
            return scored

        scored = self._divided(contexts, work)
        if self.prefixes is not None:
            self.prefixes.count(scored)
        return scored

    def _read(
        self, contexts: Contexts, capacity: int, states: list[Tensor] | None = None
    ) -> tuple[list[Context], RowCache, Tensor]:
        """Distinct `contexts`, aligned at their ends, read into a new cache, and the hidden states after them."""
        readings = [Context(context) for context in contexts]
        lengths = np.array([len(context) for context in contexts])
        cache = self._forward.new_cache(lengths.max() - lengths, capacity)
        return readings, cache, self._reader.read(readings, cache, states)

    @torch.inference_mode()
    def _sample_batch(
        self, contexts: Contexts, seeds: Sequence[int], sampling: Sampling, continues: NDArray[np.bool_]
    ) -> list[Sampled]:
        distinct = {context: index for index, context in enumerate(dict.fromkeys(contexts))}
        owners = np.array([distinct[context] for context in contexts])
        readings = [Context(context) for context in distinct]
        written = Written(seeds, sampling, continues)
        if self.prefixes is None:
            branches, keeper = self._begin(readings, owners, written), None
        else:
            branches, keeper = begin(self._reader, self.prefixes, readings, owners, written)
        computed = self._decode(branches, keeper, written)
        sampled = written.collect([readings[index] for index in owners.tolist()])
        if self.prefixes is not None:
            self.prefixes.count(sampled, decoded=computed - sum(context.awaits for context in readings))
        return sampled

    def _begin(self, contexts: list[Context], owners: NDArray[np.int64], written: Written) -> Branches:
        """Branches of the samples of distinct `contexts`, `owners` [samples], whose first tokens are drawn."""
        lengths = np.array([len(context.tokens) for context in contexts])
        width = int(lengths.max())
        cache = self._forward.new_cache(width - lengths, width + written.sampling.max_tokens, len(owners))
        hidden = self._reader.read(contexts, cache)
        order = owners.argsort(kind="stable")
        branches = Branches(cache, width, order, owners[order], self._forward.shape.vocabulary)
        branches.divide(*written.draw(order, owners[order], hidden @ self._forward.unembedding))
        return branches

    def _decode(self, branches: Branches, keeper: Keeper | None, written: Written) -> int:
        """Let the samples go on to their ends; how many tokens were computed."""
        computed = 0
        memory = self._forward.scratch(max(1, len(branches)))
        while len(branches):
            if len(branches) > len(memory):
                memory = self._forward.scratch(len(branches.samples))
            computed += len(branches)
            scratch = memory.first(len(branches))
            hidden = self._forward.step(branches.tokens, branches.column, branches.cache, scratch)
            if keeper is not None:
                keeper.keep(branches, hidden)
            branches.column += 1
            logits = self._forward.logits(scratch)
            origins = branches.divide(*written.draw(branches.samples, branches.owners, logits))
            if keeper is not None:
                keeper.divide(origins)
        return computed


def _edges(contexts: Contexts, parts: int) -> list[int]:
    """Where to cut the rows into about equal parts without parting neighbours that share a context."""
    edges = [0]
    for part in range(1, parts):
        edge = len(contexts) * part // parts
        while 0 < edge < len(contexts) and contexts[edge] == contexts[edge - 1]:
            edge += 1
        if edge - edges[-1] >= ROWS_WORTH_A_THREAD and len(contexts) - edge >= ROWS_WORTH_A_THREAD:
            edges.append(edge)
    return [*edges, len(contexts)]


def _logprobs_at(logits: Tensor, targets: tuple[int, ...]) -> NDArray[np.float32]:
    """Of `targets` [tokens] under softmax(logits) [tokens, vocab], which is overwritten."""
    logprobs, entropies = np.empty((2, len(targets)), np.float32)
    kernels.log_softmax_at(logits.numpy(), np.array(targets), np.float32(1.0), logprobs, entropies)
    return logprobs
