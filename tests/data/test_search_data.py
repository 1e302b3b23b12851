"""D_search: a row for everything that was sampled, with its own numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clew.core.cost import Cost
from clew.core.types import (
    Completion,
    FinishReason,
    Group,
    Outcome,
    Problem,
    Provenance,
    Reward,
    Span,
    State,
    Trajectory,
    Verdict,
)
from clew.data.origin import Origin
from clew.data.search_data import action_key, actions_of_groups, actions_of_tree
from clew.data.tree_steps import guide_scores

same = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
NODE = st.tuples(
    st.integers(0, 9),
    st.lists(st.integers(1, 2), min_size=1, max_size=2),
    st.sampled_from(["step", "stop", "told"]),
    st.sampled_from([None, "right", "wrong", "unscored"]),
    st.integers(0, 2),
)
PROBLEM = Problem("toy:1", "toy", ())


@same
@given(st.lists(NODE, max_size=10))
def test_every_sampled_node_is_a_row(new_sprout, nodes):
    sprout = new_sprout()
    for parent, tokens, finish, verdict, visits in nodes:
        told, judged = finish == "told", verdict if finish == "stop" else None
        finish = "step" if told else finish
        sprout.add(parent % len(sprout.tree), tokens, finish=finish, told=told, verdict=judged, backups=[0.5] * visits)
    tree = sprout.tree
    actions = actions_of_tree(tree, text=sprout.text)
    sampled = [node for node in range(1, len(tree)) if tree.completions[node] is not None]
    assert [one.origin.node for one in actions] == sampled
    for one in actions:
        node = one.origin.node
        assert one.prefix + one.tokens == tree.states[node].tokens
        assert one.tokens == tree.completions[node].tokens
        assert one.logprobs == tree.completions[node].logprobs
        assert one.prefix_text == sprout.text(State(tree.problem, one.prefix))
        assert one.prefix_text + one.text == sprout.text(tree.states[node])
        values = [
            verdict.value
            for at, verdict in tree.verdicts.items()
            if node in tree.path(at) and verdict.outcome is not Outcome.UNSCORED
        ]
        assert one.solutions == len(values)
        assert one.returned == (sum(values) / len(values) if values else None)
        assert one.best == max(values, default=None)


def test_the_numbers_of_a_node(sprout):
    step = sprout.add(0, [1], prior=0.25, backups=[0.5], score=0.75)
    other = sprout.add(0, [2], prior=0.75)
    end = sprout.add(step, [3, 0], finish="stop", verdict="right", backups=[1.0])
    bad = sprout.add(step, [4, 0], finish="stop", verdict="wrong", backups=[0.0, 0.0])
    lost = sprout.add(step, [5, 0], finish="stop", verdict="unscored", backups=[0.0])
    origin = Origin(run="runs/a", stage="search", strategy="mcts", tree="0000")
    rows = {one.origin.node: one for one in actions_of_tree(sprout.tree, origin=origin)}
    one = rows[step]
    assert (one.prior, one.score, one.visits) == (0.25, 0.75, 4)
    assert one.value == pytest.approx(1.5 / 4)
    assert (one.returned, one.best, one.solutions, one.outcome) == (0.5, 1.0, 2, None)
    assert (one.finished, one.depth, one.policy_version) == (False, 1, "p+1")
    assert one.origin == Origin(run="runs/a", stage="search", strategy="mcts", tree="0000", node=step)
    assert (rows[other].visits, rows[other].value, rows[other].returned, rows[other].best) == (0, None, None, None)
    assert (rows[end].outcome, rows[end].finished, rows[end].depth) == (Outcome.RIGHT, True, 2)
    assert (rows[bad].value, rows[bad].best) == (0.0, 0.0)
    assert (rows[lost].outcome, rows[lost].value, rows[lost].visits) == (Outcome.UNSCORED, None, 0)


def test_another_measure(sprout):
    sprout.add(0, [1], backups=[1.0], score=0.25)
    (one,) = actions_of_tree(sprout.tree, measure=guide_scores)
    assert (one.value, one.visits) == (0.25, 1)


def trajectory(pieces, value, told=()):
    """Steps of tokens; the completion is what follows the told ones."""
    tokens = tuple(token for piece in pieces for token in piece)
    ends = [sum(map(len, pieces[: at + 1])) for at in range(len(pieces))]
    spans = tuple(Span(a, b) for a, b in zip([0, *ends], ends, strict=False))
    last = Completion(tokens[len(told) :], tuple(-float(t) for t in tokens[len(told) :]), FinishReason.STOP)
    outcome = Outcome.UNSCORED if value is None else Outcome.RIGHT if value else Outcome.WRONG
    reward = Reward(math.nan if value is None else value)
    state, place = State(PROBLEM, tokens, spans, finished=True), Provenance("sample", None, "rl")
    return Trajectory(state, "whole", Verdict(outcome, value), reward, Cost(), 0, last, provenance=place)


def test_a_trajectory_is_one_action_without_texts_of_steps():
    group = Group(PROBLEM, (trajectory([(1, 2), (3, 0)], 1.0), trajectory([(4, 0)], None)))
    one, other = actions_of_groups([group], run="runs/rl")
    assert (one.prefix, one.tokens, one.text, one.logprobs) == ((), (1, 2, 3, 0), "whole", (-1.0, -2.0, -3.0, 0.0))
    assert (one.returned, one.best, one.solutions, one.outcome, one.finished) == (1.0, 1.0, 1, Outcome.RIGHT, True)
    assert one.origin == Origin(run="runs/rl", stage="rl", strategy="sample", sample=0)
    assert (other.returned, other.best, other.solutions, other.outcome) == (None, None, 0, Outcome.UNSCORED)
    assert other.origin.sample == 1


def test_a_trajectory_step_by_step():
    group = Group(PROBLEM, (trajectory([(1, 2), (3, 0)], 1.0),))
    one, other = actions_of_groups([group], text=lambda state: str(list(state.tokens))[1:-1])
    assert [(a.prefix, a.tokens, a.prefix_text, a.text) for a in (one, other)] == [
        ((), (1, 2), "", "1, 2"),
        ((1, 2), (3, 0), "1, 2", ", 3, 0"),
    ]
    assert (one.outcome, one.finished, one.depth, one.returned) == (None, False, 1, 1.0)
    assert (other.outcome, other.finished, other.depth, other.logprobs) == (Outcome.RIGHT, True, 2, (-3.0, 0.0))


def test_what_was_told_is_part_of_the_state():
    group = Group(PROBLEM, (trajectory([(9, 9), (3, 0)], 1.0, told=(9, 9)),))
    (whole,) = actions_of_groups([group])
    (step,) = actions_of_groups([group], text=lambda state: "x" * len(state.tokens))
    assert (whole.prefix, whole.tokens) == (step.prefix, step.tokens) == ((9, 9), (3, 0))


def test_the_same_action_of_two_trees_has_one_key(new_sprout):
    keys = set()
    for _ in range(2):
        sprout = new_sprout()
        sprout.add(sprout.add(0, [1]), [2])
        keys |= {action_key(one) for one in actions_of_tree(sprout.tree)}
    assert len(keys) == 2


def test_steps_after_told_text_have_their_own_log_probs():
    """A hint of two tokens, then one response that was divided into two steps."""
    last = Completion((5, 6, 7), (-5.0, -6.0, -7.0), FinishReason.STOP)
    state = State(PROBLEM, (9, 9, 5, 6, 7), (Span(0, 2), Span(2, 4), Span(4, 5)), None, True)
    verdict = Verdict(Outcome.RIGHT, 1.0)
    one = Trajectory(state, "abcde", verdict, Reward(1.0), Cost(), 0, last, provenance=Provenance())
    found = actions_of_groups([Group(PROBLEM, (one,))], text=lambda state: "abcde"[: len(state.tokens)])
    assert [(a.prefix, a.tokens, a.logprobs) for a in found] == [
        ((9, 9), (5, 6), (-5.0, -6.0)),
        ((9, 9, 5, 6), (7,), (-7.0,)),
    ]
