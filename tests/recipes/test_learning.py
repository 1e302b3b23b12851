"""Each learning recipe learns on a small world, and does not where there is nothing to learn from.

The world is Countdown with two numbers, the measure a fixed set of problems, the policy a small model that was
fine-tuned for a few seconds. Gains are compared with their standard errors, so that a recipe that learns nothing fails.
"""

from __future__ import annotations

import copy
import io
import math
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from clew.core.errors import TrainingDiverged
from clew.core.types import Outcome, Problem, Sampling, Verdict
from clew.data.run import RunDirectory
from clew.evaluate import sample_groups, summarise
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.recipes.expert_iteration import ExpertIteration, expert_iteration
from clew.recipes.pretrain import Pretrain, pretrain
from clew.recipes.progress import Progress
from clew.recipes.rl import PolicyGradient, _dealt, rl
from clew.recipes.sft import Sft, sft
from clew.recipes.stage import Stage, load_policy, running, save_policy
from clew.tasks import Countdown

TASK = Countdown(count=2, high=9, target_high=30)
PROBLEMS = TASK.problems("train", TASK.count_problems("train") or 0, seed=0)
SIZE = SmallQwen3(width=48, layers=2, heads=2, kv_heads=1, head_width=24, ffn_width=96, context=128)
MAX_TOKENS = 40
SEEDS = (0, 1, 2)
FAST = {"lr_matrix": 0.004, "lr_other": 8e-4}
FASTER = {"lr_matrix": 0.02, "lr_other": 4e-3}

# Seconds on a quiet machine; a busy one is no reason to fail.
pytestmark = pytest.mark.timeout(400)

StageOf = Callable[[str], AbstractContextManager[Stage]]


@dataclass(frozen=True)
class Verdicts:
    """A verifier that answers what `of` makes of each text."""

    of: Callable[[str], Verdict]
    name: str = "stub"

    def verify(self, problem: Problem, text: str) -> Verdict:
        return self.of(text)

    def extract(self, text: str) -> str | None:
        return text


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are slower on two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return RunDirectory.create(tmp_path_factory.mktemp("learning") / "run", {})


@pytest.fixture(scope="module")
def stage_of(run: RunDirectory) -> StageOf:
    return lambda name: running(name, run, Progress({name: 1.0}, stream=io.StringIO()), total=1.0)


@pytest.fixture(scope="module")
def warm(run: RunDirectory, stage_of: StageOf) -> LocalPolicy:
    """A policy that solves less than half of the problems; copy it before training it."""
    policy = fresh()
    with stage_of("sft") as stage:
        settings = Sft(steps=100, rows=32, direct=0.0, wider=0.0, **FASTER)
        sft(settings, policy=policy, task=TASK, problems=PROBLEMS, seed=0, stage=stage)
    save_policy(policy, run, "sft")
    return policy


def fresh(seed: int = 0) -> LocalPolicy:
    tokenizer = build_tokenizer()
    return LocalPolicy(build_model(SIZE, tokenizer, seed), tokenizer)


def copied(policy: LocalPolicy) -> LocalPolicy:
    return LocalPolicy(copy.deepcopy(policy.model), policy.codec.tokenizer)


def accuracy(policy: LocalPolicy) -> Any:
    """pass@1 on all problems with its interval; the random streams are those of no training step."""
    groups = sample_groups(policy, TASK, PROBLEMS, n=4, sampling=Sampling(max_tokens=MAX_TOKENS), seed=99)
    return summarise(groups, TASK).pass_at_1


class Gain(NamedTuple):
    """How much better one policy does than another over the same problems, and the standard error of that."""

    mean: float
    error: float


def gain(after: LocalPolicy, before: LocalPolicy) -> Gain:
    """Differences are taken problem by problem, so that how hard the problems are does not blur them."""
    rates = []
    for policy in (after, before):
        groups = sample_groups(policy, TASK, PROBLEMS, n=8, sampling=Sampling(max_tokens=MAX_TOKENS), seed=99)
        rates.append([statistics.mean(t.verdict.right for t in group.trajectories) for group in groups])
    differences = [a - b for a, b in zip(*rates, strict=True)]
    return Gain(statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences)))


