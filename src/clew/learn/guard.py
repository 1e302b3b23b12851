"""Stop a training run that diverged before it overwrites anything good."""

from __future__ import annotations

import math
from pathlib import Path

from clew.core.errors import TrainingDiverged


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
