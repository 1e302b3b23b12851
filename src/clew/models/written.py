"""What the samples of a batch have written so far: tokens, log-probabilities and, where asked for, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clew.core.errors import TrainingDiverged
from clew.core.types import Sampling
from clew.models import kernels
from clew.models.reading import Context
from clew.models.sampling import draw, uniforms

Floats = NDArray[np.float32]
Places = NDArray[np.int64]


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
    """Samples are counted from the first of the batch, whether they are still being written or not."""

    def __init__(self, seeds: Sequence[int], sampling: Sampling, continues: NDArray[np.bool_]) -> None:
        self.sampling, self.continues = sampling, continues
        shape = sampling.max_tokens, len(seeds)
        self._noise = np.ascontiguousarray(uniforms(seeds, sampling.max_tokens).T)
        self.counts = np.zeros(len(seeds), np.int64)
        """[samples]: tokens written."""
        self._tokens = np.zeros(shape, np.int64)
        self._logprobs = np.zeros(shape, np.float32)
        self._statistics = np.zeros((2, *shape), np.float32) if sampling.statistics else None

    def draw(self, samples: Places, owners: Places, logits: Tensor) -> tuple[Places, NDArray[np.bool_]]:
        """The next token of each of `samples`, and which of them go on after it.

        Sample i draws from row `owners`[i] of `logits` [rows, vocab], which may be overwritten.
        """
        at = self.counts[samples]
        if self._statistics is not None:
            # Of the model's own distribution, whatever shapes the one that is drawn from.
            entropies, certainties = np.empty((2, len(logits)), np.float32)
            kernels.describe(logits.numpy(), entropies, certainties)
            self._statistics[:, at, samples] = entropies[owners], certainties[owners]
        drawn, chosen = _draw(logits, owners, self._noise[at, samples], self.sampling)
        self._tokens[at, samples], self._logprobs[at, samples] = drawn, chosen
        self.counts[samples] = at = at + 1
        return drawn, self.continues[drawn] & (at < self.sampling.max_tokens)

    def collect(self, contexts: Sequence[Context]) -> list[Sampled]:
        """A completion a sample; the first of those that continue the same of `contexts` [samples] pays for it."""
        check_numbers(self._logprobs)
        ends = self._tokens[self.counts - 1, np.arange(len(contexts))]
        stopped = (~self.continues[ends]).tolist()
        statistics = None if self._statistics is None else self._statistics.swapaxes(1, 2).tolist()
        longest = self.counts.max(initial=0)
        paid: set[int] = set()
        results = []
        lines = self._tokens[:longest].T.tolist(), self._logprobs[:longest].T.tolist(), self.counts.tolist()
        for sample, (context, tokens, logprobs, length) in enumerate(zip(contexts, *lines, strict=True)):
            read, reread = (0, 0) if id(context) in paid else (context.read, context.reread)
            paid.add(id(context))
            cost = read, len(context.tokens) - read, reread
            measured = () if statistics is None else [tuple(values[sample][:length]) for values in statistics]
            results.append(Sampled(tuple(tokens[:length]), tuple(logprobs[:length]), stopped[sample], *cost, *measured))
        return results


def check_numbers(logprobs: Floats) -> None:
    """Raise `TrainingDiverged` if a log-probability is NaN: what was drawn by it means nothing."""
    if np.isnan(logprobs).any():
        given = "the model writes with log-probabilities that are no numbers: an update was too large"
        advice = "lower the learning rate, then start again from the last good checkpoint"
        raise TrainingDiverged(given, "weights with which the model says finite numbers", advice)


def _draw(logits: Tensor, owners: Places, uniform: Floats, sampling: Sampling) -> tuple[Places, Floats]:
    """What `sampling.draw` draws; in one pass, which overwrites `logits`, where nothing shapes the distribution."""
    if sampling.temperature != 1.0 or sampling.top_k > 0 or sampling.top_p < 1.0:
        drawn = draw(logits[torch.from_numpy(owners)], torch.from_numpy(uniform), sampling)
        return drawn.tokens.numpy(), drawn.logprobs.numpy()
    tokens, logprobs = np.empty(len(uniform), np.int64), np.empty(len(uniform), np.float32)
    kernels.draw_plainly(logits.numpy(), owners, uniform, tokens, logprobs)
    return tokens, logprobs
