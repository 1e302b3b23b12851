"""How far the trainer's log-probs of sampled tokens are from those recorded when they were sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from clew.learn.kl import k3

EDGES = (-1.0, -0.1, -1e-2, -1e-3, -1e-4, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
"""Of the histogram, in nats; what lies beyond the outer ones has bins of its own."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """log w = log p_trainer - log p_sampler of the unmasked tokens, never truncated."""

    tokens: int
    mean_ratio: float
    """Of w over tokens: 1 in expectation if the sampler drew from what it recorded; the kept mass under top-p."""
    kl: float
    """KL(sampler, trainer) in nats a token: the mean of w - 1 - log w."""
    token_sample_size: float
    """Effective share of the tokens, (sum w)^2 / (n sum w^2), in (0, 1]."""
    sequence_sample_size: float
    """The same of whole sequences, whose w is the product of their tokens'."""
    worst: float
    """Log-ratio of the largest size."""
    worst_at: tuple[int, int]
    """Its row and position."""
    histogram: tuple[int, ...]
    """Tokens whose log-ratio is below, between and above `EDGES`."""


def mismatch(logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor) -> Mismatch | None:
    """Measure tokens [batch, time] where `mask` is True; None when it is True nowhere.

    Sums are in float64. A log-ratio that is not finite is the worst one and makes the means infinite or NaN.
    """
    tokens = int(mask.sum())
    if tokens == 0:
        return None
    # Masked entries may be anything, so they are replaced before they are subtracted.
    apart = torch.where(mask, logprobs.detach().double() - sampler_logprobs.double(), 0.0)
    log_ratios = apart[mask]
    sizes = torch.where(mask, apart.abs().nan_to_num(nan=torch.inf), -1.0)
    row, position = divmod(int(sizes.argmax()), mask.shape[1])
    bins = torch.bucketize(log_ratios, log_ratios.new_tensor(EDGES))
    return Mismatch(
        tokens=tokens,
        mean_ratio=log_ratios.exp().mean().item(),
        kl=k3(torch.zeros_like(log_ratios), log_ratios).mean().item(),
        token_sample_size=_sample_size(log_ratios),
        sequence_sample_size=_sample_size(apart.sum(-1)[mask.any(-1)]),
        worst=apart[row, position].item(),
        worst_at=(row, position),
        histogram=tuple(torch.bincount(bins, minlength=len(EDGES) + 1).tolist()),
    )


def _sample_size(log_weights: Tensor) -> float:
    """Kish's effective sample size as a share of the samples; computed in logs, so no weight overflows."""
    log_size = 2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)
    return (log_size.exp() / len(log_weights)).item()
