"""The recipe of the process reward: it learns what a verifier looks at, and nothing from one that deals at random."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from small_policy import SPEC, TASK, fine_tuned

from clew.core.errors import RunDirectoryError
from clew.core.seeds import derive_seed
from clew.core.types import Outcome, Sampling, Verdict
from clew.data.checkpoint_files import resolve_checkpoint
from clew.data.run import RunDirectory
from clew.data.store import TrajectoryStore
from clew.evaluate import sample_groups
from clew.recipes import process_reward as recipe
from clew.recipes.process_measures import choosing, measure, step_stops
from clew.recipes.process_reward import ProcessRewardConfig, ProcessRewardSettings
from clew.recipes.progress import Progress
from clew.recipes.stage import load_policy, running
from clew.reward.process import load_process_reward

FEW = ProcessRewardSettings(
    problems=400, samples=4, held_out=10, measured=20, measured_samples=16, rows=32, evaluate_every=10, max_tokens=40
)

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class Judged:
    """Problems of Countdown, judged by the text alone."""

    right: Callable[[str], bool]
    name: str = "countdown"
    problems = staticmethod(TASK.problems)
    count_problems = staticmethod(TASK.count_problems)

    def verify(self, problem, text):
        right = self.right(text)
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), text)

    def extract(self, text):
        return text


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def policy_run(tmp_path_factory):
    """A run whose policy was fine-tuned for a few seconds: some of what it writes is right."""
    return fine_tuned(tmp_path_factory.mktemp("policy"), steps=200)


@pytest.fixture(scope="module")
def trained(policy_run, tmp_path_factory):
    """The configuration of a whole run, and what it printed."""
    config = ProcessRewardConfig(
        checkpoint=policy_run,
        out=tmp_path_factory.mktemp("reward") / "run",
        task=SPEC,
        settings=FEW,
        json=True,
    )
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert recipe.main(config) == 0
    return config, json.loads(out.getvalue())


def learnt(policy_run, directory, right):
    """Measures of a model that learnt from, and is measured by, a verifier for which `right` judges a text."""
    task = Judged(right)
    policy = load_policy(policy_run)
    run = RunDirectory.create(directory / "run", {})
    with running("reward", run, Progress({"reward": 1.0}), total=1.0) as stage:
        model = recipe.process_reward(FEW, policy=policy, task=task, seed=0, stage=stage)
        groups = recipe.sampled(FEW, policy, task, recipe.validation(FEW, task, 0)[1], 16, 0, stage)
    return measure(model, groups, recipe.labelled(FEW, groups, policy), policy)


def test_what_can_be_seen_in_a_solution_is_learnt(policy_run, tmp_path):
    """A verifier that likes sums: at the end of a solution all can be known, before it a part."""
    measured = learnt(policy_run, tmp_path, lambda text: " + " in text)
    assert 0.1 < measured["base_rate"] < 0.9
    assert measured["auc"]["1"] > 0.97
    assert measured["auc"]["1"] > measured["auc"]["0.25"]
    assert measured["calibration_error"] < 0.15
    chosen = measured["choosing"]
    assert chosen["first"]["mean"] + 0.2 < chosen["best-of-n"]["mean"] <= chosen["any"]["mean"]


def test_from_verdicts_dealt_out_at_random_nothing_is_learnt(policy_run, tmp_path):
    """The control: the end of a solution says nothing."""
    measured = learnt(policy_run, tmp_path, lambda text: derive_seed(0, text) % 2 == 0)
    assert 0.3 < measured["auc"]["1"] < 0.7


def test_the_run_holds_a_checkpoint_metrics_and_a_summary(trained, policy_run):
    config, measured = trained
    summary = json.loads((config.out / "summary.json").read_text())
    assert summary["stages"][0]["auc"] == measured["auc"]
    rows = RunDirectory(config.out).metrics("reward")
    assert rows[-1]["step"] + 1 == len(rows)
    assert any("validation_loss" in row for row in rows)
    guide = load_process_reward(resolve_checkpoint(config.out))
    policy = load_policy(policy_run)
    groups = sample_groups(policy, TASK, TASK.problems("train", 5, 0), n=2, sampling=Sampling(max_tokens=40))
    states = [t.state for group in groups for t in group.trajectories]
    assert all(0.0 < p < 1.0 for p in guide.score(states, [None] * len(states)))


def test_a_run_is_not_overwritten_unasked(trained):
    config, _ = trained
    with pytest.raises(RunDirectoryError, match="is not empty"):
        recipe.main(config)


def test_choosing_by_a_perfect_and_by_a_reversed_score(policy_run):
    policy = load_policy(policy_run)
    problems = TASK.problems("train", 40, seed=1)
    groups = sample_groups(policy, TASK, problems, n=6, sampling=Sampling(max_tokens=40))
    rights = [float(t.verdict.right) for group in groups for t in group.trajectories]
    perfect = choosing(groups, rights)
    assert perfect["best-of-n"] == perfect["any"]
    reversed_ = choosing(groups, [1.0 - right for right in rights])
    all_right = sum(all(t.verdict.right for t in group.trajectories) for group in groups) / len(groups)
    assert reversed_["best-of-n"]["mean"] == pytest.approx(all_right)
    assert perfect["first"]["mean"] == pytest.approx(sum(g.trajectories[0].verdict.right for g in groups) / len(groups))


def test_steps_stop_after_their_results(policy_run):
    policy = load_policy(policy_run)
    tokens = policy.encode(" have 9 7 try 9 + 7 = 16 no back try 9 - 7 = 2 yes answer 9 - 7")
    stops = step_stops(tokens, policy)
    assert [policy.codec.decode(tokens[:stop]).split()[-1] for stop in stops] == ["16", "2"]


def test_kept_solutions_are_finished_ones_of_training_problems(policy_run):
    policy = load_policy(policy_run)
    sampling = Sampling(max_tokens=16)
    train, test = (
        sample_groups(policy, TASK, TASK.problems(split, 12, 0), n=3, sampling=sampling) for split in ("train", "test")
    )
    with TrajectoryStore(policy_run / "trajectories.sqlite") as store:
        store.replace("kept", [*train, *test])
    many = replace(FEW, kept=1000)
    found = recipe.kept_solutions(many, policy_run, policy, TASK, seed=0)
    finished = [t for group in train for t in group.trajectories if t.state.finished]
    assert 0 < len(finished) < 36
    expected = [
        (policy.prompt_ids(t.state.problem, "think") + t.completion.tokens, (t.reward.value,)) for t in finished
    ]
    assert sorted((example.ids, example.labels) for example in found) == sorted(expected)
    assert all(example.places == (len(example.ids) - 1,) for example in found)
    assert all(example.weights == (FEW.end_weight,) for example in found)
    assert recipe.kept_solutions(FEW, policy_run, policy, TASK, seed=0) == []
    assert len(recipe.kept_solutions(replace(FEW, kept=2), policy_run, policy, TASK, seed=0)) == 2
    assert recipe.kept_solutions(many, policy_run / "checkpoints" / "sft", policy, TASK, seed=0) == []
    with TrajectoryStore(policy_run / "trajectories.sqlite") as store:
        store.replace("kept")
