"""clew search: what it writes, that a stopped run ends as one that was not, what it refuses, what it prints."""

from __future__ import annotations

import json
import random
import re
from statistics import fmean

import pytest

from clew import cli
from clew.core.seeds import derive_seed
from clew.core.types import Sampling
from clew.data.searches import load_searches, load_tree
from clew.data.store import TrajectoryStore
from clew.report.data import read_run
from clew.report.tree_data import load_notes
from clew.search import BestOfN, ScriptedPolicy, run_searches
from clew.search.record import StopReason
from clew.tasks import make_task

TASK = make_task("countdown")
PROBLEMS = 10
MCTS = "mcts:iterations=6,width=2,max_depth=4"


def say(prompt, sampling):
    """One thought a line, then an answer that is right about every other time."""
    problem, stream = prompt.state.problem, random.Random(prompt.seed)
    if sampling.step_ends and stream.random() < 0.7:
        return f"try {stream.randrange(5)}\nmore"
    wrong = " + ".join(map(str, problem.metadata["numbers"])) + " + 1"
    return "answer " + (TASK.gold(problem) if stream.random() < 0.4 else wrong)


class Counting(ScriptedPolicy):
    """A scripted policy that counts, can be interrupted at some call, and fails on a `bad` problem or on all."""

    __slots__ = ("at", "bad", "calls", "tokens")

    def __init__(self):
        super().__init__(say, logprob=lambda prompt, token: -1.0)
        self.calls, self.tokens, self.at, self.bad = 0, 0, None, ()

    def sample(self, prompts, sampling):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        if any(prompt.state.problem.id in self.bad for prompt in prompts):
            raise RuntimeError("out of luck")
        completions = ScriptedPolicy.sample(self, prompts, sampling)
        self.tokens += sum(len(completion.tokens) for completion in completions)
        return completions


@pytest.fixture
def policy(monkeypatch):
    from clew.recipes import stage

    made = Counting()
    monkeypatch.setattr(stage, "load_policy", lambda path: made)
    return made


@pytest.fixture
def search(capsys, tmp_path):
    def run(*arguments, out="run"):
        status = cli.main(["search", "--checkpoint", "x", "--out", str(tmp_path / out), *map(str, arguments)])
        out_text, err = capsys.readouterr()
        return status, out_text, err

    run.path = tmp_path / "run"
    return run


def mcts(*more):
    return ("--strategy", MCTS, "--problems", PROBLEMS, "--together", 4, *more)


def timeless(value):
    """`value` without what differs between two runs of the same search: times, and which call read a prompt."""
    if isinstance(value, dict):
        timed = {"seconds", "total_seconds", "peak_rss_mib", "tokens", "prompt_tokens_read", "prompt_tokens_cached"}
        return {k: timeless(v) for k, v in value.items() if k not in timed}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def contents(path):
    """Everything in a run directory that its end must have in common with that of any other way there."""
    trees = {file.name: load_tree(file) for file in sorted((path / "trees").iterdir())}
    notes = {file.name: load_notes(file) for file in sorted((path / "notes").iterdir())}
    with TrajectoryStore(path / "trajectories.sqlite") as store:
        answers = [(g.problem.id, g.trajectories[0].text, g.trajectories[0].verdict) for g in store.groups("search")]
    return {
        "chosen": {name: (n.chosen, n.outcome, n.answer, n.texts, n.stop) for name, n in notes.items()},
        "visits": {name: (list(t.visits), list(t.parent), list(t.made)) for name, t in trees.items()},
        "answers": answers,
        "summary": timeless(json.loads((path / "summary.json").read_text())),
        "metrics": [timeless(json.loads(line)) for line in (path / "metrics.jsonl").read_text().splitlines()],
    }


