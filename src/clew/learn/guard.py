"""Stop a training run that diverged before it overwrites anything good."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Required, TypedDict

from clew.core.errors import TrainingDiverged

if TYPE_CHECKING:
    from torch import nn

    from clew.learn.optim import MuonAdamW


class Limits(TypedDict, total=False):
    """Which update it is, and how far it may go: what `guarded_step` takes, for whoever passes it on."""

    step: Required[int]
    """Its number, for the message if it diverges."""
    multiplier: float
    """Of the base learning rates."""
    checkpoint: Path | None
    """The last good one, for that message."""
    max_grad_norm: float
    """Where the norm of the gradient is clipped."""


def check_finite(*, loss: float, grad_norm: float, step: int, checkpoint: Path | None) -> None:
    """Raise `TrainingDiverged` unless loss and gradient norm are finite; call it before the optimiser steps.

    `checkpoint` is the last good one, None before the first.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    kept = "no checkpoint was written yet" if checkpoint is None else f"the last good checkpoint is {checkpoint}"
    raise TrainingDiverged(
        f"training diverged at step {step}: loss {loss}, gradient norm {grad_norm}; {kept}",
        "a finite loss and gradient norm at every step",
        "lower the learning rate or the clipping threshold of the gradient, then start again"
        + ("" if checkpoint is None else " from that checkpoint"),
    )


def guarded_step(  # noqa: PLR0913  a step and its limits, by name
    model: nn.Module,
    optimizer: MuonAdamW,
    *,
    loss: float,
    step: int,
    multiplier: float = 1.0,
    checkpoint: Path | None = None,
    max_grad_norm: float = 1.0,
) -> float:
    """Clip the gradient that is there and step by it; the norm it had. Raises `TrainingDiverged` before the step."""
    from clew.learn.gradients import clip_gradient

    grad_norm = clip_gradient(model, max_grad_norm)
    check_finite(loss=loss, grad_norm=grad_norm, step=step, checkpoint=checkpoint)
    optimizer.step(multiplier=multiplier)
    optimizer.zero_grad()
    return grad_norm
