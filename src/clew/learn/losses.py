"""Losses per token, [batch, time]; `clew.learn.aggregate` makes them a number.

`advantages` is [batch] (one for all tokens of a response) or [batch, time].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped here so that `exp` stays finite; no gradient flows beyond."""


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(logits)[target]: logits [..., vocabulary], targets [...] long -> [...], in nats."""
    return -cross_entropy(logits, targets)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each target: the loss of cloning. Shapes as `token_logprobs`.

    Select the positions that count before the output head where memory is short: [selected, vocabulary] works too.
    """
    flat = nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none")
    return flat.reshape(targets.shape)


def reinforce(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """-A log p: its gradient is the policy gradient (Williams 1992), for tokens of the current policy."""
    return -_per_token(advantages, logprobs) * logprobs


def clipped_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.2
) -> Tensor:
    """-min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A), ratio = exp(logprobs - old_logprobs).

    PPO (Schulman et al. 2017, arXiv 1707.06347, equation 7) with GRPO's 0.2 and 0.2; DAPO (arXiv 2503.14476,
    equation 8) has 0.2 and 0.28. At ratio 1 its gradient is that of `reinforce`.
    """
    advantages = _per_token(advantages, logprobs)
    ratio = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def _per_token(advantages: Tensor, logprobs: Tensor) -> Tensor:
    return advantages[:, None] if advantages.ndim < logprobs.ndim else advantages
