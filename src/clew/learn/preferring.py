"""Pairs of responses as examples, what a model says of them, and the loss of each: the frame around `preference`.

An objective is a function from the log-probabilities of pairs to one loss a pair. Micro-batches hold whole pairs, so
that k of them add up to one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from clew.core.errors import InvalidValue
from clew.learn.batch import Example, PaddedBatch, pad
from clew.learn.preference import margin, summed


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PairExample:
    """Two responses to one prompt, the first preferred; `logprobs` of each are those of the reference."""

    chosen: Example
    rejected: Example
    flipped: float = 0.0
    """Probability that the label is wrong, for the objective that takes one."""

    @property
    def length(self) -> int:
        return self.chosen.length + self.rejected.length

    @property
    def num_learnt(self) -> int:
        """Tokens that carry loss."""
        return self.chosen.num_learnt + self.rejected.num_learnt


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chances:
    """Log-probabilities of P pairs, each [P]: sums over the response under the model and under the reference."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    flipped: Tensor

    @property
    def mean_chosen(self) -> Tensor:
        """The same per token, as are the next two."""
        return self.chosen / self.chosen_tokens

    @property
    def mean_rejected(self) -> Tensor:
        return self.rejected / self.rejected_tokens

    @property
    def margin(self) -> Tensor:
        """Difference of the summed log-ratios of chosen and rejected."""
        return margin(self.chosen, self.rejected, self.ref_chosen, self.ref_rejected)

    @property
    def mean_margin(self) -> Tensor:
        """Difference of the mean log-ratios of chosen and rejected."""
        ours = self.mean_chosen - self.mean_rejected
        return ours - self.ref_chosen / self.chosen_tokens + self.ref_rejected / self.rejected_tokens


class Objective(NamedTuple):
    """A loss of pairs, and what it calls the reward of each response."""

    loss: Callable[[Chances], Tensor]
    """One loss a pair, [P]."""
    rewards: Callable[[Chances], tuple[Tensor, Tensor]]
    """Implicit rewards of chosen and rejected responses, [P] each, to log."""
    takes_reference: bool = True


def log_ratios(told: Chances, *, beta: float) -> tuple[Tensor, Tensor]:
    """beta times the summed log-ratios of chosen and rejected: DPO's implicit rewards."""
    return beta * (told.chosen - told.ref_chosen), beta * (told.rejected - told.ref_rejected)


def mean_logprobs(told: Chances, *, beta: float) -> tuple[Tensor, Tensor]:
    """beta times the mean log-probs of chosen and rejected: SimPO's rewards."""
    return beta * told.mean_chosen, beta * told.mean_rejected


class Noted(NamedTuple):
    """Sums over the pairs of a micro-batch, to log."""

    loss: float
    chosen_reward: float
    rejected_reward: float
    accuracy: float
    """Pairs whose chosen response has the higher reward; equal rewards count half."""
    chosen_logprob: float
    """Per token under the model: it may fall although the margin grows."""


def chances(logprobs_of: Callable[[PaddedBatch], Tensor], pairs: Sequence[PairExample]) -> Chances:
    """What a model says of `pairs`; `logprobs_of` gives [batch, time], 0 outside the targets' mask."""
    batch = pad([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])
    ours = summed(logprobs_of(batch), batch.target_mask).view(2, -1)
    theirs = summed(batch.old_logprobs, batch.target_mask).view(2, -1)
    tokens = batch.target_mask.sum(-1).view(2, -1)
    return Chances(
        chosen=ours[0],
        rejected=ours[1],
        ref_chosen=theirs[0],
        ref_rejected=theirs[1],
        chosen_tokens=tokens[0],
        rejected_tokens=tokens[1],
        flipped=torch.tensor([pair.flipped for pair in pairs]),
    )


def loss_and_notes(objective: Objective, told: Chances, pairs_in_all: int) -> tuple[Tensor, Noted]:
    """The part of `told` in the mean loss over `pairs_in_all`, and sums to log."""
    loss = objective.loss(told).sum() / pairs_in_all
    with torch.no_grad():
        better, worse = objective.rewards(told)
        accuracy = (better > worse).float() + 0.5 * (better == worse).float()
        sums = (better, worse, accuracy, told.mean_chosen)
        return loss, Noted(loss.item(), *(value.sum().item() for value in sums))


def check_pairs(pairs: Sequence[PairExample]) -> None:
    """Raise `InvalidValue` for a pair with an empty response."""
    for pair in pairs:
        if not pair.chosen.response_ids or not pair.rejected.response_ids:
            raise InvalidValue("length of a response", 0, "at least one token", "leave the pair out")
