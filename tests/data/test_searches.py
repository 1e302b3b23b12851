from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.cost import Cost
from clew.core.errors import CheckpointError, InvalidValue
from clew.core.protocols import Decode
from clew.core.types import Completion, FinishReason, Message, Outcome, Problem, Sampling, Span, State, Verdict
from clew.data.searches import load_records, load_searches, load_tree, save_records, save_searches, save_tree
from clew.search import (
    BestOfN,
    MeanLogProb,
    Roles,
    ScriptedPolicy,
    SearchRecord,
    StopReason,
    continue_searches,
)
from clew.search.grow import extract_nodes, result, sample_children, score_nodes, tell, verify_nodes
from clew.search.record import Answers, Encoded, Samples, Scores, Texts, Verdicts
from clew.search.tree import Tree

PROBLEM = Problem("p:1", "toy", (Message("user", 'gu"ess\n'), Message("assistant", "é\ud800")), {"n": [1, 2.5, None]})


@dataclass(frozen=True)
class Everything:
    """Every kind of request, and a tree with told and reopened states."""

    name: str = "everything"

    def run(self, problem):
        tree = Tree(problem)
        grown = [0]
        for _ in range(3):
            rows = yield from sample_children(tree, grown, 2, Sampling(max_tokens=6))
            children = [node for row in rows for node in row]
            scores = yield from score_nodes(tree, children)
            yield from verify_nodes(tree, children)
            yield from extract_nodes(tree, children)
            best = children[scores.index(max(scores))]
            tree.backup(best, max(scores))
            texts = yield Decode((tree.states[best],))
            grown = yield from tell(tree, [best], [f"wait {len(texts[0])}"])
        return result(tree, grown[0])


@dataclass(frozen=True)
class Task:
    def verify(self, problem, text):
        right = text.endswith(problem.id[-1])
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), text[-1:] or None, "last")

    def extract(self, text):
        return text[-1:] or None


def script(prompt, sampling):
    return "x" * (prompt.seed % 5) + str(prompt.seed % 3)


def make_roles():
    policy = ScriptedPolicy(script, logprob=lambda prompt, token: -1.0 / (1 + prompt.seed % 97 + token))
    return Roles(policy, Task(), MeanLogProb())


PROBLEMS = [Problem(f"toy:{i}", "toy", (Message("user", "x"),), {"i": i}) for i in range(4)]
RECORDS = [SearchRecord(problem, 2**62 + 5) for problem in PROBLEMS]
STRATEGIES = [Everything(), BestOfN(n=7, guide="scorer", per_request=2)]


def columns(tree):
    """Everything a tree holds, in a form that compares NaN as equal."""
    held = {}
    for name in Tree.__slots__:
        value = getattr(tree, name)
        held[name] = [repr(x) for x in value] if name in ("prior", "value_sum", "score") else value
        if name in ("parent", "depth", "visits", "pending", "made"):
            held[name] = list(value)
    return held


def timeless(outcome):
    tree = outcome.result.tree
    return (
        replace(outcome.result, tree=None),
        None if tree is None else columns(tree),
        replace(outcome.cost, seconds=0.0),
        outcome.stop,
        outcome.record.answers,
    )


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)
def test_saved_at_any_round_it_goes_on_to_the_same_result(strategy, tmp_path):
    through = continue_searches(strategy, RECORDS, make_roles())
    rounds = max(len(o.record.answers) for o in through)
    assert rounds >= 5
    for k in range(rounds + 1):
        paused = continue_searches(strategy, RECORDS, make_roles(), max_rounds=k)
        save_searches(tmp_path / "s.jsonl", paused)
        records = load_records(tmp_path / "s.jsonl")
        assert records == [o.record for o in paused]
        resumed = continue_searches(strategy, records, make_roles())
        assert [timeless(o) for o in resumed] == [timeless(o) for o in through]
        assert all(o.stop is StopReason.FINISHED for o in resumed)


FRESH = """
import sys, json
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_searches as t
from clew.data.searches import load_records
outcomes = t.continue_searches(t.Everything(), load_records(Path(sys.argv[1])), t.make_roles())
print(json.dumps([[repr(t.timeless(o))] for o in outcomes]))
"""


def test_a_fresh_process_goes_on_to_the_same_result(tmp_path):
    paused = continue_searches(Everything(), RECORDS, make_roles(), max_rounds=6)
    save_searches(tmp_path / "s.jsonl", paused)
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", FRESH, str(tmp_path / "s.jsonl"), here]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    through = continue_searches(Everything(), RECORDS, make_roles())
    assert json.loads(answer.stdout) == [[repr(timeless(o))] for o in through]