def weights(policy: LocalPolicy) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def reinforced(policy: LocalPolicy, stage_of: StageOf, *, seed: int, **changes: Any) -> LocalPolicy:
    """A copy of `policy` after a few steps of `rl`."""
    learner = copied(policy)
    task = changes.pop("task", TASK)
    settings = PolicyGradient(
        **{"steps": 35, "problems": 16, "group_size": 8, "max_tokens": MAX_TOKENS, **FAST, **changes}
    )
    with stage_of("rl") as stage:
        rl(settings, policy=learner, task=task, problems=PROBLEMS, seed=seed, stage=stage)
    return learner


def test_pretraining_learns_the_corpus(run, stage_of):
    policy = fresh()
    with stage_of("pretrain") as stage:
        pretrain(Pretrain(steps=30, rows=16, tokens=31, **FASTER), policy=policy, task=TASK, seed=0, stage=stage)
    losses = [row["loss"] for row in run.metrics("pretrain")]
    assert losses[0] > 5.0
    assert max(losses[-5:]) < 0.75 * losses[0]


def test_fine_tuning_learns_the_traces(run, warm):
    losses = [row["loss"] for row in run.metrics("sft")]
    assert losses[0] > 5.0
    assert max(losses[-5:]) < 0.15 * losses[0]
    assert 0.15 < accuracy(warm).mean < 0.6
    assert accuracy(fresh()).mean < 0.02


def test_fine_tuning_moves_the_rollout_engine_too(warm):
    """Without `refresh` the engine would still sample from the weights it was made with."""
    assert accuracy(warm) == accuracy(copied(warm))


@pytest.mark.parametrize("seed", SEEDS)
def test_true_rewards_lift_accuracy_and_shuffled_ones_do_not(warm, stage_of, seed):
    more = {"steps": 50, "problems": 32}
    true = gain(reinforced(warm, stage_of, seed=seed, **more), warm)
    shuffled = gain(reinforced(warm, stage_of, seed=seed, shuffle_rewards=True, **more), warm)
    assert true.mean > 0.05
    assert true.mean > 3 * true.error
    assert shuffled.mean < shuffled.error


def test_expert_iteration_lifts_accuracy(run, warm, stage_of):
    learner = copied(warm)
    settings = ExpertIteration(
        rounds=1,
        problems=len(PROBLEMS),
        samples=8,
        rows=16,
        epochs=8,
        max_tokens=MAX_TOKENS,
        lr_matrix=0.012,
        lr_other=2.4e-3,
    )
    with stage_of("expert_iteration") as stage:
        expert_iteration(settings, policy=learner, task=TASK, problems=PROBLEMS, seed=0, stage=stage)
    lifted = gain(learner, warm)
    assert lifted.mean > 0.05
    assert lifted.mean > 3 * lifted.error
    assert run.metrics("expert_iteration")[-1]["solved"] > 0.5


def test_each_round_of_expert_iteration_searches_with_what_the_one_before_taught(run, warm, stage_of, monkeypatch):
    searched = []
    sample = LocalPolicy.sample

    def watched(self, prompts, sampling):
        searched.append(weights(self))
        return sample(self, prompts, sampling)

    monkeypatch.setattr(LocalPolicy, "sample", watched)
    learner = copied(warm)
    settings = ExpertIteration(rounds=3, problems=48, samples=4, rows=8, max_tokens=MAX_TOKENS, **FAST)
    with stage_of("expert_iteration") as stage:
        expert_iteration(settings, policy=learner, task=TASK, problems=PROBLEMS, seed=0, stage=stage)
    assert len(searched) == 3
    assert not any(same(one, other) for one, other in zip(searched, [*searched[1:], weights(learner)], strict=True))
    steps = [line["step"] for line in run.metrics("expert_iteration")]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 3


