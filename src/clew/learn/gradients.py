"""Gradients of a loss that is a sum over micro-batches, which threads take side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from clew.learn.batch import Example, PaddedBatch, micro_batches, pad
from clew.models.side_by_side import side_by_side

Noted = TypeVar("Noted")


def accumulate_gradients(
    model: nn.Module,
    examples: Sequence[Example],
    loss_of: Callable[[PaddedBatch], tuple[Tensor, Noted]],
    *,
    tokens_per_pass: int,
) -> list[Noted]:
    """Put the gradient of the sum of the losses into the parameters' `grad`; what `loss_of` notes of each micro-batch.

    Micro-batches are added in their order, whichever thread is done first, so a run repeats itself.
    """
    return sum_gradients(
        model,
        [example.length for example in examples],
        lambda rows: loss_of(pad([examples[row] for row in rows])),
        tokens_per_pass=tokens_per_pass,
    )


def sum_gradients(
    model: nn.Module,
    lengths: Sequence[int],
    loss_of_rows: Callable[[list[int]], tuple[Tensor, Noted]],
    *,
    tokens_per_pass: int,
) -> list[Noted]:
    """The same for sequences of any kind, of these `lengths`: `loss_of_rows` makes a batch of the rows it is given."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def part(rows: list[int]) -> tuple[tuple[Tensor, ...], Noted]:
        loss, noted = loss_of_rows(rows)
        return torch.autograd.grad(loss, parameters, materialize_grads=True), noted

    parts = side_by_side(part, micro_batches(lengths, _limit(sum(lengths), tokens_per_pass)))
    gradients = [gradient for gradient, _ in parts]
    for parameter, pieces in zip(parameters, zip(*gradients, strict=True), strict=True):
        parameter.grad = torch.stack(pieces).sum(dim=0) if len(pieces) > 1 else pieces[0]
    return [noted for _, noted in parts]


def _limit(tokens: int, tokens_per_pass: int) -> int:
    """Tokens of a micro-batch, so that every thread gets about as many; a tenth more, because padding counts."""
    threads = torch.get_num_threads()
    passes = threads * math.ceil(tokens / (threads * tokens_per_pass))
    return tokens_per_pass if passes <= 1 else math.ceil(1.1 * tokens / passes)