def test_what_stopped_a_search_and_what_it_is_about_are_kept(tmp_path):
    class Down:
        name = "down"

        def score(self, states, completions):
            raise OSError("down")

        def cost_tokens(self, states):
            return 0

    outcomes = continue_searches(STRATEGIES[1], RECORDS, replace(make_roles(), scorer=Down()))
    save_searches(tmp_path / "s.jsonl", outcomes, about={"strategy": STRATEGIES[1], "seed": 3})
    saved = load_searches(tmp_path / "s.jsonl")
    assert [(s.record, s.stop, s.error) for s in saved.searches] == [(o.record, o.stop, o.error) for o in outcomes]
    assert {s.stop for s in saved.searches} == {StopReason.FAILED}
    assert saved.about["strategy"]["n"] == 7
    assert saved.about["seed"] == 3
    save_records(tmp_path / "r.jsonl", [o.record for o in outcomes])
    assert load_records(tmp_path / "r.jsonl") == [o.record for o in outcomes]


# Nasty values: a float that needs all its digits, infinities, NaN, no log-probs, lone surrogates, empty answers.
NUMBERS = st.floats(allow_nan=False) | st.sampled_from([math.inf, -math.inf, -0.0, 5e-324, 0.1 + 0.2])
TOKENS = st.lists(st.integers(0, 2**40), max_size=4).map(tuple)
TEXTS = st.text(max_size=5) | st.sampled_from(["", "\u2028\n\r", "\ud800", '"']) | st.none()
VERDICTS = st.builds(
    Verdict, st.sampled_from(Outcome), st.none() | NUMBERS, TEXTS, st.text(max_size=3) | st.just("line\u2028\x85")
)


@st.composite
def completions(draw):
    tokens = draw(TOKENS)
    per_token = st.none() | st.lists(NUMBERS, min_size=len(tokens), max_size=len(tokens)).map(tuple)
    return Completion(
        tokens,
        draw(per_token),
        draw(st.sampled_from(FinishReason)),
        draw(st.sampled_from(["", "v1"])),
        *(draw(st.integers(0, 9)) for _ in range(3)),
        draw(per_token),
        draw(per_token),
    )


def lists(of):
    return st.lists(of, max_size=3).map(tuple)


ANSWERS = st.one_of(
    st.builds(Samples, lists(lists(completions()))),
    st.builds(Scores, lists(NUMBERS)),
    st.builds(Verdicts, lists(VERDICTS)),
    st.builds(Answers, lists(TEXTS)),
    st.builds(Encoded, lists(TOKENS)),
    st.builds(Texts, lists(st.text(max_size=4))),
)


