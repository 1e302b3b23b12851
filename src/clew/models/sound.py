"""Whether a model still says numbers: an update that is too large shows only in what comes after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clew.core.errors import TrainingDiverged

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_sound(model: PreTrainedModel) -> None:
    """Raise `TrainingDiverged` unless all weights, and the logits after one token, are finite numbers."""
    with torch.no_grad():
        logits = model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device)).logits
    if all(bool(torch.isfinite(numbers).all()) for numbers in (*model.parameters(), logits)):
        return
    raise TrainingDiverged(
        "training diverged at its last update: the model no longer says finite numbers, and is not saved",
        "finite weights and log-probabilities",
        "lower the learning rate, then start again",
    )
