"""`clew reward`: every kind learns to tell right from wrong, is measured as a guide is, and guides a search."""

from __future__ import annotations

import contextlib
import io
import json
import random
from dataclasses import replace

import pytest
import torch
from small_policy import SIZE, SPEC, TASK, fine_tuned

from clew import cli
from clew.core.cost import Cost
from clew.core.errors import CheckpointError, InvalidValue, UnknownName
from clew.core.types import (
    Completion,
    FinishReason,
    Group,
    Message,
    Outcome,
    Problem,
    Reward,
    Sampling,
    Span,
    State,
    Trajectory,
    Verdict,
)
from clew.data.checkpoint_files import resolve_checkpoint
from clew.data.run import RunDirectory
from clew.data.step_labels import StepLabels, save_labels
from clew.models.architecture import build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.recipes import reward_eval, reward_train
from clew.recipes.process_reward import ProcessRewardSettings
from clew.recipes.reward_eval import RewardEvalConfig
from clew.recipes.reward_kinds import PreferenceSettings, Source, labelled_steps, pairs_of
from clew.recipes.reward_measures import measure_scorer
from clew.recipes.reward_train import RewardTrainConfig
from clew.recipes.search import guides
from clew.reward.load import CARD, load_reward, read_card
from clew.search.specs import GuideSource

FEW = ProcessRewardSettings(
    problems=100,
    samples=4,
    held_out=20,
    measured=10,
    measured_samples=8,
    rows=8,
    evaluate_every=5,
    max_tokens=40,
    lr_matrix=0.02,
)
KINDS = ("outcome", "preference", "implicit", "generative")

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def policy_run(tmp_path_factory):
    """A run whose policy was fine-tuned for a few seconds: some of what it writes is right."""
    return fine_tuned(tmp_path_factory.mktemp("policy"), steps=120)


def trained(policy_run, directory, **changes):
    """The directory of a finished run, and what it printed."""
    config = RewardTrainConfig(
        checkpoint=policy_run, out=directory / "run", **{"task": SPEC, "settings": FEW, "json": True, **changes}
    )
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert reward_train.main(config) == 0
    return config.out, json.loads(out.getvalue())


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_of_each_kind_is_trained_measured_and_guides(kind, policy_run, tmp_path):
    out, measured = trained(policy_run, tmp_path, kind=kind)
    assert measured["loss"] < measured["loss_before"]
    assert measured["scorer"] == f"{kind}-reward"
    assert read_card(resolve_checkpoint(out)).kind == kind
    assert "<svg" in (out / "reliability.svg").read_text()
    assert json.loads((out / "summary.json").read_text())["stages"][0]["kind"] == kind
    assert any("validation_loss" in row for row in RunDirectory(out).metrics("reward"))
    policy = LocalPolicy(build_model(SIZE, build_tokenizer(), seed=0), build_tokenizer())
    source = GuideSource(policy=policy, task=TASK, sampling=Sampling())
    guide = guides(out)["learned-reward"].make(source)
    states = [State(problem, policy.encode(" try 3 + 4 = 7")) for problem in TASK.problems("test", 3, 0)]
    expected = guide.cost_tokens(states)
    assert expected > 0
    assert all(0.0 <= score <= 1.0 for score in guide.score(states, [None] * 3))
    with pytest.raises(InvalidValue, match="learned-reward"):
        guides(out)["process-reward"].make(source)


def test_eval_measures_a_checkpoint_of_any_kind(policy_run, tmp_path, capsys):
    out, _ = trained(policy_run, tmp_path, kind="outcome")
    config = RewardEvalConfig(
        guide=out, checkpoint=str(policy_run), task=SPEC, problems=8, samples=4, max_tokens=40, out=tmp_path / "eval"
    )
    capsys.readouterr()
    assert reward_eval.main(replace(config, json=True)) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["solutions"] == 32 and measured["seconds"] > 0
    assert set(measured["exact_value"]) >= {"spearman", "spearman_limit", "auc", "steps"}
    assert (tmp_path / "eval" / "reliability.svg").is_file()
    with pytest.raises(InvalidValue, match="--out"):
        reward_eval.main(config)
    assert reward_eval.main(replace(config, out=None)) == 0
    shown = capsys.readouterr().out
    assert "outcome-reward on 32 solutions" in shown and "a perfect choice" in shown


def test_labels_of_steps_train_a_process_reward(policy_run, tmp_path):
    """Labels say that a step with a plus is good: afterwards the model says so of problems it has not seen."""
    tokenizer = build_tokenizer()
    policy = LocalPolicy(build_model(SIZE, tokenizer, seed=0), tokenizer)
    rng = random.Random(0)
    labels = []
    for problem in TASK.problems("train", 120, seed=1):
        sign = rng.choice("+-")
        tokens = (*policy.encode(f" try 9 {sign} 7 = 16"), *policy.encode(" answer 9"))
        first = len(tokens) - len(policy.encode(" answer 9"))
        spans = (Span(0, first), Span(first, len(tokens)))
        value = float(sign == "+")
        labels.append(
            StepLabels(problem=problem, steps=(" try", " answer"), labels=(value, None), tokens=tokens, spans=spans)
        )
    save_labels(tmp_path / "labels.jsonl", labels)
    out, measured = trained(
        policy_run, tmp_path, labels=tmp_path / "labels.jsonl", settings=replace(FEW, rows=16, epochs=10)
    )
    assert measured["loss"] < 0.1 < measured["loss_before"]
    guide = load_reward(resolve_checkpoint(out))
    assert guide.name == "process-reward"
    problem = TASK.problems("test", 1, 0)[0]
    states = [State(problem, policy.encode(f" try 9 {sign} 7 = 16")) for sign in "+-"]
    good, bad = guide.score(states, [None, None])
    assert good > 0.8 and bad < 0.2


