"""Labels read off trees: rules by golden values, ReST-MCTS* against a recursion, and what a label costs."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.types import Completion, FinishReason, Message, Outcome, Problem, Verdict
from clew.reward.estimator_quality import Reference, estimator_quality, place_agreement
from clew.reward.rest_mcts import node_values, step_values, weighted_reward
from clew.reward.tree_labels import (
    RULES,
    hard,
    implied,
    interpolated,
    judged_visits,
    labels_of_tree,
    rest_labels_of_tree,
    soft,
    tree_values,
)
from clew.search.tree import Tree

PROBLEM = Problem("p:0", "p", (Message("user", "?"),))
RIGHT, WRONG, UNSCORED = (
    Verdict(Outcome.RIGHT, 1.0),
    Verdict(Outcome.WRONG, 0.0),
    Verdict(Outcome.UNSCORED, None),
)
values_of_a_path = st.lists(st.none() | st.sampled_from([0.0, 0.125, 0.5, 1.0]), min_size=1, max_size=12)


def text(state):
    return "".join(f"s{token} " for token in state.tokens)


def step(tree, parent, token, *, stop=False):
    finish = FinishReason.STOP if stop else FinishReason.STEP
    last = Completion((token,), None, finish)
    return tree.add(parent, tree.states[parent].extend(last), last)


@pytest.fixture
def tree():
    """Two right ends and a wrong one below the first step, one that could not be judged below the second."""
    tree = Tree(PROBLEM)
    a, b = step(tree, 0, 1), step(tree, 0, 2)
    c = step(tree, a, 3)
    ends = {step(tree, c, 4, stop=True): RIGHT, step(tree, c, 5, stop=True): WRONG, step(tree, a, 6, stop=True): RIGHT}
    ends[step(tree, b, 7, stop=True)] = UNSCORED
    for node, verdict in ends.items():
        tree.verdicts[node] = verdict
        tree.backup(node, verdict.value or 0.0)
    tree.backup(b, 0.25)
    return tree


def test_values_leave_out_what_could_not_be_judged(tree):
    assert tree.value(0) == 2.25 / 5
    assert tree_values(tree) == pytest.approx([2.25 / 4, 2 / 3, 0.25, 0.5, 1.0, 0.0, 1.0, None])
    assert judged_visits(tree) == [4, 3, 1, 2, 1, 1, 1, 0]


def test_a_solution_a_leaf_and_every_step_counts_once(tree):
    labels = labels_of_tree(tree, text, soft, made="tree soft")
    assert [one.steps for one in labels] == [
        ("s1 ", "s3 ", "s4 "),
        ("s1 ", "s3 ", "s5 "),
        ("s1 ", "s6 "),
        ("s2 ", "s7 "),
    ]
    assert [one.labels for one in labels] == [
        pytest.approx((2 / 3, 0.5, 1.0)),
        pytest.approx((2 / 3, 0.5, 0.0)),
        pytest.approx((2 / 3, 1.0)),
        (0.25, None),
    ]
    assert [one.weights for one in labels] == [(1.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0), (1.0, 0.0)]
    assert [one.outcome for one in labels] == ["right", "wrong", "right", "unscored"]
    assert [one.unscored for one in labels] == [0, 0, 0, 1]
    assert sum((one.cost for one in labels), Cost()) == tree.cost()
    assert labels[1].tokens == (1, 3, 5) and [tuple(span) for span in labels[1].spans] == [(0, 1), (1, 2), (2, 3)]
    assert labels[0].made == "tree soft"


def test_a_state_that_was_written_anew_has_no_spans(tree):
    told = tree.add(1, type(tree.states[0])(PROBLEM, (9, 9)))
    tree.backup(told, 1.0)
    labels = labels_of_tree(tree, text, soft, made="")[-1]
    assert labels.tokens is None and labels.spans is None
    assert labels.labels[-1] == 1.0


def test_a_tree_without_steps_has_no_labels():
    assert labels_of_tree(Tree(PROBLEM), text, soft, made="") == []


def test_rules():
    path = [0.75, None, 0.5, 0.25, None, 0.0, None]
    assert soft(path) == path[1:]
    assert hard(path) == [None, 1.0, 1.0, None, 0.0, None]
    assert interpolated(path) == [0.625, 0.5, 0.25, 0.125, 0.0, None]
    assert implied(path) == [1.0, 1.0, 1.0, None, 0.0, 0.0]
    # A right end further on proves that what no roll-out found was there.
    assert implied([1.0, 0.0, 0.5, 0.0]) == [1.0, 1.0, 0.0]
    assert implied([0.0, None, None]) == [0.0, 0.0]


@given(values_of_a_path)
def test_rules_keep_what_is_known(values):
    for name, rule in RULES.items():
        labels = rule(values)
        assert len(labels) == len(values) - 1
        assert all(label is None or 0.0 <= label <= 1.0 for label in labels)
        if name != "implied":
            known = hard(values) if name == "hard" else values[1:]
            assert all(a == b for a, b in zip(labels, known, strict=True) if b is not None)
    labels = [label for label in implied(values) if label is not None]
    assert labels == sorted(labels, reverse=True)


# ReST-MCTS*.


def test_golden_values_of_rest():
    # Given is m as the code has it, one more than the steps that remain.
    assert step_values([2, 1, 0], [False] * 3) == pytest.approx([1 / 3, 2 / 3, 1.0])
    found = step_values([2, 2, 1, 0], [False, True, False, False])
    assert found == pytest.approx([0.3333, 0.1111, 0.5556, 1.0], abs=5e-5)
    assert step_values([3], [True]) == [0.0]
    with pytest.raises(InvalidValue):
        weighted_reward(0.5, -1, wrong=False)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12))
def test_rest_values_are_between_0_and_1_and_end_at_1_when_right(rows):
    values = step_values([left for left, _ in rows], [wrong for _, wrong in rows])
    assert all(0.0 <= value <= 1.0 for value in values)
    assert [*step_values([*(left for left, _ in rows), 0], [*(wrong for _, wrong in rows), False])][-1] == 1.0


def slow_value(tree, node):
    """By recursion from the definition, without the tree's arrays."""

    def distance(at):
        if at in tree.verdicts and tree.verdicts[at].right:
            return 0
        return min((1 + distance(child) for child in tree.children[at]), default=math.inf)

    def left(at):
        if at == 0:
            return 0 if math.isinf(distance(0)) else distance(0)
        return left(tree.parent[at]) if math.isinf(distance(at)) else distance(at)

    if node == 0:
        return 0.0
    before = slow_value(tree, tree.parent[node])
    sign = -1 if math.isinf(distance(node)) else 1
    return max(0.0, before + sign * (1 - before) / (left(node) + 1))


