"""From logits to tokens: temperature, top-k, top-p, and one random stream per sample.

The stream is counter-based: the number that decides token t of a sample is a pure function of the
sample's seed and t, so a sample is the same wherever it stands in whichever batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clew.core.types import Sampling

_SEED, _NEXT = 0xD1342543DE82EF95, 0x9E3779B97F4A7C15
"""What a seed and a position are multiplied by; both odd."""


def uniforms(seeds: Sequence[int], count: int) -> NDArray[np.float32]:
    """Numbers in [0, 1), [len(seeds), count]: SplitMix64 (Steele et al. 2014) of seed and position."""
    with np.errstate(over="ignore"):
        state = np.asarray(seeds, dtype=np.uint64)[:, None] * np.uint64(_SEED)
        x = state + np.arange(1, count + 1, dtype=np.uint64)[None, :] * np.uint64(_NEXT)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def stream_after(seed: int, count: int) -> int:
    """The seed whose stream is that of `seed` without its first `count` numbers: for a response that is continued.

    >>> bool((uniforms([stream_after(5, 3)], 4)[0] == uniforms([5], 7)[0, 3:]).all())
    True
    """
    return (seed + count * _NEXT * pow(_SEED, -1, 1 << 64)) % (1 << 64)


class Draw(NamedTuple):
    """Sampled token ids and their log-probabilities, both [batch]."""

    tokens: Tensor
    logprobs: Tensor


def filter_logits(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits [batch, vocab] of the distribution to sample from: what top-k and top-p leave out is minus infinity.

    Top-k keeps ties with the k-th largest logit. Top-p (Holtzman et al. 2020) keeps the smallest set
    of most likely tokens whose probability reaches p.
    """
    if sampling.temperature not in (0.0, 1.0):
        # Largest first to zero: dividing by a tiny temperature must not overflow where it matters.
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        smallest = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probs = ordered.softmax(dim=-1)
        outside = probs.cumsum(dim=-1) - probs >= sampling.top_p
        logits = logits.masked_fill(outside.scatter(-1, order, outside), -torch.inf)
    return logits


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Draw:
    """Draw one token a row by inverting the cumulative distribution at `uniform` [batch].

    Log-probabilities are those of the distribution that was sampled from; at temperature 0, where
    that distribution is a point, they are the model's own at temperature 1.
    """
    logits = filter_logits(logits, sampling)
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    cumulative = shifted.exp().cumsum(dim=-1)
    total = cumulative[:, -1]
    if sampling.temperature == 0.0:
        tokens = logits.argmax(dim=-1)
    else:
        # uniform * total never rounds up to the total: for the largest number below 1, 1 - 2**-24, they differ by at
        # least half of the total's last digit, and by a whole digit of the next lower number where that is a tie.
        tokens = torch.searchsorted(cumulative, (uniform * total)[:, None], right=True).squeeze(1)
    chosen = shifted.gather(1, tokens[:, None]).squeeze(1)
    return Draw(tokens, chosen - total.log())
