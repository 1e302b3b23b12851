from __future__ import annotations

import math

import pytest
from step_world import POLICY, PROBLEMS, STEPS, WHOLE, Guide, grown, noisy, optimum, plain, ranked, search, value

from clew.core.cost import Budget
from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import Completion, FinishReason, State
from clew.search.best_first import BestFirst
from clew.search.driver import run_searches
from clew.search.policies import ScriptedPolicy

WIDE = 96
"""Samples of a state: enough to draw each of its few steps."""


def logprob_to_go(state):
    """The exact h for g of log-probs: that of the likeliest end that can be reached."""
    return 0.0 if state.finished else max(math.log(p) for _, p in POLICY.enumerate(state, WHOLE))


def likeliest(problem):
    root = State(problem)
    return max(POLICY.enumerate(root, WHOLE), key=lambda pair: pair[1])[1]


def probability(state):
    root = State(state.problem)
    return next(p for completion, p in POLICY.enumerate(root, WHOLE) if completion.tokens == state.tokens)


def expanded(outcome):
    tree = outcome.result.tree
    return sum(bool(children) for children in tree.children)


def test_a_star_finds_the_likeliest_response_and_a_better_h_finds_it_sooner():
    counts = []
    for rate, weight in ((logprob_to_go, 1.0), (lambda state: 0.0, 1.0), (noisy, 0.0)):
        strategy = BestFirst(m=WIDE, g="logprob", weight=weight, expansions=999, sampling=STEPS)
        outcomes = search(strategy, rate)
        for outcome in outcomes:
            assert probability(outcome.result.chosen) == pytest.approx(likeliest(outcome.problem), rel=1e-9)
        counts.append([expanded(outcome) for outcome in outcomes])
    exact, none, ignored = counts
    assert none == ignored
    assert all(a <= b for a, b in zip(exact, none, strict=True))
    assert sum(exact) < sum(none)


def test_with_an_exact_h_only_the_states_on_the_way_are_expanded():
    for outcome in search(BestFirst(m=WIDE, sampling=STEPS)):
        assert outcome.result.chosen.tokens == optimum(outcome.problem)
        assert expanded(outcome) == len(outcome.result.chosen.steps)


@pytest.mark.parametrize("rate", [value, noisy])
@pytest.mark.parametrize("n", [1, 3])
def test_the_order_of_expansions_against_a_slow_one(rate, n):
    """Given the children that each state turned out to have: look through all that is open for the best, each time."""
    for outcome in search(BestFirst(n=n, m=3, expansions=12, sampling=STEPS), rate):
        tree = outcome.result.tree
        open_nodes, seen, found, order = [0], {()}, [], []
        while open_nodes and len(found) < n:
            node = max(open_nodes, key=lambda node: (rate(tree.states[node]) if node else 0.0, -node))
            open_nodes.remove(node)
            if tree.states[node].finished:
                found.append(tree.states[node])
                continue
            if len(order) == 12:
                break
            order.append(node)
            assert len(tree.children[node]) == 3
            for child in tree.children[node]:
                if tree.states[child].tokens not in seen:
                    seen.add(tree.states[child].tokens)
                    open_nodes.append(child)
        assert sorted((n for n in range(len(tree)) if tree.children[n]), key=lambda n: tree.children[n]) == order
        done = found or [state for state in grown(outcome) if state.finished]
        assert outcome.result.chosen == (ranked(done, rate)[0] if done else None)


def test_more_found_never_hurts():
    scores = [
        sum(noisy(o.result.chosen) for o in search(BestFirst(n=n, m=8, expansions=99, sampling=STEPS), noisy))
        for n in (1, 4, 16)
    ]
    assert scores == sorted(scores)


@pytest.mark.parametrize("max_depth", [1, 2, 40])
def test_width_one_is_plain_sampling(max_depth):
    for outcome in search(BestFirst(m=1, sampling=STEPS, max_depth=max_depth), noisy, seed=3):
        assert outcome.result.chosen == plain(outcome.problem, max_depth, seed=3)


def test_expansions_are_finite():
    """A guide that likes it short never lets the search deepen by itself."""
    for outcome in search(BestFirst(n=99, m=4, expansions=7, sampling=STEPS), lambda s: -float(len(s.tokens))):
        assert expanded(outcome) <= 7
        assert len(outcome.result.tree) <= 1 + 7 * 4


@pytest.mark.parametrize("calls", [1, 5, 9, 13])
def test_a_budget_ends_it_with_the_best_so_far(calls):
    for outcome in search(BestFirst(n=9, m=4, sampling=STEPS), noisy, budget=Budget(calls=calls)):
        assert outcome.cost.model_calls < calls + 4
        done = [state for state in grown(outcome) if state.finished]
        assert (outcome.result.chosen in done) if done else outcome.result.chosen is None


def test_log_probs_that_are_missing():
    policy = ScriptedPolicy(lambda prompt, sampling: "a")
    assert policy.logprob is None
    with pytest.raises(InvalidValue, match="log-probs") as error:
        run_searches(BestFirst(g="logprob"), PROBLEMS, policy, task=None, scorer=Guide(lambda state: 0.0))
    assert "none" in error.value.advice
    assert Completion((1,), None, FinishReason.STOP).logprobs is None


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"expansions": 0}, InvalidValue),
        ({"n": 0}, InvalidValue),
        ({"m": 0}, InvalidValue),
        ({"weight": -1.0}, InvalidValue),
        ({"g": "length"}, UnknownName),
    ],
)
def test_settings_that_are_not_accepted(settings, error):
    with pytest.raises(error):
        BestFirst(**settings)