def test_a_run_holds_everything_about_every_problem(policy, search):
    status, out, err = search(*mcts("--json"))
    assert status == 0
    path, problems = search.path, TASK.problems("test", PROBLEMS, derive_seed(0, "held out"))
    assert {"config.json", "environment.json", "metrics.jsonl", "summary.json"} <= {p.name for p in path.iterdir()}
    found = json.loads(out)
    assert found["run"] == str(path)
    (entry,) = found["search"]
    assert (entry["strategy"], entry["guidance"]) == ("mcts-uct", "verifier")
    trees = [load_tree(file) for file in sorted((path / "trees").iterdir())]
    assert [tree.problem.id for tree in trees] == [problem.id for problem in problems]
    saved = [s for file in sorted((path / "searches").iterdir()) for s in load_searches(file).searches]
    assert [s.record.problem.id for s in saved] == [problem.id for problem in problems]
    # The meter against what the policy itself counted.
    assert entry["cost"]["tokens_sampled"] * PROBLEMS == pytest.approx(policy.tokens)
    # The chosen answers, judged here once more.
    right = []
    for file, tree in zip(sorted((path / "notes").iterdir()), trees, strict=True):
        notes = load_notes(file)
        text = policy.text(tree.states[notes.chosen])
        assert "".join(notes.texts[node] for node in tree.path(notes.chosen)) == text
        verdict = TASK.verify(tree.problem, text)
        assert (notes.outcome, notes.answer) == (verdict.outcome.value, verdict.answer)
        right.append(verdict.right)
    assert entry["accuracy"]["mean"] == pytest.approx(fmean(right))
    assert sum(right) > 0
    with TrajectoryStore(path / "trajectories.sqlite") as store:
        groups = list(store.groups("search"))
    assert [g.problem.id for g in groups] == [problem.id for problem in problems]
    assert [g.trajectories[0].verdict.right for g in groups] == right
    assert all(g.trajectories[0].completion.tokens == g.trajectories[0].state.tokens for g in groups)
    assert "search" in err and read_run(path).summary.search[0].accuracy.n == PROBLEMS


def test_the_check_of_the_answer_is_not_in_the_cost(policy, search):
    (entry,) = json.loads(search("--strategy", "majority-vote:n=3", "--problems", 4, "--json")[1])["search"]
    assert entry["cost"]["verifier_calls"] == 0
    assert entry["guidance"] is None
    assert entry["cost"]["model_calls"] == 3


def test_it_is_the_search_that_python_runs(policy, search):
    _, out, _ = search("--strategy", "best-of-n:n=3", "--problems", 6, "--together", 2, "--json")
    (entry,) = json.loads(out)["search"]
    problems = TASK.problems("test", 6, derive_seed(0, "held out"))
    strategy = BestOfN(n=3, sampling=Sampling(max_tokens=288))
    outcomes = run_searches(strategy, problems, Counting(), task=TASK, seed=derive_seed(0, "evaluation"))
    right = [TASK.verify(o.problem, policy.text(o.result.chosen)).right for o in outcomes]
    assert entry["accuracy"]["mean"] == pytest.approx(fmean(right))
    assert entry["cost"]["tokens_sampled"] == pytest.approx(fmean(o.cost.tokens_sampled for o in outcomes))


@pytest.mark.parametrize("at", [1, 5, 14])
def test_ctrl_c_and_resume_end_as_if_nothing_had_happened(policy, search, at, tmp_path, capsys):
    assert search(*mcts(), out="straight")[0] == 0
    policy.calls, policy.at, straight = 0, at, policy.tokens
    status, out, err = search(*mcts())
    assert (status, out) == (130, "")
    assert "what to do: give the same command with --resume" in err
    assert not (search.path / "summary.json").exists()
    assert search(*mcts("--resume"))[0] == 0
    assert contents(search.path) == contents(tmp_path / "straight")
    # What had been answered was not sampled again.
    assert policy.tokens == 2 * straight


def test_a_resumed_run_that_is_done_asks_for_nothing(policy, search):
    search(*mcts())
    before, calls = contents(search.path), policy.calls
    assert search(*mcts("--resume"))[0] == 0
    assert policy.calls == calls
    assert contents(search.path) == before


def test_a_kill_before_a_batch_was_done_leaves_no_trace(policy, search, tmp_path):
    search(*mcts(), out="straight")
    search(*mcts())
    (search.path / "stages" / "search-0001.json").unlink()
    (search.path / "summary.json").unlink()
    assert search(*mcts("--resume"))[0] == 0
    resumed, straight = contents(search.path), contents(tmp_path / "straight")
    assert sorted(resumed.pop("answers"), key=str) == sorted(straight.pop("answers"), key=str)
    assert sorted(resumed.pop("metrics"), key=str) == sorted(straight.pop("metrics"), key=str)
    assert resumed == straight


def test_failures_are_counted_told_and_tried_again(policy, search, tmp_path):
    search(*mcts(), out="straight")
    policy.bad = {TASK.problems("test", PROBLEMS, derive_seed(0, "held out"))[0].id}
    status, out, err = search(*mcts("--json"))
    (entry,) = json.loads(out)["search"]
    assert status == 0
    assert entry["num_failed"] == 1
    assert entry["accuracy"]["n"] == PROBLEMS - 1
    assert "1 of 10 searches failed" in err and "out of luck" in err and "what to do: " in err
    policy.bad = ()
    status, out, err = search(*mcts("--json", "--resume"))
    (entry,) = json.loads(out)["search"]
    assert (status, entry["num_failed"], entry["accuracy"]["n"]) == (0, 0, PROBLEMS)
    assert contents(search.path)["chosen"] == contents(tmp_path / "straight")["chosen"]


