"""Entropy of the next-token distribution.

As a loss, minus the entropy at sampled states has the gradient of the entropy of each next token, with the states held
fixed. It is not the gradient of the entropy of whole responses: choosing a token also chooses what follows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_entropy(logits: Tensor) -> Tensor:
    """Exact entropy in nats: logits [..., vocabulary] -> [...]. Tokens with logit -inf add nothing."""
    logprobs = logits.log_softmax(-1)
    # 0 log 0 = 0, also for the gradient: the infinite log-prob is replaced before it is multiplied.
    finite = torch.where(logprobs == -torch.inf, 0.0, logprobs)
    return -(logprobs.exp() * finite).sum(-1)


def entropy_bonus(entropies: Tensor, *, coefficient: float) -> Tensor:
    """-coefficient * entropy: add it to a loss per token, any shape. `entropies` must carry a gradient."""
    return -coefficient * entropies
