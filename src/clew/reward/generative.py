"""The generative judge (GenRM, arXiv 2408.15240): a language model that reads a solution and says Yes or No.

It is an ordinary causal language model, fine-tuned on verdict words after solutions; the reward is the probability of
the word for right. `clew.search.guides.SelfEvaluation` asks it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack, final

import torch
from torch import Tensor

from clew.core.types import Completion, State
from clew.learn.batch import Example, micro_batches, pad
from clew.learn.guard import Limits
from clew.learn.optim import MuonAdamW
from clew.models.any_backbone import target_logprobs
from clew.models.side_by_side import side_by_side
from clew.reward.fit import TOKENS_PER_PASS, Update, descend
from clew.search.guides.self_evaluation import SelfEvaluation

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How a judge is asked, and what it answers: token ids."""

    question: tuple[int, ...]
    """Put after the solution; empty for a judge that knows what is asked of it."""
    right: int
    wrong: int

    def example(self, prompt_ids: tuple[int, ...], state: State, *, right: bool) -> Example:
        """The verdict that a judge is to give of `state`, as one token to learn."""
        asked = prompt_ids + state.reopened().tokens + self.question
        return Example(prompt_ids=asked, response_ids=(self.right if right else self.wrong,))


def judge_step(
    model: PreTrainedModel, optimizer: MuonAdamW, verdicts: Sequence[Example], **limits: Unpack[Limits]
) -> Update:
    """`descend` the mean negative log-probability of `verdicts` (`Verification.example`)."""
    tokens = sum(example.num_learnt for example in verdicts)

    def loss_of(rows: list[int]) -> Tensor:
        batch = pad([verdicts[row] for row in rows])
        return -target_logprobs(model, batch.input_ids, batch.targets, batch.target_mask).sum() / tokens

    return descend(model, optimizer, [example.length for example in verdicts], loss_of, **limits)


def judge_loss(model: PreTrainedModel, verdicts: Sequence[Example]) -> float:
    """Mean negative log-probability of `verdicts`, nats a token."""

    def part(rows: list[int]) -> float:
        batch = pad([verdicts[row] for row in rows])
        with torch.no_grad():
            return -target_logprobs(model, batch.input_ids, batch.targets, batch.target_mask).sum().item()

    batches = micro_batches([example.length for example in verdicts], TOKENS_PER_PASS)
    return math.fsum(side_by_side(part, batches)) / sum(example.num_learnt for example in verdicts)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GenerativeReward:
    """Scorer: the share of its word for right between a judge's two verdict words, P(right) of a trained one."""

    judge: SelfEvaluation

    @property
    def name(self) -> str:
        return "generative-reward"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        return self.judge.score(states, completions)

    def cost_tokens(self, states: Sequence[State]) -> int:
        """Tokens that the judge read for `states` since last asked; before scoring, their length."""
        return self.judge.cost_tokens(states)
