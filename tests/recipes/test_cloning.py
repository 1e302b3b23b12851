"""What the methods of cloning share: what is sampled, what is kept of it, and an update, written out."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from one_token_world import PROBLEMS, Half, stage
from one_token_world import learner as small_learner
from torch import nn

from clew.core.cost import Cost
from clew.core.errors import TrainingDiverged
from clew.core.types import Completion, FinishReason, Group, Outcome, Problem, Reward, State, Trajectory, Verdict
from clew.data.store import TrajectoryStore
from clew.learn.batch import Example
from clew.learn.optim import MuonAdamW
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.models.tuning import Tuning
from clew.recipes.cloning import Lesson, clone_step, drawn, right_solutions, searched
from clew.recipes.expert_iteration import ExpertIteration
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


def test_an_update_counts_in_the_average_of_the_weights(start: Any) -> None:
    """The first decay is two elevenths, whatever is asked for."""
    model = copy.deepcopy(start)
    who = Learner(LocalPolicy(model, build_tokenizer()), Tuning(ema=0.9))
    clone_step(who, plain(model, 0.5), EXAMPLES, step=0)
    moved = who.weights()
    who.finish()
    for name, weight in who.weights().items():
        before = dict(start.named_parameters())[name]
        assert torch.allclose(weight, 2 / 11 * before + 9 / 11 * moved[name], atol=1e-6)


def attempt(problem: Problem, tokens: tuple[int, ...], right: bool) -> Trajectory:
    verdict = Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right))
    written = Completion(tokens, None, FinishReason.STOP)
    return Trajectory(State(problem).extend(written), "", verdict, Reward(float(right), {}), Cost(), 0, written)


def test_of_right_solutions_the_shortest_are_kept_each_once() -> None:
    first = [((1, 2, 3), True), ((4,), False), ((5, 6), True), ((7, 8), True), ((5, 6), True)]
    groups = [
        Group(PROBLEMS[0], tuple(attempt(PROBLEMS[0], *one) for one in first)),
        Group(PROBLEMS[1], (attempt(PROBLEMS[1], (9,), False),)),
        Group(PROBLEMS[2], (attempt(PROBLEMS[2], (1, 1, 1, 1), True),)),
    ]
    found = {cap: [t.completion.tokens for t in right_solutions(groups, cap)] for cap in (1, 2, None)}
    assert found[1] == [(5, 6), (1, 1, 1, 1)]
    assert found[2] == [(5, 6), (7, 8), (1, 1, 1, 1)]
    assert found[None] == [(5, 6), (7, 8), (1, 2, 3), (1, 1, 1, 1)]


@pytest.mark.parametrize("keep", [True, False])
def test_a_round_samples_as_many_problems_as_it_is_told(keep: bool, tmp_path: Path) -> None:
    settings = ExpertIteration(problems=3, samples=5, max_tokens=1, mode="direct")
    with stage(tmp_path / "run") as at:
        lesson = Lesson(learner=small_learner(), task=Half(), problems=PROBLEMS, seed=0, stage=at)
        chosen = drawn(settings, lesson, random.Random(4))
        assert chosen == random.Random(4).sample(PROBLEMS, 3)
        groups = searched(settings, chosen, lesson, seed=7, keep=keep)
        assert [group.problem for group in groups] == chosen
        assert {len(group.trajectories) for group in groups} == {5}
        assert {len(t.completion.tokens) for group in groups for t in group.trajectories} == {1}
        assert len(drawn(ExpertIteration(problems=9), lesson, random.Random(4))) == 4
        if keep:
            with TrajectoryStore(at.run.store_path) as store:
                stored = list(store.groups("distill"))
            assert [group.problem.id for group in stored] == [group.problem.id for group in groups]
        else:
            assert not at.run.store_path.exists()