@given(st.integers(0, 10**6))
def test_rest_values_of_random_trees(seed):
    rng = random.Random(seed)
    tree = Tree(PROBLEM)
    for token in range(rng.randint(0, 12)):
        step(tree, rng.randrange(len(tree)), token)
    for leaf in list(tree.leaves()):
        tree.verdicts[leaf] = rng.choice([RIGHT, WRONG, WRONG, UNSCORED])
    assert node_values(tree) == pytest.approx([slow_value(tree, node) for node in range(len(tree))])
    for one in rest_labels_of_tree(tree, text, made=""):
        assert (one.outcome == "right") == (one.labels[-1] == 1.0)


# How good labels are.


def test_quality_by_hand():
    found = estimator_quality(
        [0.0, 0.5, 0.5, 1.0],
        Reference(values=(0.0, 0.0, 1.0, 1.0)),
        Cost(model_calls=32, tokens_sampled=100, prompt_tokens_read=20),
    )
    assert (found.mean_absolute_error, found.bias, found.calibration_error) == (0.25, 0.0, 0.0)
    assert found.rmse == pytest.approx(math.sqrt(0.125))
    assert found.spearman == pytest.approx(math.sqrt(0.5))
    assert (found.rollouts_per_label, found.tokens_per_label, found.n) == (8.0, 30.0, 4)


def test_the_noise_of_the_reference_is_taken_out():
    rng = random.Random(0)
    truth = [rng.random() for _ in range(4000)]
    labels = [min(1.0, max(0.0, p + rng.choice([-0.1, 0.1]))) for p in truth]
    exact = estimator_quality(labels, Reference(values=tuple(truth)), Cost()).rmse
    for n in (4, 16):
        measured = tuple(sum(rng.random() < p for _ in range(n)) / n for p in truth)
        with_noise = estimator_quality(labels, Reference(values=measured), Cost()).rmse
        without = estimator_quality(labels, Reference(values=measured, rollouts=n), Cost()).rmse
        assert abs(without - exact) < 0.01 < with_noise - exact


def test_quality_of_what_cannot_be_compared():
    with pytest.raises(InvalidValue):
        estimator_quality([0.5], Reference(values=(0.5, 0.5)), Cost())
    with pytest.raises(InvalidValue):
        Reference(values=(0.5,), rollouts=1)
    with pytest.raises(InvalidValue):
        place_agreement([], [])
