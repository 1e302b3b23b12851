"""Single responses, each desirable or not, what a model says of them, and KTO's loss of an update.

No response needs another to be compared with. What a response is compared with is the reference point, an estimate of
how far the policy has moved altogether: the log-ratio of responses put after other prompts (arXiv 2402.01306).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from clew.core.errors import InvalidValue
from clew.learn.batch import Example, PaddedBatch, pad
from clew.learn.preference import kto, summed


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedExample:
    """A response to a prompt; the log-probs of both examples are those of the reference."""

    response: Example
    desirable: bool
    weight: float = 1.0
    """lambda_D or lambda_U of the paper."""
    stray: Example
    """A response to another prompt put after this one, for the reference point."""

    @property
    def length(self) -> int:
        return self.response.length

    @property
    def num_learnt(self) -> int:
        """Tokens that carry loss."""
        return self.response.num_learnt


class Noted(NamedTuple):
    """Sums over the responses of a micro-batch, to log; those of desirable (undesirable) ones apart."""

    loss: float
    desirable_reward: float
    undesirable_reward: float
    accuracy: float
    """Responses whose reward is on their side of the reference point; on it counts half."""
    desirable_logprob: float
    """Per token under the model."""


def balanced_weights(desirable: Sequence[bool]) -> tuple[float, float]:
    """Weights of desirable and undesirable responses with which either kind weighs as much in all.

    The rarer kind's is raised (arXiv 2402.01306, section 4.2: lambda_D n_D / (lambda_U n_U) from 1 on).

    >>> balanced_weights([True, False, False, False])
    (3.0, 1.0)
    """
    good = sum(desirable)
    bad = len(desirable) - good
    if not good or not bad:
        return 1.0, 1.0
    return max(1.0, bad / good), max(1.0, good / bad)


def loss_and_notes(
    logprobs_of: Callable[[PaddedBatch], Tensor],
    rows: Sequence[JudgedExample],
    *,
    point: float,
    beta: float,
    responses_in_all: int,
) -> tuple[Tensor, Noted]:
    """The part of `rows` in the mean loss over `responses_in_all`, and sums to log.

    `logprobs_of` gives [batch, time], 0 outside the targets' mask.
    """
    batch = pad([row.response for row in rows])
    ours = summed(logprobs_of(batch), batch.target_mask)
    ratios = ours - summed(batch.old_logprobs, batch.target_mask)
    desirable = torch.tensor([row.desirable for row in rows])
    weights = torch.tensor([row.weight for row in rows])
    loss = (weights * kto(ratios, desirable, point, beta=beta)).sum() / responses_in_all
    with torch.no_grad():
        rewards, tokens = beta * ratios, batch.target_mask.sum(-1).clamp(min=1)
        side = torch.where(desirable, ratios - point, point - ratios)
        return loss, Noted(
            loss=loss.item(),
            desirable_reward=rewards[desirable].sum().item(),
            undesirable_reward=rewards[~desirable].sum().item(),
            accuracy=((side > 0).float() + 0.5 * (side == 0).float()).sum().item(),
            desirable_logprob=(ours / tokens)[desirable].sum().item(),
        )


def check_judged(rows: Sequence[JudgedExample]) -> None:
    """Raise `InvalidValue` for an empty response."""
    for row in rows:
        if not row.response.response_ids:
            raise InvalidValue("length of a response", 0, "at least one token", "leave it out")
