"""One update of a value model: binary cross-entropy against labels in [0, 1], and what a model says of sequences.

A label of a prefix is the outcome of the solution it was sampled in (OVM, arXiv 2311.09724), or the share of its
rollouts that were right (the soft label of Math-Shepherd, arXiv 2312.08935): both make P(right | prefix) the best
prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from clew.learn.gradients import sum_gradients
from clew.learn.guard import Limits, guarded_step
from clew.learn.optim import MuonAdamW
from clew.learn.passes import in_passes
from clew.models.any_backbone import scalar_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_PER_PASS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Token ids of a prompt and its response, and the labels after some of them."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    """Tokens after which there is a label, as ascending indices of `ids`."""
    labels: tuple[float, ...]
    """For each place the probability, from 0 to 1, that the response ends right."""
    weights: tuple[float, ...]
    """For each place how much its label counts."""


def outcome_labels(
    prompt_ids: tuple[int, ...], response_ids: tuple[int, ...], outcome: float, *, end_weight: float = 1.0
) -> Labelled:
    """A sampled response whose every prefix, the empty one included, carries its outcome.

    The label of the whole response counts `end_weight` times as much as each of the others: it alone is certain.
    """
    places = tuple(range(len(prompt_ids) - 1, len(prompt_ids) + len(response_ids)))
    weights = (1.0,) * (len(places) - 1) + (end_weight,)
    return Labelled(ids=prompt_ids + response_ids, places=places, labels=(outcome,) * len(places), weights=weights)


def final_label(prompt_ids: tuple[int, ...], response_ids: tuple[int, ...], outcome: float, weight: float) -> Labelled:
    """A finished response, whoever wrote it: what is right about it stands at its end, and only there."""
    ids = prompt_ids + response_ids
    return Labelled(ids=ids, places=(len(ids) - 1,), labels=(outcome,), weights=(weight,))


class Update(NamedTuple):
    """What an update did: mean loss in nats, gradient norm before clipping, tokens read."""

    loss: float
    grad_norm: float
    tokens: int


def descend(
    model: PreTrainedModel,
    optimizer: MuonAdamW,
    lengths: Sequence[int],
    loss_of_rows: Callable[[list[int]], Tensor],
    **limits: Unpack[Limits],
) -> Update:
    """One step of `optimizer` down the sum of the losses of micro-batches of sequences of these `lengths`.

    Raises `TrainingDiverged` before a step that is not finite.
    """

    def noted(rows: list[int]) -> tuple[Tensor, float]:
        part = loss_of_rows(rows)
        return part, part.item()

    loss = sum(sum_gradients(model, lengths, noted, tokens_per_pass=TOKENS_PER_PASS))
    return Update(loss, guarded_step(model, optimizer, loss=loss, **limits), sum(lengths))


def value_step(
    model: PreTrainedModel, optimizer: MuonAdamW, examples: Sequence[Labelled], **limits: Unpack[Limits]
) -> Update:
    """`descend` the weighted mean of the binary cross-entropy of all labels."""
    total = sum(sum(example.weights) for example in examples)

    def loss_of(rows: list[int]) -> Tensor:
        return _loss_sum(model, [examples[row] for row in rows]) / total

    return descend(model, optimizer, [len(example.ids) for example in examples], loss_of, **limits)


def probabilities(model: PreTrainedModel, examples: Sequence[Labelled]) -> list[list[float]]:
    """P(right) by `model` after each place of each example."""

    def part(rows: list[int]) -> list[list[float]]:
        chosen = [examples[row] for row in rows]
        with torch.no_grad():
            probs = scalar_logits(model, *_padded(chosen)).sigmoid()
        return [piece.tolist() for piece in probs.split([len(example.places) for example in chosen])]

    return in_passes(part, [len(example.ids) for example in examples], tokens_per_pass=TOKENS_PER_PASS)


def _loss_sum(model: PreTrainedModel, examples: Sequence[Labelled]) -> Tensor:
    labels = torch.tensor([label for example in examples for label in example.labels])
    weights = torch.tensor([weight for example in examples for weight in example.weights])
    logits = scalar_logits(model, *_padded(examples))
    return F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="sum")


def _padded(examples: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
    """Right-padded ids and the mask of the places, both [batch, time]."""
    shape = len(examples), max(len(example.ids) for example in examples)
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, list(example.places)] = True
    return ids, mask
