"""clew reward label: what it writes, that a stop keeps what is labelled, where labels come from, what it refuses."""

from __future__ import annotations

import json
import random

import pytest

from clew import cli
from clew.data.prm800k import read_prm800k
from clew.data.step_labels import load_labels
from clew.recipes.bench_reward_labels import LabelBench, compare_labellers, rollouts_for
from clew.search import ScriptedPolicy
from clew.tasks import make_task

TASK = make_task("countdown")


def say(prompt, sampling):
    """Four thoughts, each a line; a `no` among them is a mistake, after which the answer is wrong."""
    problem, stream = prompt.state.problem, random.Random(prompt.seed)
    before = bytes(prompt.state.tokens).decode()
    lines = [stream.choice(["go", "go", "go", "no"]) for _ in range(before.count("\n"), 4)]
    wrong = " + ".join(map(str, problem.metadata["numbers"])) + " + 1"
    last = wrong if "no" in before or "no" in lines else TASK.gold(problem)
    return "".join(f"{line}\n" for line in lines) + f"answer {last}"


class Scripted(ScriptedPolicy):
    __slots__ = ("at", "calls")

    def __init__(self):
        super().__init__(say, logprob=lambda prompt, token: -1.0)
        self.calls, self.at = 0, None

    def sample(self, prompts, sampling):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return ScriptedPolicy.sample(self, prompts, sampling)


@pytest.fixture
def policy(monkeypatch):
    from clew.recipes import stage

    made = Scripted()
    monkeypatch.setattr(stage, "load_policy", lambda path: made)
    return made


@pytest.fixture
def label(capsys, tmp_path):
    def run(*arguments, out="run"):
        status = cli.main(["reward", "label", "--out", str(tmp_path / out), *map(str, arguments)])
        return status, *capsys.readouterr()

    run.path = tmp_path / "run"
    return run


SMALL = ("--checkpoint", "x", "--problems", 6, "--together", 2, "--k", 16, "--solutions", 6)


def truth(one):
    """A step is right up to the first `no`; the whole solution as it was judged."""
    mistakes = [at for at, step in enumerate(one.steps) if "no" in step]
    first = mistakes[0] if mistakes else len(one.steps)
    return tuple(float(at < first) for at in range(len(one.steps)))


def test_omega_prm_finds_the_mistakes(policy, label):
    status, out, _ = label(*SMALL, "--json")
    assert status == 0
    summary = json.loads(out)
    labels = load_labels(label.path / "labels.jsonl").rows
    assert summary["solutions"] == len(labels) > 10
    assert summary["cost"]["model_calls"] == sum(one.cost.model_calls for one in labels)
    # With 16 roll-outs a right prefix (at worst 3/4 to the end) hardly ever looks wrong.
    agree = sum(one.labels == truth(one) for one in labels)
    assert agree >= 0.9 * len(labels)
    assert all(one.outcome == "wrong" and one.made == "omega-prm implied k=16" for one in labels)
    rows = [json.loads(line) for line in (label.path / "stepwise.jsonl").read_text().splitlines()]
    assert [tuple(row["completions"]) for row in rows] == [one.steps for one in labels]
    assert "".join(labels[0].steps).startswith(("go", "no")) and labels[0].spans[0].stop == 3
    assert not list((label.path / "searches").iterdir())


def test_monte_carlo_labels_every_step_of_every_solution(policy, label):
    status, out, _ = label(*SMALL, "--method", "monte-carlo", "--labels", "hard", "--format", "parquet")
    assert status == 0
    labels = load_labels(label.path / "labels.parquet").rows
    assert {one.labels == truth(one) for one in labels} == {True}
    assert "roll-outs" in out and {one.outcome for one in labels} == {"right", "wrong"}
    told = json.loads((label.path / "summary.json").read_text())["along"]
    for outcome, points in told.items():
        last = [one.labels[-1] for one in labels if one.outcome == outcome and len(one.steps) >= 5]
        assert points[-1][0] == pytest.approx(0.9)
        assert (points[-1][1] == 1.0) == (outcome == "right") and last
    assert "Along a solution" in (label.path / "report.html").read_text()


def test_a_stop_keeps_what_is_labelled_and_going_on_equals_going_straight_through(policy, label, tmp_path):
    label(*SMALL, out="straight")
    policy.calls, policy.at = 0, policy.calls * 2 // 3
    status, _, err = label(*SMALL)
    assert status == 130 and "kept" in err
    whole = load_labels(tmp_path / "straight" / "labels.jsonl").rows
    kept = load_labels(label.path / "labels.jsonl").rows
    assert 0 < len(kept) < len(whole)
    policy.at = None
    assert label(*SMALL, "--resume")[0] == 0

    def said(rows):
        return [(one.problem.id, one.steps, one.labels, one.visits) for one in rows]

    assert said(load_labels(label.path / "labels.jsonl").rows) == said(whole)
    assert said(kept) == said(whole)[: len(kept)]