@settings(deadline=None, max_examples=60)
@given(answers=lists(ANSWERS), seed=st.integers(0, 2**63 - 1), seconds=st.floats(0, 1e6))
def test_records_come_back_exactly(answers, seed, seconds, tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "s.jsonl"
    record = SearchRecord(PROBLEM, seed, answers, Cost(1, 2, 3, 4, 5, 6, 7, seconds))
    save_records(path, [record, record])
    assert [repr(r) for r in load_records(path)] == [repr(record)] * 2
    assert load_records(path) == [record] * 2


@st.composite
def trees(draw):
    """Nodes of every kind: sampled, told, told to a finished state, states that continue nothing, other problems."""
    tree = Tree(PROBLEM)
    for _ in range(draw(st.integers(0, 8))):
        parent = draw(st.integers(0, len(tree) - 1))
        before = tree.states[parent]
        kind = draw(st.sampled_from(["sampled", "sampled", "told", "whole", "other"]))
        cost = draw(st.none() | st.builds(Cost, st.integers(0, 9), seconds=st.floats(0, 1)))
        made, prior = draw(st.none() | st.integers(0, 20)), draw(NUMBERS)
        last = None
        if kind == "sampled":
            last = draw(completions().filter(lambda c: c.tokens))
            state = before.extend(last)
        elif kind == "told":
            state = before.reopened().told(draw(TOKENS))
        else:
            problem = PROBLEM if kind == "whole" else replace(PROBLEM, id="p:2")
            state = State(problem, (1, 2, 3), (Span(0, 1), Span(1, 3)), finished=draw(st.booleans()))
            last = draw(st.none() | completions())
        node = tree.add(parent, state, last, prior=prior, cost=cost, made=made)
        for _ in range(draw(st.integers(0, 2))):
            tree.backup(node, draw(st.floats(-1, 1)))
        if draw(st.booleans()):
            tree.score[node] = draw(NUMBERS)
            tree.hold(node)
        if draw(st.booleans()):
            tree.verdicts[node] = draw(VERDICTS)
            tree.answers[node] = draw(TEXTS)
    return tree


@settings(deadline=None, max_examples=120)
@given(tree=trees())
def test_a_tree_comes_back_exactly(tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("tree") / "t.json"
    save_tree(path, tree)
    loaded = load_tree(path)
    assert columns(loaded) == columns(tree)
    assert repr(loaded.states) == repr(tree.states)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    loaded.backup(loaded.add(0, State(PROBLEM)), 1.0)


def test_a_tree_that_a_search_grew_comes_back_with_its_paths(tmp_path):
    (outcome, *_) = continue_searches(Everything(), RECORDS, make_roles())
    tree = outcome.result.tree
    save_tree(tmp_path / "t.json", tree)
    loaded = load_tree(tmp_path / "t.json")
    assert columns(loaded) == columns(tree)
    for before, after in zip(tree.states, loaded.states, strict=True):
        while before is not None:
            assert before == after
            before, after = before.parent, after.parent
        assert after is None
    # Text that nobody sampled is the only state that is written; all others are their parent and their completion.
    states = json.loads((tmp_path / "t.json").read_text())["tree"]["states"]
    assert [s is not None for s in states] == [n > 0 and tree.completions[n] is None for n in range(len(tree))]
    assert sum(s is not None for s in states) == 3


def _saved(tmp_path):
    tree_path, searches_path = tmp_path / "t.json", tmp_path / "s.jsonl"
    outcomes = continue_searches(Everything(), RECORDS, make_roles())
    save_tree(tree_path, outcomes[0].result.tree)
    save_searches(searches_path, outcomes)
    return {"tree": (tree_path, load_tree), "searches": (searches_path, load_searches)}


DAMAGES = {
    "cut off": lambda text: text[: len(text) // 2],
    "cut off before its end": lambda text: text[:-9],
    "a digit": lambda text: text.replace("120", "121", 1),
    "empty": lambda text: "",
    "not ours": lambda text: '{"a": 1}\n',
    "a list": lambda text: "[1]\n",
    "no text": lambda text: "\udcff",
    "a longer file": lambda text: text + "{}",
}


@pytest.mark.parametrize("which", ["tree", "searches"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused(damage, which, tmp_path):
    path, load = _saved(tmp_path)[which]
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged, errors="surrogateescape")
    with pytest.raises(CheckpointError, match="is damaged") as raised:
        load(path)
    assert str(path) in str(raised.value) and "what to do" in str(raised.value)


@pytest.mark.parametrize("which", ["tree", "searches"])
def test_another_version_another_kind_and_no_file_are_named(which, tmp_path):
    saved = _saved(tmp_path)
    path, load = saved[which]
    (other,) = (load for name, (_, load) in saved.items() if name != which)
    if which == "tree":
        with pytest.raises(CheckpointError):
            other(path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 7', 1))
    with pytest.raises(CheckpointError, match="version 7"):
        load(path)
    with pytest.raises(CheckpointError, match="No such file"):
        load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot read"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t["parent"].__setitem__(2, 5), "node 2 has parent 5"),
        (lambda t: t["parent"].__setitem__(2, -1), "node 2 has parent -1"),
        (lambda t: t["parent"].__setitem__(0, 0), "node 0 has parent 0"),
        (lambda t: t["visits"].pop(), "visits has"),
        (lambda t: t["made"].__setitem__(0, 0.5), "TypeError"),
        (lambda t: t["costs"].pop(), "ValueError"),
        (lambda t: t["verdicts"].update({"99": ["right", 1.0, None, ""]}), "IndexError"),
        (lambda t: t["completions"].__setitem__(1, None), "says nothing"),
        (lambda t: t.pop("prior"), "KeyError"),
    ],
)
def test_a_tree_that_is_none_is_refused_whatever_its_checksum(change, why, tmp_path):
    from clew.data.searches import _dump, _sha256

    path, load = _saved(tmp_path)["tree"]
    whole = json.loads(path.read_text())
    change(whole["tree"])
    whole["sha256"] = _sha256(_dump(whole["tree"]))
    path.write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match=why):
        load(path)


def test_a_problem_that_json_would_change_is_refused(tmp_path):
    record = SearchRecord(replace(PROBLEM, metadata={"numbers": (1, 2)}))
    with pytest.raises(InvalidValue, match="metadata"):
        save_records(tmp_path / "s.jsonl", [record])
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "s.jsonl"
    save_records(path, RECORDS)
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_records(path, RECORDS[:1])
    assert load_records(path) == RECORDS
    assert list(tmp_path.iterdir()) == [path]
