"""An exponential moving average of weights (Polyak averaging): what is saved in the end is calmer than any one step."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from clew.core.errors import InvalidValue


@final
class Average:
    """average <- decay average + (1 - decay) weights, of the parameters that learn.

    From the first update on: with decay d it starts as the first weights, so that n < 1 / (1 - d) updates are still
    near them. `decay` is therefore no larger than (1 + n) / (10 + n) after n updates, as is usual for short runs.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise InvalidValue("decay", decay, "a number from 0 up to, not including, 1", "use 0.99")
        self._model, self._decay, self._updates = model, decay, 0
        self.weights: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's present weights."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, parameter in self._model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter, 1.0 - decay)

    @torch.no_grad()
    def store(self) -> None:
        """Make the average the model's weights."""
        for name, parameter in self._model.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])
