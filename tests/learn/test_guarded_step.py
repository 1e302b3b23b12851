"""One update, written out: clipping, and a step that is only taken where everything is finite."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from clew.core.errors import TrainingDiverged
from clew.learn.guard import guarded_step
from clew.learn.optim import MuonAdamW

GOOD = Path("runs/a/checkpoints/sft")


def plain(model: nn.Module, lr: float) -> MuonAdamW:
    """Gradient descent."""
    return MuonAdamW(torch.optim.SGD(model.parameters(), lr=lr))


@pytest.mark.parametrize(("limits", "moved"), [({}, (0.06, 0.08)), ({"max_grad_norm": 10.0}, (0.3, 0.4))])
def test_a_guarded_step_by_hand(limits: dict[str, float], moved: tuple[float, float]) -> None:
    """Gradient (3, 4), clipped to norm 1 or left; rate 0.2, of which half."""
    model = nn.ParameterList([torch.zeros(1), torch.zeros(1)])
    model[0].grad, model[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert guarded_step(model, plain(model, 0.2), loss=1.0, step=0, multiplier=0.5, **limits) == pytest.approx(5.0)
    assert [-p.item() for p in model] == pytest.approx(moved, rel=1e-5)
    assert [p.grad for p in model] == [None, None]


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (1.0, math.inf)])
@pytest.mark.parametrize(
    ("checkpoint", "said", "advice"),
    [(GOOD, str(GOOD), "start again from that checkpoint"), (None, "no checkpoint", "start again")],
)
def test_a_guarded_step_that_is_not_finite_is_not_taken(
    loss: float, gradient: float, checkpoint: Path | None, said: str, advice: str
) -> None:
    model = nn.ParameterList([torch.ones(2)])
    model[0].grad = torch.tensor([1.0, gradient])
    with pytest.raises(TrainingDiverged, match="step 9") as raised:
        guarded_step(model, plain(model, 0.2), loss=loss, step=9, checkpoint=checkpoint)
    assert said in raised.value.given
    assert raised.value.advice.endswith(advice)
    assert model[0].tolist() == [1.0, 1.0]
