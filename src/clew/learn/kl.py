"""Estimators per token of KL(policy || reference) from log-probs of tokens that the policy sampled.

Schulman 2020, http://joschu.net/blog/kl-approx.html. With d = logprobs - ref_logprobs:

| estimator | value | expected value | expected gradient as a loss, on-policy |
|---|---|---|---|
| k1 | d | KL(policy, reference) | zero: useless as a loss, right inside a reward |
| k2 | d² / 2 | biased | that of KL(policy, reference) |
| k3 | exp(-d) - 1 + d | KL(policy, reference), low variance | that of KL(reference, policy), the other direction |

The gradients are those of each next token with the states held fixed. Inside a reward, k1 of every token (no gradient)
makes the policy gradient that of E[r] - beta KL of whole responses, states and all. Off-policy, and for the gradient of
KL(policy, reference) from k1 or k3 as a loss, weigh by the ratio: `ratio_weighted`.
"""

from __future__ import annotations

import math

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


def straight_through(value: Tensor, gradient_of: Tensor) -> Tensor:
    """The number `value` with the gradient of `gradient_of`: k3 to report with k2 to descend, as verl's `k3+`."""
    return value.detach() + gradient_of - gradient_of.detach()


def ratio_weighted(estimate: Tensor, logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """p / p_old * estimate, for tokens that p_old sampled: unbiased in value and, for k1 and k3, in gradient.

    DeepSeek-V3.2 (arXiv 2512.02556, section 3.1). The gradient of KL(policy, reference), for p_old = p as well.
    """
    return (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() * estimate


def adapted_coefficient(
    coefficient: float, measured: float, *, samples: int, target: float = 0.1, horizon: int = 10_000
) -> float:
    """The next coefficient of a KL penalty, from the KL measured on `samples` responses in the unit of `target`.

    coefficient * (1 + clip(measured / target - 1, +-0.2) * samples / horizon): Ziegler et al. 2019, arXiv 1909.08593,
    section 2.2. A KL that is not finite leaves it as it is.
    """
    if not math.isfinite(measured):
        return coefficient
    error = min(max(measured / target - 1.0, -0.2), 0.2)
    return coefficient * (1.0 + error * samples / horizon)
