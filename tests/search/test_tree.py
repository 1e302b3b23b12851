"""The tree against a naive one of dictionaries."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.cost import Cost
from clew.core.types import Completion, FinishReason, Problem, State
from clew.search.tree import NONE, ROOT, Tree

PROBLEM = Problem("p", "toy", ())


def completion(token, *, stop=False, read=0):
    finish = FinishReason.STOP if stop else FinishReason.STEP
    return Completion(
        (token, token), None, finish, prompt_tokens_read=read, prompt_tokens_cached=3, prompt_tokens_reread=1
    )


def grown(parents):
    """A tree in which node i + 1 is a child of `parents[i]`."""
    tree = Tree(PROBLEM)
    for token, parent in enumerate(parents):
        last = completion(token)
        tree.add(parent, tree.states[parent].extend(last), last)
    return tree


@st.composite
def parents_of_nodes(draw):
    num = draw(st.integers(0, 12))
    return [draw(st.integers(0, i)) for i in range(num)]


def test_a_new_tree_is_its_root():
    tree = Tree(PROBLEM)
    assert len(tree) == 1 and tree.problem is PROBLEM and tree.states == [State(PROBLEM)]
    assert tree.parent[ROOT] == NONE and tree.path(ROOT) == [ROOT] and list(tree.leaves()) == [ROOT]
    assert math.isnan(tree.value(ROOT)) and math.isnan(tree.score[ROOT])
    assert tree.cost() == Cost()


@given(parents_of_nodes())
def test_links_against_dictionaries(parents):
    tree = grown(parents)
    children = defaultdict(list)
    for i, parent in enumerate(parents):
        children[parent].append(i + 1)
    assert [list(c) for c in tree.children] == [children[node] for node in range(len(tree))]
    assert list(tree.leaves()) == [node for node in range(len(tree)) if not children[node]]
    for node in range(1, len(tree)):
        path = tree.path(node)
        assert path[0] == ROOT and path[-1] == node
        assert all(b in children[a] for a, b in pairwise(path))
        assert tree.depth[node] == len(path) - 1 == len(tree.states[node].steps)


@given(parents_of_nodes(), st.data())
def test_visits_values_and_holds_add_up(parents, data):
    tree = grown(parents)
    at = st.integers(0, len(tree) - 1)
    backups = data.draw(st.lists(st.tuples(at, st.floats(-10.0, 10.0)), max_size=20))
    held = data.draw(st.lists(at, max_size=5))
    for node, value in backups:
        tree.backup(node, value)
    for node in held:
        tree.hold(node)
    for node in range(len(tree)):
        below = [value for leaf, value in backups if node in tree.path(leaf)]
        assert tree.visits[node] == len(below)
        assert tree.pending[node] == sum(node in tree.path(leaf) for leaf in held)
        own = sum(leaf == node for leaf, _ in backups)
        assert tree.visits[node] == own + sum(tree.visits[child] for child in tree.children[node])
        if below:
            assert tree.value(node) == pytest.approx(sum(below) / len(below))
        else:
            assert math.isnan(tree.value(node))
    for node in held:
        tree.hold(node, -1)
    assert set(tree.pending) == {0}


def test_a_node_costs_what_its_completions_did():
    tree = Tree(PROBLEM)
    last = completion(7, read=5)
    one = tree.add(ROOT, tree.states[ROOT].extend(last), last)
    each = Cost(tokens_sampled=2, prompt_tokens_read=5, prompt_tokens_cached=3, prompt_tokens_reread=1, model_calls=1)
    assert tree.costs[one] == tree.cost() == each
    tree.pay(one, last)
    assert tree.costs[one] == each + each
    told = tree.add(one, tree.states[one].told((1, 2)))
    assert tree.costs[told] == Cost() and tree.completions[told] is None
    assert tree.cost() == each + each and tree.cost([told]) == Cost()


def test_finished_and_scores_in_order():
    tree = Tree(PROBLEM)
    for token, stop in enumerate((False, True, False, True)):
        last = completion(token, stop=stop)
        parent = 3 if token == 3 else ROOT
        tree.add(parent, tree.states[parent].extend(last), last, prior=0.5, made=token)
    assert list(tree.finished()) == [2, 4]
    assert list(tree.made) == [0, 0, 1, 2, 3] and list(tree.prior) == [1.0, 0.5, 0.5, 0.5, 0.5]
    tree.score[4] = 2.0
    assert tree.scores_on(4) == [2.0]
    tree.score[3] = 1.0
    assert tree.scores_on(4) == [1.0, 2.0]
