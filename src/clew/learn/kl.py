"""Estimators per token of KL(policy || reference) from log-probs of tokens that the policy sampled.

Schulman 2020, http://joschu.net/blog/kl-approx.html. With d = logprobs - ref_logprobs:

| estimator | value | expected value | expected gradient as a loss, on-policy |
|---|---|---|---|
| k1 | d | KL(policy, reference) | zero: useless as a loss, right inside a reward |
| k2 | d² / 2 | biased | that of KL(policy, reference) |
| k3 | exp(-d) - 1 + d | KL(policy, reference), low variance | that of KL(reference, policy), the other direction |
"""

from __future__ import annotations

from torch import Tensor

MAX_LOG_RATIO = 20.0
"""k3 clamps its log-ratio here so that it stays finite; no gradient flows beyond."""


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Unbiased and of either sign; any shape, in nats."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Never negative; the one to use as a loss for KL(policy || reference). Any shape."""
    return (logprobs - ref_logprobs).square() / 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Never negative and unbiased: the one to report; GRPO's loss term (arXiv 2402.03300, equation 4). Any shape."""
    # expm1 keeps the digits that exp(-d) - 1 loses near d = 0.
    difference = (logprobs - ref_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return (-difference).expm1() + difference
