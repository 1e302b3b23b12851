"""A reward from demonstrations alone: the recipe in small; what it recovers is tested exactly in test_inverse.py."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
import torch
from small_policy import SPEC, TASK, fine_tuned

from clew.core.errors import InvalidValue
from clew.core.types import Sampling
from clew.data.checkpoint_files import resolve_checkpoint
from clew.data.run import RunDirectory
from clew.data.store import TrajectoryStore
from clew.evaluate import sample_groups
from clew.recipes import inverse_rl as recipe
from clew.recipes.inverse_rl import Demonstration, InverseConfig, InverseSettings
from clew.recipes.progress import Progress
from clew.recipes.stage import load_policy, running
from clew.reward.inverse import load_demonstrated_reward
from clew.tasks import Maze

FEW = InverseSettings(
    demonstrator="run",
    problems=400,
    measured=20,
    measured_samples=16,
    rows=32,
    epochs=30,
    patience=100,
    evaluate_every=10,
    max_tokens=40,
)
SAMPLING = Sampling(max_tokens=40)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def policy_run(tmp_path_factory):
    """A run whose policy was fine-tuned for a few seconds, with judged samples of training problems in its store."""

    def keep(policy):
        for split, problems in (("train", 400), ("test", 20)):
            yield from sample_groups(policy, TASK, TASK.problems(split, problems, 1), n=4, sampling=SAMPLING, seed=5)

    return fine_tuned(tmp_path_factory.mktemp("policy"), steps=200, keep=keep)


@pytest.fixture(scope="module")
def trained(policy_run, tmp_path_factory):
    """The run directory of the recipe, and what it printed."""
    out = tmp_path_factory.mktemp("inverse") / "run"
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()):
        config = InverseConfig(checkpoint=policy_run, out=out, task=SPEC, settings=FEW, json=True)
        assert recipe.inverse(config) == 0
    return out, json.loads(shown.getvalue())


def test_of_the_policys_own_solutions_nothing_is_learnt(policy_run, tmp_path):
    """The control: an expert who is the policy."""
    policy = load_policy(policy_run)
    problems = TASK.problems("train", 300, 1)
    groups = sample_groups(policy, TASK, problems, n=1, sampling=SAMPLING, seed=11)
    shown = [Demonstration(g.problem, g.trajectories[0].completion.tokens) for g in groups]
    run = RunDirectory.create(tmp_path / "run", {})
    with running("inverse", run, Progress({"inverse": 1.0}), total=1.0) as stage:
        model = recipe.inverse_reward(FEW, policy=policy, demonstrations=shown, seed=0, stage=stage)
    held_out = sample_groups(policy, TASK, TASK.problems("validation", 20, 1), n=16, sampling=SAMPLING, seed=3)
    assert 0.3 < recipe.measures(model, held_out, policy)["auc"]["1"] < 0.7


def test_demonstrations_of_a_run_are_right_and_of_training_problems(policy_run):
    found = recipe.kept(policy_run, TASK, 1000, seed=0)
    policy = load_policy(policy_run)
    with TrajectoryStore(policy_run / "trajectories.sqlite") as store:
        right = {(g.problem.id, t.state.tokens) for g in store.groups("sft") for t in g.trajectories if t.verdict.right}
    assert 50 < len(found) == len({d.problem.id for d in found})
    train = {p.id for p in TASK.problems("train", 400, 1)}
    for demonstration in found:
        assert (demonstration.problem.id, demonstration.tokens) in right
        assert demonstration.problem.id in train
        assert demonstration.tokens[-1] == policy.codec.end_id
    assert len(recipe.kept(policy_run, TASK, 7, seed=0)) == 7


def test_written_demonstrations_are_right_by_the_task(policy_run):
    policy = load_policy(policy_run)
    for problem, tokens in recipe.written(policy, TASK, 20, seed=0):
        assert TASK.verify(problem, policy.codec.decode(tokens)).right
    with pytest.raises(InvalidValue, match="countdown"):
        recipe.written(policy, Maze(), 20, seed=0)


def test_the_checkpoint_is_a_guide(trained, policy_run):
    out, measured = trained
    assert 0.1 < measured["base_rate"] < 0.9
    guide = load_demonstrated_reward(resolve_checkpoint(out))
    policy = load_policy(policy_run)
    groups = sample_groups(policy, TASK, TASK.problems("validation", 30, 2), n=4, sampling=SAMPLING, seed=8)
    values = [guide.score([t.state], [None])[0] for g in groups for t in g.trajectories]
    together = guide.score([t.state for g in groups for t in g.trajectories], [None] * len(values))
    assert values == pytest.approx(together, abs=1e-5)
    assert len({round(value, 6) for value in values}) > len(values) // 2
    assert json.loads((out / "summary.json").read_text())["stages"][0]["auc"] == measured["auc"]


def test_a_run_without_solutions_is_refused(policy_run, tmp_path):
    for checkpoint, words in ((tmp_path, "demonstrator written"), (policy_run, "two or more")):
        with pytest.raises(InvalidValue, match=words):
            recipe.demonstrated(
                InverseSettings(demonstrator="run"), checkpoint, load_policy(policy_run), Maze(), seed=0
            )
