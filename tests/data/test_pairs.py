"""Preference pairs against all pairs of nodes and of solutions, and what they refuse."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.types import (
    Completion,
    FinishReason,
    Group,
    Outcome,
    Problem,
    Provenance,
    Reward,
    State,
    Trajectory,
    Verdict,
)
from clew.data.expert import Solution, solutions_of_tree
from clew.data.origin import Origin
from clew.data.pairs import Pair, ids_of, pairs_of_groups, pairs_of_solutions, pairs_of_tree, rewarded_over
from clew.data.tree_steps import guide_scores, outcomes

same = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
PROBLEM, OTHER = Problem("toy:1", "toy", ()), Problem("toy:2", "toy", ())
STEP = st.tuples(st.integers(0, 6), st.integers(1, 3), st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=3))


def solution(token, outcome, value, problem=PROBLEM):
    return Solution(problem=problem, tokens=(token, 0), outcome=outcome, value=value, text=str(token))


RIGHT, WRONG, UNSCORED = Outcome.RIGHT, Outcome.WRONG, Outcome.UNSCORED
SOLUTIONS = st.lists(
    st.builds(
        solution,
        st.integers(1, 6),
        st.sampled_from([RIGHT, WRONG, UNSCORED, None]),
        st.sampled_from([None, 0.0, 0.25, 1.0]),
        st.sampled_from([PROBLEM, OTHER]),
    ),
    max_size=10,
)


def sprouted(new_sprout, steps):
    """A tree of one-token steps (parent, token, values backed up there)."""
    sprout = new_sprout()
    for parent, token, backups in steps:
        sprout.add(parent % len(sprout.tree), [token], backups=backups)
    return sprout.tree


def rated_siblings(tree, min_visits):
    """By a loop over all nodes: of each node, the tokens of its steps with their mean value and visits."""
    found = {}
    for node in range(len(tree)):
        rated = {}
        for child in tree.children[node]:
            token = tree.states[child].tokens[-1]
            total, visits = rated.get(token, (Fraction(0), 0))
            rated[token] = (total + Fraction(tree.value_sum[child]), visits + tree.visits[child])
        found[node] = {
            token: (total / visits, visits) for token, (total, visits) in rated.items() if visits >= max(min_visits, 1)
        }
    return found


@same
@given(st.lists(STEP, max_size=12), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 3))
def test_every_pair_of_siblings(new_sprout, steps, margin, min_visits):
    tree = sprouted(new_sprout, steps)
    expected = Counter(
        (tree.states[node].tokens, (one,), (other,))
        for node, rated in rated_siblings(tree, min_visits).items()
        for one, (high, _) in rated.items()
        for other, (low, _) in rated.items()
        if high > low and high - low >= margin
    )
    pairs = pairs_of_tree(tree, margin=margin, min_visits=min_visits, every=True)
    assert Counter((pair.prefix, pair.chosen, pair.rejected) for pair in pairs) == expected
    for pair in pairs:
        assert pair.margin >= margin
        assert min(pair.chosen_visits, pair.rejected_visits) >= max(min_visits, 1)
        for end, tokens in ((pair.chosen_origin, pair.chosen), (pair.rejected_origin, pair.rejected)):
            assert tree.states[end.node].tokens == pair.prefix + tokens


@same
@given(st.lists(STEP, max_size=12), st.sampled_from([0.0, 0.5]))
def test_the_best_against_the_worst(new_sprout, steps, margin):
    tree = sprouted(new_sprout, steps)
    expected = {}
    for node, rated in rated_siblings(tree, 1).items():
        values = {token: value for token, (value, _) in rated.items()}
        if values and max(values.values()) > min(values.values()):
            best = next(token for token in values if values[token] == max(values.values()))
            worst = next(token for token in values if values[token] == min(values.values()))
            if values[best] - values[worst] >= margin:
                expected[tree.path(node)[-1]] = ((best,), (worst,))
    pairs = pairs_of_tree(tree, margin=margin)
    assert {tree.parent[pair.chosen_origin.node]: (pair.chosen, pair.rejected) for pair in pairs} == expected
    assert len(pairs) == len(expected)


def test_no_pair_without_a_difference(sprout):
    assert pairs_of_tree(sprout.tree) == []
    sprout.add(0, [1], backups=[1.0])
    assert pairs_of_tree(sprout.tree) == []  # one child
    sprout.add(0, [2], backups=[1.0])
    assert pairs_of_tree(sprout.tree, every=True) == []  # a tie
    sprout.add(0, [3])
    assert pairs_of_tree(sprout.tree, every=True) == []  # not visited


def test_texts_and_origins_of_steps(sprout):
    parent = sprout.add(0, [1, 2], backups=[0.5])
    good, bad = sprout.add(parent, [3], backups=[1.0, 1.0]), sprout.add(parent, [4, 5], backups=[0.0])
    (pair,) = pairs_of_tree(sprout.tree, text=sprout.text, origin=Origin(run="runs/a", tree="0000-toy"))
    assert (pair.prefix_text, pair.chosen_text, pair.rejected_text) == ("ab", "c", "de")
    assert pair.chosen_origin == Origin(run="runs/a", tree="0000-toy", node=good)
    assert pair.rejected_origin == Origin(run="runs/a", tree="0000-toy", node=bad)
    assert (pair.chosen_visits, pair.rejected_visits, pair.margin) == (2, 1, 1.0)
    assert ids_of(pair, [7, 8]) == ((7, 8, 1, 2), (3,), (4, 5))


def test_told_text_is_in_no_pair_and_goes_before_it(sprout):
    draft = sprout.add(0, [1, 0], finish="stop", backups=[0.5])
    hint = sprout.add(draft, [9], told=True, backups=[0.5])
    sprout.add(draft, [8], told=True, backups=[0.0])
    sprout.add(hint, [2], backups=[1.0])
    sprout.add(hint, [3], backups=[0.0])
    (pair,) = pairs_of_tree(sprout.tree, every=True)
    assert (pair.prefix, pair.chosen, pair.rejected) == ((1, 9), (2,), (3,))


def test_values_by_another_measure(sprout):
    left, right = sprout.add(0, [1], score=0.2), sprout.add(0, [2], score=0.7)
    sprout.add(left, [3, 0], finish="stop", verdict="right")
    sprout.add(right, [3, 0], finish="stop", verdict="wrong")
    assert pairs_of_tree(sprout.tree) == []
    (by_guide,), (by_outcome,) = (pairs_of_tree(sprout.tree, measure=one) for one in (guide_scores, outcomes))
    assert (by_guide.chosen, by_outcome.chosen) == ((2,), (1,))


@given(SOLUTIONS, st.sampled_from([0.0, 0.5, 1.0]))
def test_right_against_wrong_is_every_such_pair(solutions, margin):
    first = {}
    for one in solutions:
        if one.value is not None:
            first.setdefault((one.problem.id, one.tokens), one)
    expected = Counter(
        (one.problem.id, one.tokens, other.tokens)
        for one in first.values()
        for other in first.values()
        if one.problem == other.problem and one.outcome is RIGHT and other.outcome is WRONG
        if one.value > other.value and one.value - other.value >= margin
    )
    pairs = pairs_of_solutions(solutions, margin=margin)
    assert Counter((pair.problem.id, pair.chosen, pair.rejected) for pair in pairs) == expected
    assert all(pair.prefix == () for pair in pairs)


@given(SOLUTIONS, st.integers(1, 5), st.randoms(use_true_random=False))
def test_a_cap_chooses_the_same_in_any_order_and_spreads(solutions, cap, rng):
    solutions = list({(one.problem.id, one.tokens): one for one in solutions}.values())
    every = pairs_of_solutions(solutions)
    kept = pairs_of_solutions(solutions, cap=cap)
    shuffled = list(solutions)
    rng.shuffle(shuffled)
    assert set(map(key, pairs_of_solutions(shuffled, cap=cap))) == set(map(key, kept))
    of = Counter(pair.problem.id for pair in every)
    assert Counter(pair.problem.id for pair in kept) == Counter({name: min(cap, n) for name, n in of.items()})
    assert set(map(key, kept)) <= set(map(key, every))


def key(pair):
    return (pair.problem.id, pair.chosen, pair.rejected)


def test_a_cap_uses_each_solution_before_any_twice():
    right = [solution(token, RIGHT, 1.0) for token in range(1, 5)]
    wrong = [solution(token, WRONG, 0.0) for token in range(11, 15)]
    pairs = pairs_of_solutions([*right, *wrong], cap=4)
    assert {pair.chosen for pair in pairs} == {one.tokens for one in right}
    assert {pair.rejected for pair in pairs} == {one.tokens for one in wrong}
    other = pairs_of_solutions([*right, *wrong], cap=4, seed=1)
    assert list(map(key, other)) != list(map(key, pairs))


def test_pairs_by_reward_alone():
    found = pairs_of_solutions(
        [solution(1, None, 0.9), solution(2, None, 0.5), solution(3, None, 0.4)], prefers=rewarded_over, margin=0.4
    )
    assert [key(pair)[1:] for pair in found] == [((1, 0), (2, 0)), ((1, 0), (3, 0))]


def trajectory(token, outcome, value):
    last = Completion((token, 0), (-0.5, -0.25), FinishReason.STOP, policy_version="p+3")
    reward = Reward(float("nan")) if value is None else Reward(value)
    state, place = State(PROBLEM).extend(last), Provenance("sample", None, "rl")
    return Trajectory(state, f"text {token}", Verdict(outcome, value), reward, Cost(), 0, last, provenance=place)


def test_groups_give_pairs_with_their_places():
    group = Group(
        PROBLEM,
        (
            trajectory(1, WRONG, 0.0),
            trajectory(2, UNSCORED, None),
            trajectory(3, RIGHT, 1.0),
            trajectory(3, RIGHT, 1.0),
        ),
    )
    (pair,) = pairs_of_groups([group], run="runs/rl")
    assert (pair.chosen, pair.rejected) == ((3, 0), (1, 0))
    assert (pair.chosen_text, pair.rejected_text) == ("text 3", "text 1")
    assert pair.chosen_origin == Origin(run="runs/rl", stage="rl", strategy="sample", sample=2)
    assert pair.rejected_origin == replace(pair.chosen_origin, sample=0)


def test_solutions_of_a_tree_pair_up(sprout):
    sprout.add(sprout.add(0, [1]), [2, 0], finish="stop", verdict="right")
    sprout.add(sprout.add(0, [3]), [0], finish="stop", verdict="wrong")
    sprout.add(0, [4, 0], finish="stop", verdict="unscored")
    (pair,) = pairs_of_solutions(solutions_of_tree(sprout.tree, text=sprout.text))
    assert (pair.chosen, pair.rejected) == ((1, 2, 0), (3, 0))
    assert (pair.chosen_text, pair.rejected_text) == ("ab.", "c.")


@pytest.mark.parametrize(("chosen", "values"), [((1,), (0.5, 0.5)), ((1,), (0.0, 1.0)), ((2,), (1.0, 0.0))])
def test_a_pair_without_a_preference_is_refused(chosen, values):
    with pytest.raises(InvalidValue):
        Pair(problem=PROBLEM, chosen=chosen, rejected=(2,), chosen_value=values[0], rejected_value=values[1])


def test_wrong_settings_are_refused(sprout):
    for call in (
        lambda: pairs_of_tree(sprout.tree, margin=-0.1),
        lambda: pairs_of_tree(sprout.tree, margin=float("nan")),
        lambda: pairs_of_solutions([], cap=0),
    ):
        with pytest.raises(InvalidValue, match="accepted"):
            call()


def test_of_pairs_whose_solutions_are_as_rare_the_widest_is_taken():
    values = {1: (Outcome.RIGHT, 1.0), 2: (Outcome.RIGHT, 0.75), 3: (Outcome.WRONG, 0.5), 4: (Outcome.WRONG, 0.0)}
    solutions = [
        Solution(problem=Problem("p", "t", ()), tokens=(token,), outcome=outcome, value=value)
        for token, (outcome, value) in values.items()
    ]
    for seed in range(5):
        found = pairs_of_solutions(solutions, cap=3, seed=seed)
        assert [(pair.chosen, pair.rejected) for pair in found[:2]] == [((1,), (4,)), ((2,), (3,))]
        assert (found[2].chosen, found[2].rejected) == ((2,), (4,))
    assert [(pair.chosen, pair.rejected) for pair in pairs_of_solutions(solutions, cap=1)] == [((1,), (4,))]
