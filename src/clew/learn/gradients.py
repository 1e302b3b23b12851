"""Gradients of a loss that is a sum over micro-batches, which threads and ranks take side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeVar

import torch
from torch import Tensor, nn

from clew.learn.batch import micro_batches
from clew.learn.ranks import ALONE, here, share, sum_over_ranks
from clew.models.side_by_side import by_size, side_by_side

Noted = TypeVar("Noted")
SLACKS = (0.0, 0.02, 0.04, 0.07, 0.1)
"""By how much a micro-batch may be larger than an equal share; the first that leads to few enough of them is taken."""


def sum_gradients(
    model: nn.Module,
    lengths: Sequence[int],
    loss_of_rows: Callable[[list[int]], tuple[Tensor, Noted]],
    *,
    tokens_per_pass: int,
) -> list[Noted]:
    """Put the gradient of the sum of the losses into the parameters' `grad`; what was noted of each micro-batch.

    `lengths` are those of the sequences; `loss_of_rows` makes a batch of the rows it is given. Micro-batches are added
    in their order, whichever thread is done first, so a run repeats itself.

    Where several ranks have joined, each takes a share of the micro-batches, and all get the sum and all notes.
    """
    place = here()
    parameters = [p for p in model.parameters() if p.requires_grad]

    def part(rows: list[int]) -> tuple[tuple[Tensor, ...], Noted]:
        loss, noted = loss_of_rows(rows)
        return torch.autograd.grad(loss, parameters, materialize_grads=True), noted

    parts = side_by_side(part, share(even_batches(lengths, tokens_per_pass, ranks=place.ranks), place))
    gradients = [gradient for gradient, _ in parts]
    if not gradients and place != ALONE:
        gradients = [tuple(map(torch.zeros_like, parameters))]
    sums = by_size(_added, list(zip(*gradients, strict=True)), sum(p.numel() for p in parameters))
    for parameter, gradient in zip(parameters, sums, strict=True):
        parameter.grad = gradient
    noted = [own for _, own in parts]
    return noted if place == ALONE else sum_over_ranks(model, noted, lengths)


def _added(gradients: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Of each parameter, the sum over micro-batches."""
    return [reduce(torch.add, pieces) for pieces in gradients]


def clip_gradient(model: nn.Module, largest: float) -> float:
    """Scale the gradient that is there so that its norm is at most `largest`; the norm it had."""
    parameters = list(model.parameters())

    def clip(parameters: list[nn.Parameter]) -> float:
        return torch.nn.utils.clip_grad_norm_(parameters, largest).item()

    return by_size(clip, parameters, sum(p.numel() for p in parameters))


def even_batches(lengths: Sequence[int], tokens_per_pass: int, *, ranks: int = 1) -> list[list[int]]:
    """Micro-batches of which every thread gets about as many tokens: the threads wait for the last of them."""
    tokens, threads = sum(lengths), ranks * torch.get_num_threads()
    passes = threads * math.ceil(tokens / (threads * tokens_per_pass))
    if passes <= 1:
        return micro_batches(lengths, tokens_per_pass)
    # Padding counts, and sequences are not divided: a little more than an equal share may be needed.
    for slack in SLACKS:
        batches = micro_batches(lengths, math.ceil((1 + slack) * tokens / passes))
        if len(batches) <= passes:
            break
    return batches
