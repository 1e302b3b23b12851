"""Rewards from preferences: P(chosen preferred to rejected) = sigmoid(r(chosen) - r(rejected)) (Bradley-Terry, 1952).

The model is the outcome model's (`outcome_model_of`): a score of a finished answer. Only differences of scores of
the same problem are learnt; the centring term alone says where their zero is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from clew.core.errors import InvalidValue
from clew.learn.guard import Limits
from clew.learn.optim import MuonAdamW
from clew.learn.passes import in_passes
from clew.models.any_backbone import scalar_logits
from clew.reward.fit import TOKENS_PER_PASS, Update, descend

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Token ids of two finished answers, prompt included; the first is preferred."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    margin: float = 0.0
    """By how much the first reward ought to exceed the second (arXiv 2307.09288, equation 2)."""

    def __post_init__(self) -> None:
        if not self.chosen or not self.rejected:
            raise InvalidValue("length of an answer", 0, "at least one token, prompt included", "leave the pair out")


def bradley_terry_loss(
    chosen: Tensor, rejected: Tensor, *, margin: Tensor | float = 0.0, centring: float = 0.0
) -> Tensor:
    """Losses [pairs] of rewards [pairs]: -log sigmoid(chosen - rejected - margin) + centring (chosen + rejected)^2.

    The last term (arXiv 2312.09244) keeps rewards around 0; its mean is what TRL's reward trainer adds.
    """
    return -F.logsigmoid(chosen - rejected - margin) + centring * (chosen + rejected) ** 2


def preference_step(
    model: PreTrainedModel,
    optimizer: MuonAdamW,
    pairs: Sequence[Preference],
    *,
    centring: float = 0.0,
    **limits: Unpack[Limits],
) -> Update:
    """`descend` the mean Bradley-Terry loss of `pairs`."""

    def loss_of(rows: list[int]) -> Tensor:
        return _losses(model, [pairs[row] for row in rows], centring).sum() / len(pairs)

    return descend(model, optimizer, _lengths(pairs), loss_of, **limits)


def mean_loss(model: PreTrainedModel, pairs: Sequence[Preference], *, centring: float = 0.0) -> float:
    """Mean Bradley-Terry loss of `pairs`, nats."""
    chosen, rejected = _rewards_of_all(model, pairs)
    margin = torch.tensor([pair.margin for pair in pairs])
    return bradley_terry_loss(chosen, rejected, margin=margin, centring=centring).mean().item()


def preference_accuracy(model: PreTrainedModel, pairs: Sequence[Preference]) -> float:
    """The share of `pairs` whose preferred answer has the higher reward; equal rewards count half."""
    chosen, rejected = _rewards_of_all(model, pairs)
    return ((chosen > rejected).float() + 0.5 * (chosen == rejected).float()).mean().item()


def _rewards_of_all(model: PreTrainedModel, pairs: Sequence[Preference]) -> tuple[Tensor, Tensor]:
    def part(rows: list[int]) -> Sequence[Tensor]:
        with torch.no_grad():
            return _rewards(model, [pairs[row] for row in rows]).T.unbind()

    found = torch.stack(in_passes(part, _lengths(pairs), tokens_per_pass=TOKENS_PER_PASS))
    return found[:, 0], found[:, 1]


def _losses(model: PreTrainedModel, pairs: Sequence[Preference], centring: float) -> Tensor:
    chosen, rejected = _rewards(model, pairs)
    return bradley_terry_loss(chosen, rejected, margin=torch.tensor([pair.margin for pair in pairs]), centring=centring)


def _rewards(model: PreTrainedModel, pairs: Sequence[Preference]) -> Tensor:
    """Rewards [2, pairs] of the preferred and of the other answers."""
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    width = max(map(len, answers))
    ids = torch.tensor([answer + (0,) * (width - len(answer)) for answer in answers])
    last = torch.tensor([len(answer) - 1 for answer in answers])
    return scalar_logits(model, ids, torch.arange(width) == last[:, None]).view(2, -1)


def _lengths(pairs: Sequence[Preference]) -> list[int]:
    return [len(pair.chosen) + len(pair.rejected) for pair in pairs]
