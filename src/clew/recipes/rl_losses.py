"""Losses, averages, KL terms and corrections by the names of the settings: the one place where names become functions.

Tensors are [batch, time].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from clew.recipes.rl_algorithms import Method
from clew.recipes.rl_settings import PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor


class Counts(NamedTuple):
    """Denominators of one update."""

    tokens: int
    sequences: int
    own_tokens: int
    """Of the lessons alone, whatever the loss is divided by."""


def losses(method: Method, logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The loss of each token [batch, time], by the method's name."""
    from clew.learn.losses import cispo, clipped_surrogate, gspo, reinforce

    low, high = method.clip_low, method.clip_high
    match method.loss:
        case "clipped":
            return clipped_surrogate(logprobs, old, advantages, clip_low=low, clip_high=high)
        case "reinforce":
            return reinforce(logprobs, advantages)
        case "gspo":
            return gspo(logprobs, old, advantages, mask, clip_low=low, clip_high=high)
        case "cispo":
            return cispo(logprobs, old, advantages, lowest=1.0 - low, highest=1.0 + high)


def averaged(method: Method, settings: PolicyGradient, loss: Tensor, mask: Tensor, counts: Counts) -> Tensor:
    """One number of the losses of tokens, by the method's name; of micro-batches they add up."""
    from clew.learn.aggregate import constant_denominator, sequence_mean, token_mean

    match method.aggregation:
        case "tokens":
            return token_mean(loss, mask, tokens=counts.tokens)
        case "sequences":
            return sequence_mean(loss, mask, sequences=counts.sequences)
        case "constant":
            length = settings.max_tokens
            return constant_denominator(loss, mask, length=length, sequences=counts.sequences)


def kl_loss(method: Method, logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate of the KL at each token, for a penalty in the loss; masked tokens are 0 in both and stay it."""
    from clew.learn.kl import k2, k3

    match method.kl:
        case "k2-loss":
            return k2(logprobs, reference)
        case "k3-loss":
            return k3(logprobs, reference)
        case "none" | "k1-reward":
            return logprobs * 0.0


def correction(
    method: Method, settings: PolicyGradient, logprobs: Tensor, sampler: Tensor, advantages: Tensor
) -> Tensor:
    """Weights of the tokens of whole responses, none of them masked, by the correction's name."""
    import torch

    from clew.learn import off_policy

    mask = torch.ones_like(logprobs, dtype=torch.bool)
    bounds = {"lowest": settings.correction_low, "highest": settings.correction_high}
    given: dict[str, Any] = {name: value for name, value in bounds.items() if value is not None}
    match method.correction:
        case "none":
            return torch.ones_like(logprobs)
        case "truncated":
            return off_policy.truncated(logprobs, sampler, mask, **given)
        case "token-masked":
            return off_policy.token_masked(logprobs, sampler, mask, **given)
        case "sequence-truncated":
            return off_policy.sequence_truncated(logprobs, sampler, mask, **given)
        case "sequence-masked":
            return off_policy.sequence_masked(logprobs, sampler, mask, **given)
        case "good-or-near":
            how: dict[str, Any] = {} if settings.correction_high is None else {"threshold": settings.correction_high}
            return off_policy.keep_good_or_near(advantages, logprobs, sampler, mask, **how)
