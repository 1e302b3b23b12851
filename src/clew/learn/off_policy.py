"""Weights for samples of another policy: w = p_train / p_sampler, cut or masked. All [batch, time], no gradient.

`logprobs` are the trainer's of the sampled tokens before the update, `sampler_logprobs` those recorded when they were
sampled (another engine, or older weights). Multiply the weights into a loss per token before it is aggregated; with
`clipped_surrogate` and `logprobs` as its old ones that is decoupled PPO (Hilton et al. 2021, arXiv 2110.00641). Weights
of masked tokens are zero. Masked sequences stay in the denominator if it is the whole batch's count.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped here so that `exp` stays finite."""


def log_ratio_sum(logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Log of the ratio of whole sequences [batch, 1]: exact, and its spread grows with length."""
    return _log_ratios(logprobs, sampler_logprobs, mask).sum(-1, keepdim=True)


def log_ratio_mean(logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Log of the geometric mean of the tokens' ratios [batch, 1]: comparable between lengths."""
    return log_ratio_sum(logprobs, sampler_logprobs, mask) / mask.sum(-1, keepdim=True).clamp(min=1)


LogRatioOfSequence = Callable[[Tensor, Tensor, Tensor], Tensor]


def truncated(
    logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, *, lowest: float = 0.0, highest: float = 2.0
) -> Tensor:
    """clip(w, lowest, highest) of each token: truncated importance sampling.

    Ionides 2008; for language models Yao et al. 2025, https://fengyao.notion.site/off-policy-rl. Where nothing is cut
    and responses are one token long the weighted gradient is the policy gradient; longer ones have a bias, because the
    earlier tokens' ratios are left out.
    """
    ratio = _exp(_log_ratios(logprobs, sampler_logprobs, mask))
    return torch.where(mask, ratio.clamp(lowest, highest), 0.0)


def token_masked(
    logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, *, lowest: float = 0.5, highest: float = 5.0
) -> Tensor:
    """w of each token where lowest <= w <= highest, else 0: IcePop (Ling Team 2025, arXiv 2510.18855)."""
    ratio = _exp(_log_ratios(logprobs, sampler_logprobs, mask))
    return torch.where(mask & (ratio >= lowest) & (ratio <= highest), ratio, 0.0)


def sequence_truncated(
    logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, *, lowest: float = 0.0, highest: float = 2.0
) -> Tensor:
    """clip(w of the whole sequence, lowest, highest) at each of its tokens; without a cut the gradient is unbiased."""
    ratio = _exp(log_ratio_sum(logprobs, sampler_logprobs, mask)).clamp(lowest, highest)
    return torch.where(mask, ratio, 0.0)


def sequence_masked(
    logprobs: Tensor,
    sampler_logprobs: Tensor,
    mask: Tensor,
    *,
    lowest: float = 0.5,
    highest: float = 2.0,
    log_ratio: LogRatioOfSequence = log_ratio_mean,
) -> Tensor:
    """w of each token, in sequences whose own ratio lies in [lowest, highest]; zero in the others.

    Which ratio decides is `log_ratio`: `log_ratio_mean` (NeMo RL, OpenRLHF) or `log_ratio_sum` (TRL).
    """
    of_sequence = _exp(log_ratio(logprobs, sampler_logprobs, mask))
    kept = mask & (of_sequence >= lowest) & (of_sequence <= highest)
    return torch.where(kept, _exp(_log_ratios(logprobs, sampler_logprobs, mask)), 0.0)


def keep_good_or_near(
    advantages: Tensor, logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, *, threshold: float = 0.05
) -> Tensor:
    """1 at tokens whose advantage is not negative or whose sequence has mean(log p_sampler - log p) <= `threshold`.

    The off-policy sequence mask of DeepSeek-V3.2 (arXiv 2512.02556, section 3.1). `advantages` [batch] or like `mask`.
    """
    near = -log_ratio_mean(logprobs, sampler_logprobs, mask) <= threshold
    good = (advantages[:, None] if advantages.ndim < mask.ndim else advantages) >= 0
    return (mask & (good | near)).to(logprobs.dtype)


def _log_ratios(logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, logprobs.detach() - sampler_logprobs, 0.0)


def _exp(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
