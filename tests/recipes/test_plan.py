"""clew plan: a world in which easy and hard problems want different strategies, calibrated, saved and searched with."""

from __future__ import annotations

import json
import random

import pytest

from clew import cli
from clew.search import ScriptedPolicy
from clew.tasks import make_task

TASK = make_task("countdown")
JUDGED: dict[tuple[str, int], bool] = {}
EASY, HARD = "majority-vote:n=9", "best-of-n:n=9"


def is_hard(problem):
    return problem.metadata["target"] % 2 == 1


def say(prompt, sampling):
    """On easy problems most samples agree on what is right; on hard ones few do, but the policy knows which."""
    problem, stream = prompt.state.problem, random.Random(prompt.seed)
    numbers = problem.metadata["numbers"]
    wrong = "answer " + " + ".join(map(str, numbers)) + f" + {stream.randrange(2 if is_hard(problem) else 90)}"
    return "answer " + TASK.gold(problem) if stream.random() < (0.35 if is_hard(problem) else 0.6) else wrong


def logprob(prompt, token):
    """Hard problems surprise; the more likely answer is the right one of a hard problem, the wrong one of an easy."""
    hard, at = is_hard(prompt.state.problem), (prompt.state.problem.id, prompt.seed)
    if at not in JUDGED:
        JUDGED[at] = TASK.verify(prompt.state.problem, say(prompt, None)).right
    right = JUDGED[at]
    return (-1.0 if hard else 0.0) - (0.1 if right == hard else 0.4)


@pytest.fixture
def scripted(monkeypatch):
    from clew.recipes import stage

    monkeypatch.setattr(stage, "load_policy", lambda path: ScriptedPolicy(say, logprob=logprob))


def test_the_plan_gives_each_difficulty_its_strategy_and_clew_search_follows_it(scripted, capsys, tmp_path):
    plan = tmp_path / "plan.json"
    arguments = ["--strategies", EASY, HARD, "--budgets", "100000", "--bins", "2", "--problems", "120"]
    assert cli.main(["plan", "--checkpoint", "x", *arguments, "--out", str(plan), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(plan.read_text())
    assert [cell["strategy"] for cell in told["cells"]] == [EASY, HARD]
    (validated,) = told["validated"]
    assert validated["optimal"]["mean"] > validated["fixed"]["mean"] + 0.1

    def accuracy(name, *how):
        common = ["--problems", "100", "--budget-tokens", "100000", "--json", "--out", str(tmp_path / name)]
        assert cli.main(["search", "--checkpoint", "x", *common, *how]) == 0
        return json.loads(capsys.readouterr().out)["search"][0]["accuracy"]["mean"]

    planned = accuracy("planned", "--plan", str(plan))
    assert planned > accuracy("easy", "--strategy", EASY) + 0.05
    assert planned > accuracy("hard", "--strategy", HARD, "--guidance", "mean-logprob") + 0.05


def test_what_is_refused(scripted, capsys, tmp_path):
    there = tmp_path / "there.json"
    there.write_text("{}")
    for arguments, says in (
        (["plan", "--out", str(there)], "exists"),
        (["plan", "--out", str(tmp_path / "a"), "--strategies", "bem"], "beam"),
        (["plan", "--out", str(tmp_path / "a"), "--budgets", "0"], "budgets"),
        (["search", "--out", str(tmp_path / "s"), "--plan", str(there)], "--budget-tokens"),
        (["search", "--out", str(tmp_path / "s"), "--plan", str(there), "--budget-tokens", "9"], "clew plan"),
    ):
        assert cli.main([arguments[0], "--checkpoint", "x", *arguments[1:]]) in (1, 2)
        assert says in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
