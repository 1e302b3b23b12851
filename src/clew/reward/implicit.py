"""The implicit process reward (PRIME, arXiv 2502.01456; 2412.01981): step rewards learnt from outcomes alone.

A language model phi is trained so that sigmoid(beta * sum over the response of (log phi - log ref)) is P(right). Each
term of the sum is then the reward of its token, and the sum up to a token what the response is worth so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor
from torch.nn import functional as F

from clew.core.errors import InvalidValue
from clew.core.types import Completion, State
from clew.learn.batch import Example, PaddedBatch, micro_batches, pad
from clew.learn.gradients import accumulate_gradients
from clew.learn.guard import check_finite
from clew.learn.optim import MuonAdamW
from clew.models.any_backbone import target_logprobs
from clew.models.side_by_side import side_by_side
from clew.reward.fit import TOKENS_PER_PASS, Update
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

    return [tuple(row) for row in _in_batches(part, responses)]


def implicit_step(  # noqa: PLR0913  an update and its limits, by name
    model: PreTrainedModel,
    optimizer: MuonAdamW,
    responses: Sequence[JudgedResponse],
    *,
    step: int,
    beta: float = BETA,
    multiplier: float = 1.0,
    max_grad_norm: float = 1.0,
    checkpoint: Path | None = None,
) -> Update:
    """Minimise the mean `outcome_loss` of `responses` by one step of `optimizer`.

    Raises `TrainingDiverged`, naming `checkpoint`, before a step that is not finite.
    """

    def loss_of(batch: PaddedBatch) -> tuple[Tensor, float]:
        part = outcome_loss(_log_ratios(model, batch), batch.advantages, beta).sum() / len(responses)
        return part, part.item()

    examples = [_example(response) for response in responses]
    loss = sum(accumulate_gradients(model, examples, loss_of, tokens_per_pass=TOKENS_PER_PASS))
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm).item()
    check_finite(loss=loss, grad_norm=grad_norm, step=step, checkpoint=checkpoint)
    optimizer.step(multiplier=multiplier)
    optimizer.zero_grad()
    return Update(loss, grad_norm, sum(example.length for example in examples))


def implicit_loss(model: PreTrainedModel, responses: Sequence[JudgedResponse], *, beta: float = BETA) -> float:
    """Mean `outcome_loss` of `responses`, nats."""

    def part(rows: list[int]) -> list[float]:
        batch = pad([_example(responses[row]) for row in rows])
        with torch.no_grad():
            return outcome_loss(_log_ratios(model, batch), batch.advantages, beta).tolist()

    losses = _in_batches(part, [_example(response) for response in responses])
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


def _in_batches(part, examples: Sequence[Example]) -> list:  # type: ignore[no-untyped-def]
    """What `part` says of each of `examples`, asked in batches side by side."""
    batches = micro_batches([example.length for example in examples], TOKENS_PER_PASS)
    found: list = [None] * len(examples)
    for rows, values in zip(batches, side_by_side(part, batches), strict=True):
        for row, value in zip(rows, values, strict=True):
            found[row] = value
    return found


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0.0 else math.exp(x) / (1.0 + math.exp(x))
