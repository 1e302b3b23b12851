"""One update, written out: gradient, clipping, and a step that is only taken where everything is finite."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clew.core.errors import TrainingDiverged
from clew.learn.batch import Example
from clew.learn.clone import clone
from clew.learn.guard import guarded_step
from clew.learn.optim import MuonAdamW
from clew.models.architecture import SmallQwen3, build_model
from clew.models.tokenizer import build_tokenizer

SIZE = SmallQwen3(width=40, layers=1, heads=2, kv_heads=1, head_width=20, ffn_width=32, context=32)
EXAMPLES = [
    Example(prompt_ids=(5, 6, 7), response_ids=(8, 9, 10, 11), learnt=(True, False, True, True)),
    Example(prompt_ids=(4,), response_ids=(300, 301)),
]
GOOD = Path("runs/a/checkpoints/sft")


def plain(model: nn.Module, lr: float) -> MuonAdamW:
    """Gradient descent."""
    return MuonAdamW(torch.optim.SGD(model.parameters(), lr=lr))


@pytest.fixture(scope="module")
def start() -> Any:
    return build_model(SIZE, build_tokenizer(), seed=0)


def mean_loss(model: Any) -> torch.Tensor:
    """Mean negative log-likelihood of the five learnt tokens, one sequence and token at a time."""
    terms = []
    for example in EXAMPLES:
        ids = [*example.prompt_ids, *example.response_ids]
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for at, learnt in enumerate(example.learnt or [True] * len(example.response_ids)):
            place = len(example.prompt_ids) + at
            terms += [-logprobs[place - 1, ids[place]]] if learnt else []
    assert len(terms) == 5
    return torch.stack(terms).mean()


@pytest.mark.parametrize(
    ("limits", "largest"), [({}, 1.0), ({"max_grad_norm": 0.01}, 0.01), ({"max_grad_norm": 1e3}, 1e3)]
)
@pytest.mark.parametrize("tokens_per_pass", [2048, 1])
def test_cloning_is_one_step_down_the_mean_loss(
    start: Any, limits: dict[str, float], largest: float, tokens_per_pass: int
) -> None:
    model, twin = copy.deepcopy(start), copy.deepcopy(start)
    loss = mean_loss(twin)
    gradients = torch.autograd.grad(loss, list(twin.parameters()))
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt().item()
    assert 1.0 < norm < 1e3
    told = clone(model, plain(model, 0.5), EXAMPLES, step=0, multiplier=0.5, tokens_per_pass=tokens_per_pass, **limits)
    assert told.loss == pytest.approx(loss.item(), rel=1e-5)
    assert told.grad_norm == pytest.approx(norm, rel=1e-4)
    assert told.tokens == 5
    factor = min(1.0, largest / norm)
    for p, q, g in zip(model.parameters(), twin.parameters(), gradients, strict=True):
        assert torch.allclose(p - q, -0.5 * 0.5 * factor * g, atol=2e-6 + 1e-4 * 0.25 * factor * g.abs().max().item())
        assert p.grad is None


def test_cloning_stops_before_a_step_that_is_not_finite(start: Any) -> None:
    model = copy.deepcopy(start)
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingDiverged, match=rf"step 17: loss nan.*{GOOD}"):
        clone(model, plain(model, 0.5), EXAMPLES, step=17, checkpoint=GOOD)
    assert all(torch.equal(p.isnan(), before[name].isnan()) for name, p in model.state_dict().items())


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