def test_labels_become_places_in_the_prompt_and_the_solution():
    source = Source(model=None, tokenizer=build_tokenizer(), prompt_ids=lambda problem: (7, 8), mode="think", seed=0)
    problem = Problem("p", "t", (Message("user", "x"),))
    given = StepLabels(
        problem=problem,
        steps=("a", "b", "c"),
        labels=(1.0, None, 0.25),
        weights=(2.0, 0.0, 1.0),
        tokens=(20, 21, 22, 23),
        spans=(Span(0, 2), Span(2, 3), Span(3, 4)),
    )
    found = labelled_steps(given, source)
    assert (found.ids, found.places, found.labels, found.weights) == (
        (7, 8, 20, 21, 22, 23),
        (3, 5),
        (1.0, 0.25),
        (2.0, 1.0),
    )
    text = StepLabels(problem=problem, steps=(" try 3", " no"), labels=(1.0, 0.0))
    read = labelled_steps(text, source)
    assert read.ids[2:] == tuple(source.tokenizer.encode(" try 3 no", add_special_tokens=False))
    assert read.places[-1] == len(read.ids) - 1
    assert labelled_steps(StepLabels(problem=problem, steps=("a",), labels=(None,)), source) is None


def group_of(rights):
    problem = Problem("p", "t", (Message("user", "x"),))
    tries = []
    for at, right in enumerate(rights):
        outcome = {True: Outcome.RIGHT, False: Outcome.WRONG, None: Outcome.UNSCORED}[right]
        value = None if right is None else float(right)
        completion = Completion((20 + at,), (-0.5,), FinishReason.STOP)
        state = State(problem).extend(completion)
        verdict = Verdict(outcome, value, str(right))
        reward = Reward(float("nan") if value is None else value)
        tries.append(Trajectory(state, "", verdict, reward, Cost(), 0, completion))
    return Group(problem, tuple(tries))


@pytest.mark.parametrize(
    ("rights", "pairs"),
    [((True, False, False), 2), ((True, True), 0), ((None, False), 0), ((True, None, False), 1)],
)
def test_pairs_are_a_right_and_a_wrong_solution(rights, pairs):
    source = Source(model=None, tokenizer=None, prompt_ids=lambda problem: (7,), mode="think", seed=0)
    group = group_of(rights)
    found = pairs_of([group], source, PreferenceSettings(pairs=9, margin=0.5))
    judged = {(7, *t.state.tokens): t.verdict.right for t in group.trajectories}
    assert len(set(found)) == len(found) == pairs
    assert all(judged[pair.chosen] and not judged[pair.rejected] and pair.margin == 0.5 for pair in found)
    assert len(pairs_of([group], source, PreferenceSettings(pairs=1))) == min(1, pairs)


class Told:
    """A scorer that says a half of all but the states it was told of."""

    name = "told"

    def __init__(self, values):
        self.values = values

    def score(self, states, completions):
        return [self.values.get(state.tokens, 0.5) for state in states]


def test_measures_of_a_perfect_scorer_and_of_one_that_knows_nothing():
    groups = [group_of((True, False, False, True)), group_of((False, True))]
    perfect = Told({t.state.tokens: float(t.verdict.right) for t in groups[0].trajectories})
    measured = measure_scorer(perfect, groups[:1], policy=None)
    assert measured["auc"]["1"] == 1.0 and measured["calibration_error"] == 0.0
    assert measured["choosing"]["best-of-n"]["mean"] == 1.0 and measured["base_rate"] == 0.5
    assert measured["auc"]["0.25"] == 0.5 and measured["exact_value"] is None
    assert measure_scorer(Told({}), groups, policy=None)["auc"]["1"] == 0.5


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "outcome", "settings": replace(FEW, end_weight=3.0)}, "--settings.end-weight"),
        ({"kind": "outcome", "preference": PreferenceSettings(pairs=2)}, "--preference"),
        ({"kind": "outcome", "labels": "x.jsonl"}, "--labels"),
        ({"kind": "process", "labels": "missing.jsonl"}, "missing.jsonl"),
        ({"settings": replace(FEW, rows=0)}, "rows"),
    ],
)
def test_what_a_kind_does_not_use_is_refused(changes, named, tmp_path):
    if "labels" in changes:
        changes = {**changes, "labels": tmp_path / changes["labels"]}
    config = RewardTrainConfig(checkpoint=tmp_path, out=tmp_path / "run", task=SPEC, **changes)
    with pytest.raises(InvalidValue, match=named):
        reward_train.main(config)
    assert not config.out.exists()


def test_a_policy_is_no_reward_and_a_damaged_card_is_named(policy_run, tmp_path):
    with pytest.raises(CheckpointError):
        load_reward(resolve_checkpoint(policy_run))
    (tmp_path / CARD).write_text('{"kind": "magic"}')
    with pytest.raises(CheckpointError, match="magic"):
        load_reward(tmp_path)
    (tmp_path / CARD).write_text("{")
    with pytest.raises(CheckpointError, match=CARD):
        load_reward(tmp_path)


def test_the_verb_has_two_words(capsys):
    config = cli.parse("reward train", ["--checkpoint", "a", "--out", "b", "--settings.problems", "7"])
    assert config.kind == "process" and config.settings.problems == 7
    assert cli.main(["reward"]) == 0
    assert "clew reward eval" in capsys.readouterr().out
    assert cli.main(["help", "reward", "eval"]) == 0
    assert "--guide" in capsys.readouterr().out
    assert cli.main(["reward", "trian"]) == UnknownName.exit_status
    assert "did you mean 'train'?" in capsys.readouterr().err
