"""What the rows of a batch have written so far: tokens, log-probabilities and, where asked for, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clew.core.types import Sampling
from clew.models import kernels
from clew.models.incremental import RowCache
from clew.models.prefix_cache import PrefixCache
from clew.models.reading import Context, Source, keep
from clew.models.sampling import draw, uniforms

Floats = NDArray[np.float32]


class Sampled(NamedTuple):
    """One completion: its tokens, their log-probabilities, whether one of the ends ended it, and its reading cost."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    read: int
    cached: int
    reread: int = 0
    entropies: tuple[float, ...] | None = None
    certainties: tuple[float, ...] | None = None


class Written:
    """Rows are counted from the first of the batch, whether they are still being written or not."""

    def __init__(self, seeds: Sequence[int], sampling: Sampling, continues: NDArray[np.bool_]) -> None:
        self.sampling, self.continues = sampling, continues
        shape = sampling.max_tokens, len(seeds)
        self._noise = np.ascontiguousarray(uniforms(seeds, sampling.max_tokens).T)
        self.tokens = np.zeros(shape, np.int64)
        """[max_tokens, rows]"""
        self._logprobs = np.zeros(shape, np.float32)
        self._statistics = np.zeros((2, *shape), np.float32) if sampling.statistics else None

    def draw(self, step: int, rows: NDArray[np.int64], logits: Tensor) -> NDArray[np.int64]:
        """Write and return token `step` of `rows`, given their `logits` [rows, vocab], which may be overwritten."""
        if self._statistics is not None:
            # Of the model's own distribution, whatever shapes the one that is drawn from.
            entropies, certainties = np.empty((2, len(rows)), np.float32)
            kernels.describe(logits.numpy(), entropies, certainties)
            self._statistics[:, step, rows] = entropies, certainties
        drawn, chosen = _draw(logits, self._noise[step, rows], self.sampling)
        self.tokens[step, rows], self._logprobs[step, rows] = drawn, chosen
        return drawn

    def lengths(self, rows: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
        """How many of the first `steps` tokens belong to each of `rows`."""
        ends = ~self.continues[self.tokens[:steps, rows]]
        return np.where(ends.any(axis=0), ends.argmax(axis=0) + 1, steps)

    def collect(self, steps: int, contexts: Sequence[Context]) -> list[Sampled]:
        """A completion a row; the first of those that continue the same of `contexts` [rows] pays for its reading."""
        lengths = self.lengths(np.arange(len(contexts)), steps)
        stopped = (~self.continues[self.tokens[lengths - 1, np.arange(len(contexts))]]).tolist()
        statistics = None if self._statistics is None else self._statistics.swapaxes(1, 2).tolist()
        paid: set[int] = set()
        results = []
        rows = zip(contexts, self.tokens.T.tolist(), self._logprobs.T.tolist(), lengths.tolist(), strict=True)
        for row, (context, tokens, logprobs, length) in enumerate(rows):
            read, reread = (0, 0) if id(context) in paid else (context.read, context.reread)
            paid.add(id(context))
            cost = read, len(context.tokens) - read, reread
            measured = () if statistics is None else [tuple(values[row][:length]) for values in statistics]
            results.append(Sampled(tuple(tokens[:length]), tuple(logprobs[:length]), stopped[row], *cost, *measured))
        return results


class Keeper:
    """Puts what the rows of a batch have written into the prefix cache, each when it leaves the batch."""

    def __init__(self, prefixes: PrefixCache, contexts: Sequence[Context], width: int, written: Written) -> None:
        self.prefixes, self.contexts, self.width, self.written = prefixes, contexts, width, written
        self.states = np.empty((len(contexts), written.sampling.max_tokens, prefixes.shape.width), np.float32)
        """[rows, max_tokens, width]: final hidden states of the tokens written; the last of a row is not computed."""

    def keep(self, rows: NDArray[np.int64], places: NDArray[np.int64], steps: int, cache: RowCache) -> None:
        """Keep what `rows`, which stand at `places` of `cache`, have written in `steps` steps."""
        counts = self.written.lengths(rows, steps) - 1
        kept, paths, continuations = [], [], []
        lines = self.written.tokens[:steps, rows].T.tolist()
        for index, (row, line, count) in enumerate(zip(rows.tolist(), lines, counts.tolist(), strict=True)):
            context, tokens = self.contexts[row], line[:count]
            if len(context.path) < len(context.tokens):
                self.prefixes.lose(context.path, [*context.tokens[len(context.path) :], *tokens])
            elif tokens:
                kept.append(index)
                paths.append(context.path)
                continuations.append(tokens)
        hidden = self.states.reshape(-1, self.states.shape[2])
        columns = np.full(len(kept), self.width)
        source = Source(cache, places[kept], columns, hidden, rows[kept] * self.states.shape[1])
        keep(self.prefixes, paths, continuations, source)


def _draw(logits: Tensor, uniform: Floats, sampling: Sampling) -> tuple[NDArray[np.int64], Floats]:
    """What `sampling.draw` draws; in one pass, which overwrites `logits`, where nothing shapes the distribution."""
    if sampling.temperature != 1.0 or sampling.top_k > 0 or sampling.top_p < 1.0:
        drawn = draw(logits, torch.from_numpy(uniform), sampling)
        return drawn.tokens.numpy(), drawn.logprobs.numpy()
    tokens, logprobs = np.empty(len(uniform), np.int64), np.empty(len(uniform), np.float32)
    kernels.draw_plainly(logits.numpy(), uniform, tokens, logprobs)
    return tokens, logprobs