def test_expert_iteration_without_solutions_changes_nothing(warm, stage_of):
    learner = copied(warm)
    settings = ExpertIteration(problems=8, samples=4, max_tokens=8, **FAST)
    with stage_of("expert_iteration") as stage:
        nothing = Verdicts(lambda text: Verdict(Outcome.WRONG, 0.0))
        expert_iteration(settings, policy=learner, task=nothing, problems=PROBLEMS, seed=0, stage=stage)
    assert same(weights(learner), weights(warm))


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Outcome.RIGHT, 1.0),
        Verdict(Outcome.WRONG, 0.0),
        Verdict(Outcome.WRONG, 0.1),
        Verdict(Outcome.UNSCORED, None),
    ],
    ids=["right", "wrong", "partly", "unscored"],
)
def test_equal_rewards_leave_the_weights_bit_identical(run, warm, stage_of, verdict):
    same_for_all = Verdicts(lambda text: verdict)
    learner = reinforced(warm, stage_of, seed=0, steps=2, problems=4, task=same_for_all)
    assert same(weights(learner), weights(warm))
    assert all(row["groups_dropped"] == 1.0 and "grad_norm" not in row for row in run.metrics("rl"))


def test_unscored_samples_teach_nothing_while_their_siblings_do(run, warm, stage_of):
    """A reward of NaN in a group must neither spread to it nor stop it."""

    def verdict(text: str) -> Verdict:
        return Verdict(Outcome.UNSCORED, None) if len(text) % 3 == 0 else Verdict(Outcome.WRONG, len(text) / 100)

    learner = reinforced(warm, stage_of, seed=0, steps=2, problems=4, task=Verdicts(verdict), shuffle_rewards=True)
    assert not same(weights(learner), weights(warm))
    assert all(torch.isfinite(tensor).all() for tensor in weights(learner).values())
    assert all(0.0 < row["unscored"] < 1.0 and math.isfinite(row["grad_norm"]) for row in run.metrics("rl"))


def test_dealing_keeps_rewards_and_leaves_unscored_samples_in_place():
    rewards = torch.arange(24.0).view(4, 6)
    valid = torch.ones(4, 6, dtype=torch.bool)
    valid[0, :3] = valid[2] = False
    rewards[~valid] = math.nan
    dealt = _dealt(rewards, valid, random.Random(0))
    assert torch.equal(dealt.isnan(), ~valid)
    assert sorted(dealt[valid].tolist()) == rewards[valid].tolist()
    assert (dealt[valid] == rewards[valid]).float().mean() < 0.3


def test_more_problems_asked_for_than_there_are(warm, stage_of):
    learner = copied(warm)
    settings = PolicyGradient(steps=1, problems=32, group_size=2, max_tokens=8)
    with stage_of("rl") as stage:
        rl(settings, policy=learner, task=TASK, problems=PROBLEMS[:3], seed=0, stage=stage)


@pytest.mark.parametrize("where", ["sft", "rl"])
def test_divergence_stops_before_the_update_and_names_the_checkpoint_kept(run, warm, stage_of, where, monkeypatch):
    learner = copied(warm)
    before = weights(learner)
    monkeypatch.setattr("clew.learn.aggregate.token_mean", lambda loss, mask, **how: loss.sum() * math.nan)
    reinforcement = PolicyGradient(steps=2, problems=16, group_size=8, max_tokens=MAX_TOKENS)
    train: dict[str, Callable[..., None]] = {
        "sft": partial(sft, Sft(steps=2, rows=4)),
        "rl": partial(rl, reinforcement),
    }
    with pytest.raises(TrainingDiverged) as raised, stage_of("later") as stage:
        train[where](policy=learner, task=TASK, problems=PROBLEMS, seed=0, stage=stage)
    assert str(run.checkpoint_path("sft")) in raised.value.given
    assert same(weights(learner), before)
    assert same(weights(load_policy(run.checkpoint_path("sft"))), before)


def test_divergence_with_nothing_saved_says_so(tmp_path: Path):
    policy = fresh()
    with torch.no_grad():
        policy.model.model.norm.weight[0] = math.nan
    empty = RunDirectory.create(tmp_path / "run", {})
    shown = Progress({"pretrain": 1.0}, stream=io.StringIO())
    with pytest.raises(TrainingDiverged, match="no checkpoint"), running("pretrain", empty, shown, total=1.0) as stage:
        pretrain(Pretrain(steps=2, rows=4, tokens=15), policy=policy, task=TASK, seed=0, stage=stage)
