"""The page of search trees: what it holds, that it is closed to the outside, and, in a real browser, what it does."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
import sys
from pathlib import Path

import pytest

from clew.core.errors import ClewError, RunDirectoryError
from clew.core.protocols import Prompt
from clew.core.types import Message, Outcome, Problem, Sampling, State, Verdict
from clew.data.searches import save_tree
from clew.report.tree_data import TreeNotes, columns, load_notes, save_notes, step_texts
from clew.report.tree_page import ShownTrees, read_trees, render, show_tree
from clew.search import BestOfN, ScriptedPolicy, TabularPolicy, run_searches
from clew.search.mcts import Mcts
from clew.search.tree import Tree

sys.path.append(str(Path(__file__).parent))
from browser import CHROMIUM, DRIVER, browser

ATTACK = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">'
WORDS = ("<end>", "up", "down", "left", ATTACK, "\n")
STEP, WHOLE = Sampling(max_tokens=1), Sampling(max_tokens=12)


class Hill:
    """Right if one goes up more often than down; judged, never raising."""

    def verify(self, problem, text):
        right = text.count("up") > text.count("down")
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), text[:1] or None, f"{ATTACK} ups")

    def extract(self, text):
        return text[:1] or None


def probs(state):
    return [0.1 + 0.05 * len(state.tokens), 0.3, 0.3, 0.2, 0.1, 0.1]


POLICY = TabularPolicy(WORDS, lambda state: [p / sum(probs(state)) for p in probs(state)])


def problem(i=0):
    return Problem(f"hill:{i}", "hill", (Message("user", f"Climb hill {i}. {ATTACK}"),), {"i": i})


def searched(strategy, i=0):
    (outcome,) = run_searches(strategy, [problem(i)], POLICY, task=Hill(), seed=i)
    tree, chosen = outcome.result.tree, outcome.result.chosen
    node = next(n for n, state in enumerate(tree.states) if state is chosen)
    verdict = Hill().verify(None, POLICY.text(chosen))
    notes = TreeNotes(
        texts=step_texts(tree, POLICY.text),
        chosen=node,
        outcome=verdict.outcome.value,
        answer=verdict.answer,
        reason=verdict.reason,
        stop=outcome.stop.value,
        strategy=strategy.name,
        guidance="verifier",
        cost={"tokens": outcome.cost.tokens, "seconds": 1.5},
    )
    return tree, notes


MCTS = Mcts(iterations=40, width=3, max_depth=6, sampling=STEP, rollout=WHOLE)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with three searched problems: two deep trees and a flat one."""
    path = tmp_path_factory.mktemp("run")
    for room in ("trees", "notes"):
        (path / room).mkdir()
    for i, strategy in enumerate([MCTS, MCTS, BestOfN(n=7, sampling=WHOLE)]):
        tree, notes = searched(strategy, i)
        save_tree(path / "trees" / f"{i:04}-hill_{i}.json", tree)
        save_notes(path / "notes" / f"{i:04}-hill_{i}.json", notes)
    return path


def unpacked(block):
    return json.loads(gzip.decompress(base64.b64decode(block)))


def blocks(page):
    return [unpacked(b) for b in re.findall(r'<script type="text/plain" id="tree-\d+">([^<]*)</script>', page)]


def test_columns_are_those_of_the_tree():
    tree, notes = searched(MCTS)
    found = json.loads(json.dumps(columns(tree, notes), allow_nan=False))
    assert len(tree) > 30
    for node in range(len(tree)):
        assert found["parent"][node] == tree.parent[node]
        assert found["visits"][node] == tree.visits[node]
        assert found["made"][node] == tree.made[node]
        mean = tree.value_sum[node] / tree.visits[node] if tree.visits[node] else None
        assert found["value"][node] == (None if mean is None else pytest.approx(mean, rel=1e-4))
        score = tree.score[node]
        assert found["score"][node] == (None if math.isnan(score) else pytest.approx(score))
        last = tree.completions[node]
        assert found["costs"][node][0] == tree.costs[node].tokens_sampled
        assert found["finish"][node] == ("" if last is None else last.finish.value)
        assert found["finished"][node] == tree.states[node].finished
    assert {int(n): v[0] for n, v in found["verdicts"].items()} == {
        n: v.outcome.value for n, v in tree.verdicts.items()
    }
    assert (found["chosen"], found["outcome"], found["cost"]["seconds"]) == (notes.chosen, notes.outcome, 1.5)