def test_labels_of_the_trees_of_a_search(policy, label, tmp_path, capsys):
    arguments = ["--checkpoint", "x", "--strategy", "mcts:iterations=12,width=3,max_depth=6", "--problems", "4"]
    assert cli.main(["search", *arguments, "--split", "train", "--out", str(tmp_path / "search")]) == 0
    capsys.readouterr()
    for kind in ("soft", "rest"):
        status, out, _ = label(
            "--method", "tree", "--source", tmp_path / "search", "--labels", kind, "--json", out=f"run-{kind}"
        )
        assert status == 0 and json.loads(out)["labels"] > 20
        labels = load_labels(tmp_path / f"run-{kind}" / "labels.jsonl").rows
        assert all(one.labels[-1] == 1.0 for one in labels if one.outcome == "right")
        assert all("".join(one.steps).count("answer") <= 1 for one in labels)


def test_labels_of_people(label, tmp_path):
    step = {"completions": [{"text": "a", "rating": -1}], "chosen_completion": None, "human_completion": None}
    row = {"question": {"problem": "?"}, "label": {"steps": [step], "finish_reason": "found_error"}}
    source = tmp_path / "phase.jsonl"
    source.write_text(json.dumps(row) + "\n{\n")
    status, _, err = label("--method", "human", "--source", source)
    assert status == 2 and "phase.jsonl:2" in err
    status, out, _ = label("--method", "human", "--source", source, "--skip-bad", "--json", out="skipped")
    assert status == 0 and json.loads(out)["skipped"] == 1
    assert load_labels(tmp_path / "skipped" / "labels.jsonl").rows == read_prm800k(source, skip_bad=True).rows


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--method", "tree"),
        ("--method", "tree", "--source", "nowhere"),
        ("--method", "human", "--source", "nowhere.jsonl"),
        ("--checkpoint", "x", "--k", 0),
        ("--checkpoint", "x", "--task", "chess"),
        ("--checkpoint", "x", "--method", "guess"),
    ],
)
def test_what_is_refused_leaves_no_directory(policy, label, arguments):
    status, _, err = label(*arguments)
    assert status == 2 and "what to do" in err
    assert not label.path.exists()


# The comparison of OmegaPRM and Monte Carlo.


def test_rollouts_at_which_a_line_reaches_a_quality():
    line = [{"rollouts": r, "quality": q} for r, q in ((10.0, 0.5), (20.0, 0.7), (40.0, 0.8))]
    assert rollouts_for(0.4, line) == 10.0
    assert rollouts_for(0.7, line) == pytest.approx(20.0)
    assert rollouts_for(0.75, line) == pytest.approx(20.0 * 2**0.5)
    assert rollouts_for(0.9, line) == 40.0


def test_omega_prm_and_monte_carlo_are_compared():
    from clew.core.types import Sampling

    bench = LabelBench(
        solutions=6, ks=(1, 2, 4), k=4, reference=16, seeds=2, step_ends=("\n",), sampling=Sampling(max_tokens=80)
    )
    said = []
    found = compare_labellers(ScriptedPolicy(say), TASK, bench, 0, on_step=said.append)
    omega, plain = found["omega_prm"], found["by_k"]["monte_carlo k=4"]
    # Five steps, of which the last is judged and not rolled out: the root and at most three of four.
    assert omega["rollouts"] <= 4 * 4 and plain["rollouts"] == 4 * 4
    assert found["rollout_ratio"] == pytest.approx(omega["rollouts"] / found["monte_carlo"]["rollouts"])
    assert 0.8 < omega["quality"] <= 1.0 and plain["quality"] > found["by_k"]["monte_carlo k=1"]["quality"]
    plain = [found["by_k"][f"monte_carlo k={k}"] for k in bench.ks]
    closeness = [{"rollouts": row["rollouts"], "quality": -row["soft_error"]} for row in plain]
    assert closeness[0]["quality"] < closeness[-1]["quality"] < 0.0
    needed = omega["rollouts"] / found["rollout_ratio_soft"]
    assert closeness[0]["rollouts"] <= needed <= closeness[-1]["rollouts"]
    told = found["estimators"]
    assert told["monte_carlo k=4"]["policy_value"]["rmse"] < told["monte_carlo k=1"]["policy_value"]["rmse"]
    assert told["monte_carlo k=4"]["policy_value"]["rollouts_per_label"] == 4.0
    assert len(found["rollout_ratio_by_seed"]) == 2 and said[0].startswith("6 wrong")
