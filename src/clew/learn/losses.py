"""Losses per token, [batch, time]; `clew.learn.aggregate` makes them a number.

`advantages` is [batch] (one for all tokens of a response) or [batch, time].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clew.core.errors import InvalidValue

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
    return _pessimistic(ratio, advantages, clip_low, clip_high)


def gspo(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> Tensor:
    """The clipped surrogate with one ratio a sequence, exp(mean over its tokens of logprobs - old_logprobs).

    GSPO (Zheng et al. 2025, arXiv 2507.18071, equations 5 and 14): every token has the sequence's ratio as value and
    its own gradient, so `sequence_mean` of it is GSPO, and `advantages` may differ from token to token.
    """
    logprobs = torch.where(mask, logprobs, 0.0)
    lengths = mask.sum(-1, keepdim=True).clamp(min=1)
    log_ratio = torch.where(mask, logprobs.detach() - old_logprobs, 0.0).sum(-1, keepdim=True) / lengths
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() * (logprobs - logprobs.detach()).exp()
    return _pessimistic(ratio, _per_token(advantages, logprobs), clip_low, clip_high)


def cispo(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, lowest: float = 0.0, highest: float = 5.0
) -> Tensor:
    """-sg(clip(ratio, lowest, highest)) A log p: no token loses its gradient, however far its ratio has gone.

    CISPO (MiniMax 2025, arXiv 2506.13585, equation 4). The bounds are of the ratio itself and hold 1 between them;
    bounds below 1 would scale every token down, on-policy ones too.
    """
    if not 0.0 <= lowest <= 1.0 <= highest:
        raise InvalidValue(
            "bounds of the ratio", (lowest, highest), "0 <= lowest <= 1 <= highest", "1.28 and 5 are usual for highest"
        )
    ratio = (logprobs.detach() - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return reinforce(logprobs, _per_token(advantages, logprobs) * ratio.clamp(lowest, highest))


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float = 0.2) -> Tensor:
    """max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2) / 2: PPO's critic. All [batch, time].

    Never below the plain squared error, and without gradient where V has left the clip range towards the return.
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum((values - returns).square(), (near - returns).square()) / 2


def _per_token(advantages: Tensor, logprobs: Tensor) -> Tensor:
    return advantages[:, None] if advantages.ndim < logprobs.ndim else advantages


def _pessimistic(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