def test_texts_of_a_path_join_to_its_response():
    policy = ScriptedPolicy(lambda prompt, sampling: f"a{len(prompt.state.tokens)}\nb")
    tree = Tree(problem())
    node = 0
    for _ in range(4):
        (last,) = policy.sample([Prompt(tree.states[node], 0)], Sampling(step_ends=("\n",)))
        node = tree.add(node, tree.states[node].extend(last), last)
    told = tree.add(node, tree.states[node].told(policy.encode(" wait")))
    texts = step_texts(tree, policy.text)
    assert "".join(texts[n] for n in tree.path(told)) == policy.text(tree.states[told])
    assert texts[told] == " wait"
    assert columns(tree, TreeNotes(texts=texts))["finish"] == ["", "step", "step", "step", "step", "told"]


def test_a_state_written_anew_gives_all_of_its_text():
    policy = ScriptedPolicy([])
    tree = Tree(problem())
    first = tree.add(0, State(problem(), policy.encode("one")))
    again = tree.add(first, State(problem(), policy.encode("two")))
    assert step_texts(tree, policy.text)[again] == "two"


def test_notes_come_back_as_they_were(tmp_path):
    _, notes = searched(BestOfN(n=3, sampling=WHOLE))
    save_notes(tmp_path / "notes.json", notes)
    assert load_notes(tmp_path / "notes.json") == notes
    assert load_notes(tmp_path / "absent.json") == TreeNotes()
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="what to do"):
        load_notes(tmp_path / "bad.json")


