"""An update of cloning, written out."""

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
from clew.learn.optim import MuonAdamW
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.recipes.cloning import clone_step
from clew.recipes.learner import Learner

SIZE = SmallQwen3(width=40, layers=1, heads=2, kv_heads=1, head_width=20, ffn_width=32, context=32)
EXAMPLES = [
    Example(prompt_ids=(5, 6, 7), response_ids=(8, 9, 10, 11), learnt=(True, False, True, True)),
    Example(prompt_ids=(4,), response_ids=(300, 301)),
]
GOOD = Path("runs/a/checkpoints/sft")


def plain(model: nn.Module, lr: float) -> MuonAdamW:
    """Gradient descent."""
    return MuonAdamW(torch.optim.SGD(model.parameters(), lr=lr))


def learner(model: Any) -> Learner:
    return Learner(LocalPolicy(model, build_tokenizer()))


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
    start: Any, limits: dict[str, Any], largest: float, tokens_per_pass: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clew.recipes.learner.TOKENS_PER_PASS", tokens_per_pass)
    model, twin = copy.deepcopy(start), copy.deepcopy(start)
    loss = mean_loss(twin)
    gradients = torch.autograd.grad(loss, list(twin.parameters()))
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt().item()
    assert 1.0 < norm < 1e3
    told = clone_step(learner(model), plain(model, 0.5), EXAMPLES, step=0, multiplier=0.5, **limits)
    assert told == {"loss": pytest.approx(loss.item(), rel=1e-5), "grad_norm": pytest.approx(norm, rel=1e-4)}
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
        clone_step(learner(model), plain(model, 0.5), EXAMPLES, step=17, checkpoint=GOOD)
    assert all(torch.equal(p.isnan(), before[name].isnan()) for name, p in model.state_dict().items())
