"""Entropy of the next-token distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def token_entropy(logits: Tensor) -> Tensor:
    """Exact entropy in nats: logits [..., vocabulary] -> [...]. Tokens with logit -inf add nothing."""
    logprobs = logits.log_softmax(-1)
    # 0 log 0 = 0, also for the gradient: the infinite log-prob is replaced before it is multiplied.
    finite = torch.where(logprobs == -torch.inf, 0.0, logprobs)
    return -(logprobs.exp() * finite).sum(-1)