def test_the_page_holds_every_tree_and_asks_for_nothing(run):
    page = render(read_trees(run))
    assert [b["id"] for b in blocks(page)] == ["hill:0", "hill:1", "hill:2"]
    assert not re.search(r"https?://", page)
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) == {"data:,"}
    assert "@import" not in page and "url(" not in page
    script = re.search(r"<script>(.*)</script>\n</body>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_what_a_model_wrote_is_nowhere_in_the_markup(run, tmp_path):
    tree, notes = searched(MCTS)
    hostile = ShownTrees(title=ATTACK, trees=(show_tree(tree, notes, name=ATTACK),))
    page = render(hostile)
    assert "hacked" in json.dumps(blocks(page))
    assert "<script>window.hacked" not in page and "<img" not in page
    assert page.count("<script") == 3


def test_same_trees_same_bytes(run):
    assert render(read_trees(run)) == render(read_trees(run))


@pytest.mark.parametrize("asked", ["1", "hill:1", "0001-hill_1"])
def test_one_problem_alone(run, asked):
    shown = read_trees(run, asked)
    assert [tree.id for tree in shown.trees] == ["hill:1"]
    assert shown.left_out == 0


def test_what_does_not_fit_is_left_out_and_said(run):
    first = read_trees(run, "0").trees[0].num_nodes
    shown = read_trees(run, most_nodes=first + 1)
    assert ([tree.id for tree in shown.trees], shown.left_out) == (["hill:0"], 2)
    assert "2 more problems did not fit" in render(shown)


def test_a_tree_alone_is_shown_as_token_ids(run):
    shown = read_trees(run / "trees" / "0002-hill_2.json")
    (block,) = blocks(render(shown))
    assert block["chosen"] is None
    assert all(re.fullmatch(r"(\[\d+\])+", text) for text in block["texts"][1:])


@pytest.mark.parametrize(
    ("path", "asked", "says"),
    [
        (".", "3", "from 0 to 2"),
        (".", "hill:9", "did you mean"),
        ("notes", None, "has no search trees"),
        ("absent", None, "there is no run directory"),
    ],
)
def test_what_cannot_be_shown(run, path, asked, says):
    with pytest.raises(ClewError) as caught:
        read_trees(run / path, asked)
    assert says in str(caught.value)
    assert "accepted: " in str(caught.value) and "what to do: " in str(caught.value)


# ---------- in a real browser ----------

real = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
ROWS = "[...document.querySelectorAll('.row')]"
SELECTED = "return Number(document.querySelector('.row[aria-selected=true]').dataset.node)"


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "tree.html"
    path.write_text(render(read_trees(run)), encoding="utf-8")
    with browser() as opened:
        opened.path = path
        yield opened


@pytest.fixture
def fresh(page):
    page.open("about:blank")
    page.open(page.path.as_uri())
    page.until("return document.querySelectorAll('.row').length > 3")
    page.complaints()
    yield page
    assert page.complaints() == []


def counted(page):
    return [int(n.replace(",", "")) for n in re.findall(r"[\d,]+", page.js("return counted.textContent"))]


@real
@pytest.mark.slow
def test_the_answer_is_selected_and_told(fresh, run):
    tree = blocks(render(read_trees(run)))[0]
    assert fresh.js(SELECTED) == tree["chosen"]
    assert tree["outcome"] in fresh.js("return verdict.textContent")
    path, node = set(), tree["chosen"]
    while node >= 0:
        path, node = path | {node}, tree["parent"][node]
    seen = fresh.js(f"return {ROWS}.map(r => [Number(r.dataset.node), r.classList.contains('answer')])")
    assert len(seen) > 10
    assert {node for node, marked in seen if marked} == path & {node for node, _ in seen} != set()
    told = fresh.js("return [...document.querySelectorAll('.stepped')].map(s => s.textContent).join('')")
    node, whole = tree["chosen"], ""
    while node >= 0:
        whole, node = tree["texts"][node] + whole, tree["parent"][node]
    assert told == whole


@real
@pytest.mark.slow
def test_nothing_that_a_model_wrote_runs(fresh):
    assert fresh.js("return window.hacked === undefined")
    assert fresh.js("return document.querySelectorAll('img').length") == 0
    assert "window.hacked" in fresh.js("return prompt.textContent || document.getElementById('prompt').textContent")


@real
@pytest.mark.slow
def test_keys_walk_fold_and_unfold(fresh):
    fresh.press("Escape", *["Up"] * 200)
    assert fresh.js(SELECTED) == 0
    shown = counted(fresh)[0]
    fresh.press("Left")
    assert counted(fresh)[0] == 1
    fresh.press("Right")
    assert counted(fresh)[0] == shown
    fresh.press("Right")
    assert fresh.js(SELECTED) == 1
    fresh.press("Left", "Left")
    assert fresh.js(SELECTED) == 0
    fresh.press("a")
    assert fresh.js("return document.querySelector('.row[aria-selected=true] .tag').textContent") == "answer"


@real
@pytest.mark.slow
def test_filters_show_what_matches_and_what_leads_to_it(fresh, run):
    tree = blocks(render(read_trees(run)))[0]
    fresh.press("/", *"down")
    wanted = sum("down" in text for text in tree["texts"])
    assert counted(fresh) == [wanted, len(tree["parent"])]
    assert "down" in fresh.js("return document.querySelector('.row mark').textContent")
    fresh.press("Escape")
    assert "unfolded" in fresh.js("return counted.textContent")
    fresh.js("verdicts.value = 'wrong'; verdicts.dispatchEvent(new Event('change'))")
    assert counted(fresh)[0] == sum(v[0] == "wrong" for v in tree["verdicts"].values())
    fresh.js("verdicts.value = ''; document.getElementById('visits').value = 3;"
             "document.getElementById('visits').dispatchEvent(new Event('input'))")  # fmt: skip
    assert counted(fresh)[0] == sum(v >= 3 for v in tree["visits"])


@real
@pytest.mark.slow
def test_time_shows_the_nodes_made_by_then(fresh, run):
    tree = blocks(render(read_trees(run)))[0]
    rounds = sorted(set(tree["made"]))
    fresh.press(",", ",", ",")
    by = rounds[-4]
    assert f"round {by} of" in fresh.js("return document.getElementById('round-label').textContent")
    assert counted(fresh)[1] == sum(made <= by for made in tree["made"])
    fresh.press("p")
    fresh.until("return play.getAttribute('aria-label') === 'Play'")
    assert counted(fresh)[1] == len(tree["made"])


@real
@pytest.mark.slow
def test_the_map_is_drawn_and_answers_to_a_click(fresh):
    painted = "const c = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
    assert fresh.js(painted + "let n = 0; for (let i = 3; i < c.length; i += 4) n += c[i] > 0; return n") > 1000
    fresh.js("""const box = canvas.getBoundingClientRect();
        const at = (x, y) => new MouseEvent('click', { clientX: box.left + x, clientY: box.top + y, bubbles: true });
        for (let x = 0; x < box.width && document.querySelector('.row[aria-selected=true]').dataset.node != 0; x += 8)
          canvas.dispatchEvent(at(x, 12))""")
    assert fresh.js(SELECTED) == 0


@real
@pytest.mark.slow
def test_problems_are_picked_and_remembered(fresh, run):
    fresh.press("]")
    fresh.until("return location.hash.startsWith('#problem=1')")
    fresh.press("]")
    fresh.until("return document.getElementById('outline').classList.contains('no-visits')")
    assert fresh.js(f"return {ROWS}.length") == 8
    assert fresh.js("return document.getElementById('next').disabled")
    fresh.open(fresh.path.as_uri() + "#problem=1&node=2")
    fresh.js("location.reload()")
    fresh.until("return document.querySelector('.row[aria-selected=true]')?.dataset.node === '2'")


@real
@pytest.mark.slow
def test_focus_shows_what_is_below_a_node_alone(fresh, run):
    tree = blocks(render(read_trees(run)))[0]
    fresh.press(*["Up"] * 200, "Down", "f")
    below, parents = {1}, tree["parent"]
    for node in range(2, len(parents)):
        if parents[node] in below:
            below.add(node)
    seen = fresh.js(f"return {ROWS}.map(r => Number(r.dataset.node))")
    assert seen[0] == 1 and set(seen) <= below
    fresh.press("f")
    assert fresh.js(f"return {ROWS}.some(r => r.dataset.node === '0')")


@real
@pytest.mark.slow
def test_both_themes(fresh):
    papers = []
    for _ in range(2):
        fresh.click("#theme")
        papers.append(fresh.js("return getComputedStyle(document.documentElement).backgroundColor"))
    assert len(set(papers)) == 2


@real
@pytest.mark.slow
def test_a_tree_of_five_thousand_nodes_stays_quick(page, tmp_path):
    tree = Tree(problem())
    (last,) = ScriptedPolicy(["step"]).sample([Prompt(tree.states[0], 0)], WHOLE)
    for node in range(1, 5001):
        parent = (node - 1) // 3
        tree.add(parent, State(problem(), (node,)), last, made=node)
        tree.backup(node, node % 2)
    path = tmp_path / "big.html"
    path.write_text(render(ShownTrees(title="big", trees=(show_tree(tree),))))
    page.open(path.as_uri())
    page.until("return document.querySelectorAll('.row').length > 3")
    page.press(*["+"] * 8)
    assert counted(page) == [5001, 5001]
    assert page.js(f"return {ROWS}.length") < 100
    milliseconds = page.js("""const slider = document.getElementById('round'), from = performance.now();
        for (let i = 0; i < 20; i++) { slider.value = i * 250; slider.dispatchEvent(new Event('input')); }
        return (performance.now() - from) / 20""")
    assert milliseconds < 200
