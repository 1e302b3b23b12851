"""The moving average of weights, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from clew.core.errors import InvalidValue
from clew.learn.ema import Average


def test_the_average_by_hand() -> None:
    """The decay is 2/11, then 3/12, until it is the quarter that was asked for."""
    model = nn.ParameterDict({"learns": torch.zeros(2), "frozen": torch.ones(2)})
    model["frozen"].requires_grad_(False)
    average = Average(model, 0.25)
    assert average.weights.keys() == {"learns"}
    for weight, expected in ((11.0, 9.0), (1.0, 3.0), (5.0, 4.5), (0.5, 1.5)):
        with torch.no_grad():
            model["learns"].fill_(weight)
        average.update()
        assert average.weights["learns"].tolist() == pytest.approx([expected] * 2)
        assert model["learns"].tolist() == [weight] * 2
    average.store()
    assert model["learns"].tolist() == pytest.approx([1.5, 1.5])
    assert model["frozen"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_decays_that_average_nothing_are_refused(decay: float) -> None:
    with pytest.raises(InvalidValue, match="decay"):
        Average(nn.Linear(1, 1), decay)