def test_when_all_fail_so_does_the_command(policy, search):
    policy.bad = {problem.id for problem in TASK.problems("test", 3, derive_seed(0, "held out"))}
    status, out, err = search("--problems", 3)
    assert status == 1
    assert "3 of 3 searches failed" in err
    assert "none was judged" in out


def test_budgets_bind_and_are_told(policy, search):
    _, out, _ = search(*mcts("--budget-calls", 5, "--json"))
    (entry,) = json.loads(out)["search"]
    assert entry["num_stopped_by_budget"] > 0
    for file in (search.path / "searches").iterdir():
        for one in load_searches(file).searches:
            # One request may cross the ceiling; the largest asks for `width` completions, or one rollout.
            assert one.record.cost.model_calls < 5 + 2
    assert any(s.stop is StopReason.BUDGET for s in load_searches(search.path / "searches" / "0000.jsonl").searches)


def test_table_is_one_screen_with_the_numbers_of_the_json(policy, search):
    (entry,) = json.loads(search(*mcts("--json"), out="again")[1])["search"]
    _, out, _ = search(*mcts())
    out = out.replace("\xa0", " ")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100 and len(lines) < 40
    rate = entry["accuracy"]
    assert f"{100 * rate['mean']:.1f} % ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})" in out
    (sampled,) = (line for line in lines if line.strip().startswith("sampled"))
    assert sampled.split()[-1] == f"{entry['cost']['tokens_sampled']:,.0f}"
    assert "clew tree" in out


def test_steps_end_where_one_says(policy, search):
    search(*mcts("--step-ends", "\\n"))
    tree = load_tree(sorted((search.path / "trees").iterdir())[0])
    finishes = {completion.finish.value for completion in tree.completions if completion is not None}
    assert finishes == {"step", "stop"}
    search("--strategy", MCTS, "--problems", 2, "--step-ends", "", out="whole")
    tree = load_tree(sorted((search.path.parent / "whole" / "trees").iterdir())[0])
    assert max(tree.depth) == 1


def test_guidance_is_used_and_told(policy, search):
    status, out, _ = search("--strategy", "beam:n=4,m=2", "--problems", 3, "--json")
    (entry,) = json.loads(out)["search"]
    assert (status, entry["guidance"], entry["cost"]["verifier_calls"]) == (0, "mean-logprob", 0)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--strategy", "mtcs"], 2, "did you mean 'mcts'?"),
        (["--strategy", "mcts:widht=3"], 2, "did you mean 'width'?"),
        (["--guidance", "verifer"], 2, "did you mean 'verifier'?"),
        (["--strategy", "majority-vote", "--guidance", "verifier"], 2, "leave --guidance out"),
        (["--task", "countdwn"], 2, "did you mean 'countdown'?"),
        (["--problems", "0"], 2, "problems is 0"),
        (["--together", "0"], 2, "together is 0"),
        (["--max-step-tokens", "0"], 2, "max_step_tokens is 0"),
        (["--max-tokens", "0"], 2, "max_tokens is 0"),
        (["--temperature", "-1"], 2, "temperature is -1.0"),
        (["--budget-tokens", "0"], 2, "budget tokens is 0"),
        (["--budget-calls", "-1"], 2, "budget calls is -1"),
        (["--budget-seconds", "0"], 2, "budget seconds is 0"),
        (["--problems", "9999999"], 2, "number of problems"),
        (["--resume"], 1, "cannot resume"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else None,
)
def test_what_is_refused_is_refused_before_the_model_is_loaded(arguments, status, says, monkeypatch, search):
    from clew.recipes import stage

    monkeypatch.setattr(stage, "load_policy", lambda path: pytest.fail("loaded"))
    found, out, err = search(*arguments)
    assert found == status
    assert says in err
    assert "accepted: " in err and "what to do: " in err
    assert out == ""
    assert not search.path.exists()


def test_a_run_is_not_overwritten_and_not_mixed(policy, search):
    search(*mcts())
    assert search(*mcts())[0] == 1
    status, _, err = search(*mcts("--resume", "--seed", 1))
    assert status == 1 and "seed: 0 -> 1" in err
    assert search(*mcts("--overwrite", "--seed", 1))[0] == 0


def test_a_mistyped_checkpoint_leaves_nothing_behind(search):
    status, _, err = search("--problems", 2)
    assert status == 1
    assert "there is no checkpoint at x" in err
    assert not search.path.exists()


def test_names_of_files_are_safe():
    from clew.core.types import Problem
    from clew.recipes.search_batches import name_of

    assert re.fullmatch(r"[\w=+.-]+", name_of(3, Problem("../a b/ü:\x00" * 40, "t", ())))
