"""Losses of what a search found in a state: where it went, and what the state was worth (AlphaZero).

arXiv 1712.01815: l = -pi . log p + (z - v)^2. Actions are steps of several tokens, so log p(a | s) is the sum over the
tokens of the step, and the policy has probability left for steps that the search never saw: the loss takes it away.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def visit_cross_entropy(step_logprobs: Tensor, shares: Tensor) -> Tensor:
    """-sum_a pi(a) log p(a), any shape of log-probs [...] of steps, weighted by `shares` [...] of the visits, summed.

    Least where p = pi: by Gibbs, no step outside the search keeps any probability.
    """
    return -(shares * step_logprobs).sum()


def value_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropies [states] of sigmoid(logits) against returns in [0, 1]; its least is at the mean return.

    The squared error of AlphaZero has the same minimum; a probability is what clew's value heads say.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
