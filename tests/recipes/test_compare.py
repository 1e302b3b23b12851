"""clew compare: the numbers of its rows against direct computation, and what it says against the baseline."""

from __future__ import annotations

import json
import random

import pytest

from clew import cli
from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import Sampling
from clew.evaluate import sample_groups
from clew.recipes.compare import against_baseline
from clew.search import ScriptedPolicy
from clew.stats.vote import majority_vote
from clew.tasks import make_task

TASK = make_task("countdown")


def say(prompt, sampling):
    """The gold answer 40 % of the time, else one of three wrong ones."""
    problem, stream = prompt.state.problem, random.Random(prompt.seed)
    if stream.random() < 0.4:
        return "answer " + TASK.gold(problem)
    return "answer " + " + ".join(map(str, problem.metadata["numbers"])) + f" + {stream.randrange(3)}"


@pytest.fixture
def scripted(monkeypatch):
    from clew.recipes import stage

    policy = ScriptedPolicy(say, logprob=lambda prompt, token: -1.0)
    monkeypatch.setattr(stage, "load_policy", lambda path: policy)
    return policy


def row(strategy, size, tokens, mean, spread=0.05):
    rate = {"mean": mean, "low": mean - spread, "high": mean + spread, "n": 100}
    return {"strategy": strategy, "size": size, "cost": {"tokens": tokens}, "accuracy": rate}


def test_rows_are_those_of_direct_computation(scripted, capsys, tmp_path):
    out = tmp_path / "compared.json"
    arguments = ["--strategies", "majority-vote:n=*", "first-right:n=8", "--sizes", "1", "6", "--problems", "40"]
    assert cli.main(["compare", "--checkpoint", "x", *arguments, "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    assert [(r["strategy"], r["size"]) for r in found["rows"]] == [
        ("majority-vote:n=*", 1),
        ("majority-vote:n=*", 6),
        ("first-right:n=8", 0),
    ]
    problems = TASK.problems("test", 40, derive_seed(0, "held out"))
    groups = sample_groups(
        scripted, TASK, problems, n=6, sampling=Sampling(max_tokens=288), seed=derive_seed(0, "evaluation"), stage="x"
    )
    for at, n in ((0, 1), (1, 6)):
        winners = [majority_vote([t.verdict.answer for t in g.trajectories[:n]]) for g in groups]
        right = [
            any(t.verdict.right and t.verdict.answer == winner for t in g.trajectories[:n])
            for g, winner in zip(groups, winners, strict=True)
        ]
        assert found["rows"][at]["accuracy"]["mean"] == pytest.approx(sum(right) / 40)
        sampled = sum(len(t.completion.tokens) for g in groups for t in g.trajectories[:n])
        assert found["rows"][at]["cost"]["tokens_sampled"] == pytest.approx(sampled / 40)
    assert found["rows"][1]["num_failed"] == 0


def test_the_share_of_tokens_and_what_equal_tokens_reach():
    rows = [
        row("vote", 1, 100, 0.5),
        row("vote", 8, 800, 0.70),
        row("vote", 16, 1600, 0.69),
        row("guided", 2, 200, 0.71),
        row("guided", 4, 700, 0.9),
        row("guided", 64, 9000, 0.99),
        row("weak", 1, 100, 0.3),
        row("dear", 1, 5000, 0.95),
    ]
    found = against_baseline(rows)
    assert list(found) == ["guided", "weak", "dear"]
    assert found["guided"]["token_share"] == 0.25
    assert found["guided"]["at_equal_tokens"]["mean"] == 0.9
    assert found["guided"]["better"]
    assert found["weak"] == {"token_share": None, "at_equal_tokens": rows[6]["accuracy"], "better": False}
    assert found["dear"] == {"token_share": 5000 / 800, "at_equal_tokens": None, "better": False}


def test_the_table_says_who_needs_how_much(scripted, capsys):
    arguments = ["--strategies", "majority-vote:n=*", "first-right:n=*", "--sizes", "8", "--problems", "20"]
    assert cli.main(["compare", "--checkpoint", "x", *arguments]) == 0
    shown, progress = capsys.readouterr()
    assert "first-right:n=*: the baseline's best accuracy for" in " ".join(shown.split())
    assert "majority-vote:n=* 8: " in progress


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--strategies", "majority-vot:n=*"], "majority-vote"),
        (["--strategies", "best-of-n:n=*@proces-reward"], "process-reward"),
        (["--strategies", "best-of-n:n=*@process-reward"], "clew reward train"),
        (["--sizes", "0"], "sizes"),
    ],
)
def test_what_is_refused(scripted, capsys, arguments, says):
    assert cli.main(["compare", "--checkpoint", "x", "--problems", "4", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_what_is_no_strategy_is_refused_before_the_first_search(scripted, capsys):
    names = ["majority-vote:n=*", "dvts:n=*,m=3@mean-logprob"]
    arguments = ["--checkpoint", "x", "--problems", "4", "--sizes", "2", "--strategies", *names]
    assert cli.main(["compare", *arguments]) == InvalidValue.exit_status
    told = capsys.readouterr().err
    assert "n is 2" in told and "majority-vote" not in told
