from __future__ import annotations

from itertools import pairwise

import pytest
from step_world import POLICY, STEPS, Draw, Task, distinct, grown, noisy, optimum, plain, ranked, search, value

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import State
from clew.search.tree_of_thoughts import TreeOfThoughtsBfs, TreeOfThoughtsDfs


def slow_bfs(problem, b, m, rate):
    draw, states = Draw(), [State(problem)]
    while not all(state.finished for state in states):
        thoughts = [draw(state) for state in states if not state.finished for _ in range(m)]
        kept = [state for state in states if state.finished]
        states = ranked(distinct(kept + thoughts), rate)[:b]
    return draw.all


@pytest.mark.parametrize(("b", "m"), [(1, 1), (1, 4), (3, 4), (5, 2)])
@pytest.mark.parametrize("rate", [value, noisy])
def test_breadth_first_against_a_slow_one(b, m, rate):
    for outcome in search(TreeOfThoughtsBfs(b=b, m=m, sampling=STEPS), rate):
        states = slow_bfs(outcome.problem, b, m, rate)
        assert grown(outcome) == states
        assert outcome.result.chosen == ranked([state for state in states if state.finished], rate)[0]


@pytest.mark.parametrize(("n", "m", "max_nodes", "threshold"), [(1, 3, 30, 0.4), (3, 4, 41, 0.3), (2, 2, 9, -1.0)])
@pytest.mark.parametrize("rate", [value, noisy])
def test_depth_first_against_recursion(n, m, max_nodes, threshold, rate):
    """Algorithm 2 as it is printed, over the children that each state turned out to have."""
    backtracked = 0
    for outcome in search(TreeOfThoughtsDfs(n=n, m=m, max_nodes=max_nodes, threshold=threshold, sampling=STEPS), rate):
        tree, found, order, made = outcome.result.tree, [], [], 0

        def follow(node, tree=tree, found=found, order=order):
            nonlocal made
            if len(found) == n:
                return
            if tree.states[node].finished:
                found.append(tree.states[node])
                return
            if made == max_nodes:
                return
            order.append(node)
            assert len(tree.children[node]) == min(m, max_nodes - made)
            made += len(tree.children[node])
            first = {tree.states[child].tokens: child for child in reversed(tree.children[node])}.values()
            for child in sorted(first, key=lambda child: (-rate(tree.states[child]), child)):
                if rate(tree.states[child]) > threshold:
                    follow(child)

        follow(0)
        assert made == len(tree) - 1
        assert sorted(order, key=lambda node: tree.children[node]) == order
        done = found or [state for state in grown(outcome) if state.finished]
        assert outcome.result.chosen == (ranked(done, rate)[0] if done else None)
        backtracked += any(tree.depth[a] >= tree.depth[b] for a, b in pairwise(order))
    assert backtracked > 0 or rate is value or threshold < 0


def test_an_exact_guide_and_width_find_the_optimum():
    for strategy in (
        TreeOfThoughtsBfs(b=2, m=96, sampling=STEPS),
        TreeOfThoughtsDfs(m=96, max_nodes=999, threshold=0.0, sampling=STEPS),
    ):
        for outcome in search(strategy):
            assert outcome.result.chosen.tokens == optimum(outcome.problem)


def test_depth_first_tracks_back_until_the_verifier_agrees():
    strategy = TreeOfThoughtsDfs(m=4, max_nodes=400, guide="verifier", sampling=STEPS)
    for outcome in search(strategy):
        done = [state for state in grown(outcome) if state.finished]
        right = [state for state in done if Task().verify(state.problem, POLICY.text(state)).right]
        assert outcome.result.chosen == (right or done)[0]
        assert len(outcome.result.tree) <= 401
        assert bool(right) or len(done) > 4


@pytest.mark.parametrize("max_depth", [1, 2, 40])
@pytest.mark.parametrize(
    "make",
    [
        lambda depth: TreeOfThoughtsBfs(b=1, m=1, sampling=STEPS, max_depth=depth),
        lambda depth: TreeOfThoughtsDfs(m=1, threshold=-1.0, sampling=STEPS, max_depth=depth),
    ],
)
def test_width_one_is_plain_sampling(make, max_depth):
    for outcome in search(make(max_depth), noisy, seed=3):
        assert outcome.result.chosen == plain(outcome.problem, max_depth, seed=3)


@pytest.mark.parametrize("calls", [1, 5, 9, 13, 30])
@pytest.mark.parametrize(
    "strategy", [TreeOfThoughtsBfs(b=3, m=4, sampling=STEPS), TreeOfThoughtsDfs(n=9, m=4, sampling=STEPS)]
)
def test_a_budget_ends_it_with_the_best_so_far(strategy, calls):
    for outcome in search(strategy, noisy, budget=Budget(calls=calls)):
        assert outcome.cost.model_calls < calls + 12
        done = [state for state in grown(outcome) if state.finished]
        assert (outcome.result.chosen in done) if done else outcome.result.chosen is None


def test_settings_that_are_not_accepted():
    for make in (
        lambda: TreeOfThoughtsBfs(b=0),
        lambda: TreeOfThoughtsBfs(m=0),
        lambda: TreeOfThoughtsDfs(max_nodes=0),
    ):
        with pytest.raises(InvalidValue):
            make()
