"""clew data: from run directories to files, and what it says when there is nothing to learn from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from one_token_world import learner

from clew import cli
from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.task import split_of
from clew.core.types import (
    Completion,
    FinishReason,
    Group,
    Message,
    Outcome,
    Problem,
    Provenance,
    Reward,
    Sampling,
    State,
    Trajectory,
    Verdict,
)
from clew.data.export import load_rows
from clew.data.searches import load_tree, save_tree
from clew.data.store import TrajectoryStore
from clew.recipes.data_sources import Source
from clew.recipes.preference_data import pairs_of_file, pairs_of_run
from clew.report.tree_data import TreeNotes, save_notes, step_texts
from clew.search import TabularPolicy, run_searches
from clew.search.mcts import Mcts
from clew.search.tree import Tree
from clew.tasks import make_task

POLICY = TabularPolicy(("end", "a", "b", "c;"), lambda state: [0.2, 0.3, 0.2, 0.3])


class Odd:
    def verify(self, problem, text):
        return Verdict(Outcome.RIGHT, 1.0) if text.count("a") % 2 else Verdict(Outcome.WRONG, 0.0)


def save(path, name, tree, text, config, **notes):
    for room in ("trees", "notes"):
        (path / room).mkdir(parents=True, exist_ok=True)
    save_tree(path / "trees" / f"{name}.json", tree)
    save_notes(path / "notes" / f"{name}.json", TreeNotes(texts=step_texts(tree, text), strategy="mcts-uct", **notes))
    (path / "config.json").write_text(json.dumps(config))


def searched_into(path, numbers):
    """A run of MCTS over problems of these numbers."""
    sampling = Sampling(max_tokens=6, step_ends=(";",))
    strategy = Mcts(iterations=24, width=3, max_depth=4, sampling=sampling, rollout=Sampling(max_tokens=12))
    for i in numbers:
        problem = Problem(f"words:{i}", "words", (Message("user", f"write {i}"),))
        (outcome,) = run_searches(strategy, [problem], POLICY, task=Odd(), seed=i)
        save(path, f"{i:04}-words_{i}", outcome.result.tree, POLICY.text, {"task": "countdown", "split": "train"})
    return path


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    return searched_into(tmp_path_factory.mktemp("runs") / "mcts", range(4))


RIGHT = "(7 - 3) * (11 - 5)"


def hand_made(path, texts, *, split="test"):
    """A run of one Countdown problem whose finished responses, `texts`, nobody judged."""
    problem = make_task("countdown").problem({"numbers": [3, 5, 7, 11], "target": 24})
    tree, written = Tree(problem), {(): ""}
    for token, text in enumerate(texts, 1):
        last = Completion((token, 0), None, FinishReason.STOP)
        tree.add(0, State(problem).extend(last), last)
        written[(token, 0)] = text
    save(path, "0000-countdown", tree, lambda state: written[state.tokens], {"task": "countdown", "split": split})
    return path


def trajectory(problem, token, right, stage):
    last = Completion((token, 0), (-0.5, -0.25), FinishReason.STOP, policy_version="p+1")
    verdict = Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right))
    state, place = State(problem).extend(last), Provenance("sample", None, stage)
    return Trajectory(state, f"text {token}", verdict, Reward(float(right)), Cost(), 0, last, provenance=place)


def problem_of(split, at=0):
    names = [f"words:{i}" for i in range(200) if split_of(f"words:{i}") == split]
    return Problem(names[at], "words", (Message("user", names[at]),))


@pytest.fixture
def learnt(tmp_path):
    """A run that learnt from two training problems and measured itself on a third."""
    path = tmp_path / "rl"
    path.mkdir()
    with TrajectoryStore(path / "trajectories.sqlite") as store:
        for at in range(2):
            problem = problem_of("train", at)
            made = [trajectory(problem, token, token % 2, "rl") for token in (1, 2, 3, 3)]
            store.add("rl", [Group(problem, tuple(made))])
        held_out = problem_of("test")
        store.add("rl", [Group(held_out, (trajectory(held_out, 1, True, "rl"),))])
    return path


def told(capsys, run, what, out, *options):
    status = cli.main(["data", "--run", str(run), "--what", what, "--out", str(out), "--json", *options])
    shown, said = capsys.readouterr()
    return status, (json.loads(shown) if status == 0 else None), said


def refusal(capsys, run, what, out, *options):
    status, _, said = told(capsys, run, what, out, *options)
    assert status > 0
    lines = said.strip().splitlines()
    assert lines[0].startswith("clew: ")
    assert lines[-2].startswith("  accepted: ")
    assert lines[-1].startswith("  what to do: ")
    return said


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("what", ["search", "expert", "solutions", "pairs", "steps", "targets"])
def test_every_kind_from_trees(searched, tmp_path, capsys, what, kind):
    out = tmp_path / f"data.{kind}"
    status, summary, said = told(capsys, searched, what, out)
    rows = load_rows(out)
    assert (status, said) == (0, "")
    assert summary["rows"] == len(rows) > 0
    assert summary["problems"] == len({row["problem"] for row in rows})
    assert summary["columns"] == list(rows[0])
    assert summary["problems_read"] == {"train": 4}
    trees = {file.stem: load_tree(file) for file in (searched / "trees").iterdir()}
    for row in rows:
        tree = trees[row["tree"]]
        assert tree.problem.id == row["problem"]
        check_against_node(what, row, tree)


def check_against_node(what, row, tree):
    """The tokens and text of a row are those of the node that it names."""
    tokens = tree.states[row["node"]].tokens
    match what:
        case "search":
            assert tuple(row["prefix_tokens"] + row["completion_tokens"]) == tokens
            assert row["prompt"] + row["completion"] == f"{tree.problem.prompt[0].content}\n{written(tokens)}"
        case "expert" | "solutions":
            assert tuple(row["completion_tokens"]) == tokens
            assert row["completion"] == [{"role": "assistant", "content": written(tokens)}]
            assert (row["outcome"] == "right") == (Odd().verify(None, written(tokens)).right)
        case "pairs":
            other = tree.states[row["rejected_node"]].tokens
            assert tuple(row["prefix_tokens"] + row["chosen_tokens"]) == tokens
            assert tuple(row["prefix_tokens"] + row["rejected_tokens"]) == other
            assert row["margin"] == pytest.approx(row["chosen_value"] - row["rejected_value"])
        case "steps":
            steps = tuple(token for step in row["completions_tokens"] for token in step)
            assert steps == tokens[: len(steps)]
            assert "".join(row["completions"]) == written(steps)
        case "targets":
            assert tuple(row["prefix_tokens"]) == tokens
            assert sum(row["probabilities"]) == pytest.approx(1.0)


def written(tokens):
    return POLICY.text(State(Problem("", "", ()), tokens))


def test_a_loop_is_exported_with_the_searches_of_all_its_rounds(searched, tmp_path, capsys):
    """Each row names its round; what two rounds found alike is one row; what measured the policy is not in it."""
    loop = tmp_path / "loop"
    searched_into(loop / "searches" / "round-01", range(4))
    searched_into(loop / "searches" / "round-02", (2, 9))
    held_out = problem_of("test")
    with TrajectoryStore(loop / "trajectories.sqlite") as store:
        store.add("round-01", [Group(held_out, (trajectory(held_out, 1, True, "round-01"),))])
    (loop / "config.json").write_text(json.dumps({"task": "countdown"}))
    status, alone, _ = told(capsys, searched, "search", tmp_path / "alone.jsonl")
    assert status == 0
    status, summary, said = told(capsys, loop, "search", tmp_path / "loop.jsonl")
    assert (status, said) == (0, "")
    rows = load_rows(tmp_path / "loop.jsonl")
    of_new = [row for row in rows if row["problem"] == "words:9"]
    assert {row["run"] for row in of_new} == {str(loop / "searches" / "round-02")}
    assert {row["run"] for row in rows if row not in of_new} == {str(loop / "searches" / "round-01")}
    assert of_new
    assert len(rows) == alone["rows"] + len(of_new)
    assert summary["problems_read"] == {"train": 6}, "the split that each search was given"
    assert pairs_of_run(loop, level="step", margin=0.0, cap=None, seed=0)


def test_experts_are_the_shortest_right_ones(searched, tmp_path, capsys):
    out = tmp_path / "data.jsonl"
    _, summary, _ = told(capsys, searched, "expert", out)
    rows = load_rows(out)
    assert len(rows) == summary["problems"]
    for row in rows:
        tree = load_tree(searched / "trees" / f"{row['tree']}.json")
        right = [tree.states[node].tokens for node, verdict in tree.verdicts.items() if verdict.right]
        assert len(row["completion_tokens"]) == min(map(len, right))
    assert summary["rows"] + summary["duplicates_dropped"] + summary["dropped_by_cap"] == sum(
        verdict.right and load.states[node].finished
        for load in (load_tree(file) for file in (searched / "trees").iterdir())
        for node, verdict in load.verdicts.items()
    )


def test_a_cap_a_problem(searched, tmp_path, capsys):
    for what in ("search", "solutions", "pairs", "steps", "targets"):
        all_rows, capped, again = tmp_path / "all.jsonl", tmp_path / "capped.jsonl", tmp_path / "again.jsonl"
        _, every, _ = told(capsys, searched, what, all_rows, "--overwrite")
        _, summary, _ = told(capsys, searched, what, capped, "--cap", "2", "--overwrite")
        told(capsys, searched, what, again, "--cap", "2", "--overwrite")
        assert capped.read_bytes() == again.read_bytes()
        counts = {}
        for row in load_rows(capped):
            counts[row["problem"]] = counts.get(row["problem"], 0) + 1
        assert max(counts.values()) == 2
        assert summary["rows"] + summary["dropped_by_cap"] == every["rows"]


def test_a_margin_and_visits(searched, tmp_path, capsys):
    out = tmp_path / "data.jsonl"
    _, every, _ = told(capsys, searched, "pairs", out, "--every")
    _, fewer, _ = told(capsys, searched, "pairs", out, "--every", "--margin", "0.3", "--min-visits", "2", "--overwrite")
    assert 0 < fewer["rows"] < every["rows"]
    assert min(row["margin"] for row in load_rows(out)) >= 0.3
    assert min(min(row["chosen_visits"], row["rejected_visits"]) for row in load_rows(out)) >= 2


def test_solutions_of_trees_pair_up(searched, tmp_path, capsys):
    out = tmp_path / "data.jsonl"
    told(capsys, searched, "pairs", out, "--level", "solution", "--cap", "3")
    for row in load_rows(out):
        tree = load_tree(searched / "trees" / f"{row['tree']}.json")
        assert tree.verdicts[row["node"]].right
        assert not tree.verdicts[row["rejected_node"]].right


@pytest.mark.parametrize(("what", "rows"), [("search", 6), ("expert", 2), ("solutions", 6), ("pairs", 4)])
def test_every_kind_from_a_store_of_training_problems_alone(learnt, tmp_path, capsys, what, rows):
    out = tmp_path / "data.jsonl"
    status, summary, said = told(capsys, learnt, what, out)
    assert (status, said) == (0, "")
    assert (summary["rows"], summary["problems"], summary["problems_of_other_splits"]) == (rows, 2, 1)
    assert summary["problems_read"] == {"train": 2}
    assert {split_of(row["problem"]) for row in load_rows(out)} == {"train"}
    assert {row["stage"] for row in load_rows(out)} == {"rl"}


def test_other_splits_are_given_with_a_warning(learnt, tmp_path, capsys):
    out = tmp_path / "data.jsonl"
    _, summary, said = told(capsys, learnt, "expert", out, "--split", "test")
    assert summary["rows"] == 1
    assert "to measure with" in said
    assert "1 test" in said


def test_the_task_judges_what_nobody_has(tmp_path, capsys):
    run = hand_made(tmp_path / "run", ["1 + 1", RIGHT, "no idea"])
    out = tmp_path / "data.jsonl"
    assert "--judge" in refusal(capsys, run, "expert", out)
    # Options that steps do not have are no advice.
    unvalued = refusal(capsys, run, "steps", out)
    assert "clew reward label" in unvalued and "--min-visits" not in unvalued
    _, summary, _ = told(capsys, run, "solutions", out, "--judge")
    assert summary["judged_now"] == 3
    assert [(row["completion"][0]["content"], row["label"]) for row in load_rows(out)] == [
        ("1 + 1", False),
        (RIGHT, True),
        ("no idea", False),
    ]


def test_the_judgement_of_the_answer_is_known(tmp_path, capsys):
    run = hand_made(tmp_path / "run", ["1 + 1", RIGHT])
    (tree,) = (one.tree for one in Source(run=run).trees())
    judged = trajectory(tree.problem, 2, True, "search")
    judged = replace(judged, state=tree.states[2], provenance=Provenance("beam", 2, "search"))
    with TrajectoryStore(run / "trajectories.sqlite") as store:
        store.add("search", [Group(tree.problem, (judged,))])
    _, summary, _ = told(capsys, run, "expert", tmp_path / "data.jsonl")
    assert (summary["rows"], summary["judged_now"], summary["finished_without_judgement"]) == (1, 0, 1)


def test_what_is_refused(searched, learnt, tmp_path, capsys):
    out = tmp_path / "data.jsonl"
    assert "neither trees nor trajectories" in refusal(capsys, tmp_path, "expert", out)
    assert "is no directory" in refusal(capsys, tmp_path / "none", "expert", out)
    assert "no trees" in refusal(capsys, learnt, "targets", out)
    assert "no trees" in refusal(capsys, learnt, "pairs", out, "--level", "step")
    assert "'.csv'" in refusal(capsys, searched, "expert", tmp_path / "data.csv")
    assert "cap is 0" in refusal(capsys, searched, "expert", out, "--cap", "0")
    assert "margin" in refusal(capsys, searched, "pairs", out, "--margin", "-1")
    assert "--margin for --what expert" in refusal(capsys, searched, "expert", out, "--margin", "0.5")
    assert "--min-visits for --what steps" in refusal(capsys, searched, "steps", out, "--min-visits", "2")
    assert "--stage" in refusal(capsys, searched, "expert", out, "--stage", "search")
    assert "--judge" in refusal(capsys, learnt, "expert", out, "--judge")
    assert "--min-visits" in refusal(capsys, searched, "pairs", out, "--min-visits", "1000")
    assert "stage" in refusal(capsys, learnt, "expert", out, "--stage", "rll")
    assert "--form" in refusal(capsys, searched, "steps", out, "--form", "conversation")
    assert "directory does not exist" in refusal(capsys, searched, "steps", tmp_path / "none" / "data.jsonl")
    assert "of other splits" in refusal(capsys, searched, "expert", out, "--split", "test")
    assert list(tmp_path.glob("data*")) == []


def test_no_right_solution_is_an_error(tmp_path, capsys):
    run = hand_made(tmp_path / "run", ["1 + 1"])
    said = refusal(capsys, run, "expert", tmp_path / "data.jsonl", "--judge")
    assert "at least one right solution" in said


def test_an_existing_file_is_kept(searched, tmp_path, capsys):
    out = tmp_path / "data.jsonl"
    out.write_text("mine")
    assert "--overwrite" in refusal(capsys, searched, "expert", out)
    assert out.read_text() == "mine"
    told(capsys, searched, "expert", out, "--overwrite")
    assert out.read_text() != "mine"


def test_a_person_is_told_on_one_screen(searched, tmp_path, capsys):
    out = tmp_path / "data.parquet"
    assert cli.main(["data", "--run", str(searched), "--what", "pairs", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "duplicates dropped" in shown
    assert "chosen_tokens" in shown


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_pairs_of_steps_are_read_by_dpo_as_they_are_written(searched, tmp_path, capsys, kind):
    who, out = learner(), tmp_path / f"pairs.{kind}"
    told(capsys, searched, "pairs", out)

    def seen(pairs):
        return {(pair.problem.prompt, pair.prefix, pair.chosen, pair.rejected, pair.margin) for pair in pairs}

    of_run = pairs_of_run(searched, level="step", margin=0.0, cap=None, seed=0)
    assert any(pair.prefix for pair in of_run)
    assert seen(pairs_of_file(out, who)) == seen(of_run)
    told(capsys, searched, "pairs", out, "--form", "text", "--overwrite")
    with pytest.raises(InvalidValue, match="--form conversation"):
        pairs_of_file(out, who)
