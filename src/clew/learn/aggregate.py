"""From losses per token [batch, time] and a mask [batch, time] bool to one number.

Each takes the denominator of the whole batch, so that micro-batches add up to it: pass the same `tokens` or
`sequences` to every micro-batch and sum. Masked entries are never read (they may be NaN) and get no gradient; when
everything is masked the result is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_mean(loss: Tensor, mask: Tensor, *, tokens: int | None = None) -> Tensor:
    """Sum over all tokens / number of tokens: DAPO (arXiv 2503.14476, equation 8). Long responses weigh more.

    `tokens` is the number of unmasked tokens of the whole batch; by default of this one.
    """
    total = torch.where(mask, loss, 0.0).sum()
    return total / mask.sum().clamp(min=1) if tokens is None else total / max(tokens, 1)


def sequence_mean(loss: Tensor, mask: Tensor, *, sequences: int | None = None) -> Tensor:
    """Mean over sequences of the mean over their tokens: GRPO (arXiv 2402.03300, equation 3).

    `sequences` is the number of sequences of the whole batch; by default those of this one with an unmasked token.
    """
    lengths = mask.sum(-1)
    total = (torch.where(mask, loss, 0.0).sum(-1) / lengths.clamp(min=1)).sum()
    return total / (lengths > 0).sum().clamp(min=1) if sequences is None else total / max(sequences, 1)


def constant_denominator(loss: Tensor, mask: Tensor, *, length: int, sequences: int | None = None) -> Tensor:
    """Sum over all tokens / (sequences x `length`): Dr. GRPO (arXiv 2503.20783). No bias to short or long responses.

    `length` is a constant of the run, e.g. the most tokens a response may have, never the padded width of a batch.
    `sequences` is the number of sequences of the whole batch, masked ones included; by default that of this one.
    """
    rows = mask.shape[0] if sequences is None else sequences
    return torch.where(mask, loss, 0.0).sum() / (max(rows, 1) * length)
