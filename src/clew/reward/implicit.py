"""The implicit process reward (PRIME, arXiv 2502.01456; 2412.01981): step rewards learnt from outcomes alone.

A language model phi is trained so that sigmoid(beta * sum over the response of (log phi - log ref)) is P(right). Each
term of the sum is then the reward of its token, and the sum up to a token what the response is worth so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Unpack, final

import torch
from torch import Tensor
from torch.nn import functional as F

from clew.core.errors import InvalidValue
from clew.core.types import Completion, State
from clew.learn.batch import Example, PaddedBatch, pad
from clew.learn.guard import Limits
from clew.learn.optim import MuonAdamW
from clew.learn.passes import in_passes
from clew.models.any_backbone import target_logprobs
from clew.reward.fit import TOKENS_PER_PASS, Update, descend
from clew.reward.log_ratio_q import LogRatioQ

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BETA = 0.05
"""As PRIME has it."""


def token_rewards(logprobs: Sequence[float], reference: Sequence[float], beta: float = BETA) -> list[float]:
    """beta * (log phi - log ref) of each token.

    >>> token_rewards([-1.0, -3.0], [-2.0, -1.0], 0.5)
    [0.5, -1.0]
    """
    return [beta * (ours - theirs) for ours, theirs in zip(logprobs, reference, strict=True)]


def step_rewards(rewards: Sequence[float], stops: Sequence[int]) -> list[float]:
    """The sum of the token rewards of each step; step i ends before token `stops[i]`, where the next begins.

    >>> step_rewards([0.5, -1.0, 2.0], [2, 3])
    [-0.5, 2.0]
    """
    if any(not 0 <= a <= b <= len(rewards) for a, b in pairwise([0, *stops])):
        accepted = f"ascending numbers up to {len(rewards)}, the number of tokens"
        raise InvalidValue("ends of steps", list(stops), accepted, "count tokens from the start of the response")
    return [math.fsum(rewards[start:stop]) for start, stop in pairwise([0, *stops])]


def outcome_loss(log_ratios: Tensor, outcomes: Tensor, beta: float = BETA) -> Tensor:
    """Cross-entropies [responses] of sigmoid(beta * log_ratios) against outcomes in [0, 1].

    `log_ratios` [responses] are sums over each response of log phi - log ref (arXiv 2502.01456, equation 5).
    """
    return F.binary_cross_entropy_with_logits(beta * log_ratios, outcomes, reduction="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedResponse:
    """A response, its log-probabilities under the reference, and how it ended."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    reference: tuple[float, ...]
    """Log-probability of each response token under the reference model, at temperature 1."""
    outcome: float
    """1 right, 0 wrong, between them for partial credit."""


def reference_logprobs(model: PreTrainedModel, responses: Sequence[Example]) -> list[tuple[float, ...]]:
    """Log-probabilities of the tokens of each response under `model`, for `JudgedResponse.reference`."""

    def part(rows: list[int]) -> list[list[float]]:
        batch = pad([responses[row] for row in rows])
        with torch.no_grad():
            logprobs = target_logprobs(model, batch.input_ids, batch.targets, batch.target_mask)
        pieces = logprobs[batch.target_mask].split(batch.target_mask.sum(dim=1).tolist())
        return [piece.tolist() for piece in pieces]

    lengths = [response.length for response in responses]
    return [tuple(row) for row in in_passes(part, lengths, tokens_per_pass=TOKENS_PER_PASS)]


def implicit_step(
    model: PreTrainedModel,
    optimizer: MuonAdamW,
    responses: Sequence[JudgedResponse],
    *,
    beta: float = BETA,
    **limits: Unpack[Limits],
) -> Update:
    """`descend` the mean `outcome_loss` of `responses`."""
    examples = [_example(response) for response in responses]

    def loss_of(rows: list[int]) -> Tensor:
        batch = pad([examples[row] for row in rows])
        return outcome_loss(_log_ratios(model, batch), batch.advantages, beta).sum() / len(responses)

    return descend(model, optimizer, [example.length for example in examples], loss_of, **limits)


def implicit_loss(model: PreTrainedModel, responses: Sequence[JudgedResponse], *, beta: float = BETA) -> float:
    """Mean `outcome_loss` of `responses`, nats."""

    examples = [_example(response) for response in responses]

    def part(rows: list[int]) -> list[float]:
        batch = pad([examples[row] for row in rows])
        with torch.no_grad():
            return outcome_loss(_log_ratios(model, batch), batch.advantages, beta).tolist()

    losses = in_passes(part, [example.length for example in examples], tokens_per_pass=TOKENS_PER_PASS)
    return math.fsum(losses) / len(losses)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitReward:
    """Scorer: sigmoid(beta * sum of log-ratios so far), of a finished state P(right); so problems can be compared."""

    ratio: LogRatioQ
    """The sum, with beta; its policy is phi, its reference ref."""

    @property
    def name(self) -> str:
        return "implicit-reward"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        return [_sigmoid(value) for value in self.ratio.score(states, completions)]

    def cost_tokens(self, states: Sequence[State]) -> int:
        """Tokens that both models read for `states` since last asked; before scoring, twice their length."""
        return self.ratio.cost_tokens(states)


def _example(response: JudgedResponse) -> Example:
    # The batch carries the outcome where policy gradients carry the advantage: a number a response.
    return Example(
        prompt_ids=response.prompt_ids,
        response_ids=response.response_ids,
        logprobs=response.reference,
        advantage=response.outcome,
    )


def _log_ratios(model: PreTrainedModel, batch: PaddedBatch) -> Tensor:
    """Sum over each response of log phi - log ref [batch]; both are 0 outside it."""
    logprobs = target_logprobs(model, batch.input_ids, batch.targets, batch.target_mask)
    return (logprobs - batch.old_logprobs).sum(dim=1)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0.0 else math.exp(x) / (1.0 + math.exp(x))
