from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from step_world import PROBLEMS, STEPS, Draw, grown, noisy, optimum, plain, ranked, search, value

from clew.core.cost import Budget
from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import State
from clew.search.rebase import Rebase


def slow_shares(rewards, budget, temperature, rounding):
    weights = [Fraction(math.exp((reward - max(rewards)) / temperature)) for reward in rewards]
    if rounding == "nearest":
        return [round(budget * weight / sum(weights)) for weight in weights]
    shares, total = [0] * len(rewards), sum(weights)
    for place in sorted(range(len(rewards)), key=lambda place: -rewards[place]):
        shares[place] = math.ceil(budget * weights[place] / total) if budget else 0
        budget -= shares[place]
        total -= weights[place]
    return shares


def slow_rebase(problem, n, rate, temperature, rounding):
    draw, leaves, counts, done = Draw(), [State(problem)], [n], []
    while sum(counts):
        steps = [draw(leaf) for leaf, count in zip(leaves, counts, strict=True) for _ in range(count)]
        done += [step for step in steps if step.finished]
        leaves = [step for step in steps if not step.finished]
        if not leaves or len(done) >= n:
            break
        counts = slow_shares([rate(leaf) for leaf in leaves], n - len(done), temperature, rounding)
    return draw.all, done, sum(counts) == 0


@pytest.mark.parametrize("n", [1, 7, 16])
@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("rounding", ["sequential", "nearest"])
@pytest.mark.parametrize("rate", [value, noisy])
def test_against_a_slow_one(n, temperature, rounding, rate):
    for outcome in search(Rebase(n=n, temperature=temperature, rounding=rounding, sampling=STEPS), rate):
        states, done, stuck = slow_rebase(outcome.problem, n, rate, temperature, rounding)
        assert grown(outcome)[: len(states)] == states
        if rounding == "sequential":
            assert len(done) == n
        if not stuck:
            assert grown(outcome) == states
            assert outcome.result.chosen == ranked(done, rate)[0]


def test_where_every_share_rounds_to_nothing_the_search_goes_on():
    """Many leaves after a level that overspent, little budget after many have finished: no leaf would get a child."""
    problems = [replace(PROBLEMS[0], id=f"world:{i}") for i in range(400)]
    stuck = 0
    for outcome in search(Rebase(n=9, temperature=1.0, rounding="nearest", sampling=STEPS), noisy, problems=problems):
        states, _, died = slow_rebase(outcome.problem, 9, noisy, 1.0, "nearest")
        assert grown(outcome)[: len(states)] == states
        assert (len(grown(outcome)) > len(states)) == died
        stuck += died
    assert stuck > 0


def test_an_exact_guide_and_width_find_the_optimum():
    for outcome in search(Rebase(n=256, temperature=0.02, sampling=STEPS)):
        assert outcome.result.chosen.tokens == optimum(outcome.problem)


@pytest.mark.parametrize("max_depth", [1, 2, 40])
@pytest.mark.parametrize("rounding", ["sequential", "nearest"])
def test_width_one_is_plain_sampling(max_depth, rounding):
    strategy = Rebase(n=1, sampling=STEPS, max_depth=max_depth, rounding=rounding)
    for outcome in search(strategy, noisy, seed=3):
        assert outcome.result.chosen == plain(outcome.problem, max_depth, seed=3)


@pytest.mark.parametrize("calls", [1, 9, 17, 30])
def test_a_budget_ends_it_with_the_best_so_far(calls):
    for outcome in search(Rebase(n=8, sampling=STEPS), budget=Budget(calls=calls)):
        done = [state for state in grown(outcome) if state.finished]
        assert outcome.cost.model_calls < calls + 8
        assert outcome.result.chosen == (ranked(done, value)[0] if done else None)


def test_infinite_scores_end_no_search():
    def rate(state):
        return -math.inf if state.tokens[-1] == 1 else math.inf if state.tokens[-1] == 2 else 0.0

    for outcome in search(Rebase(n=8, sampling=STEPS), rate):
        assert outcome.result.chosen.finished


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"n": 0}, InvalidValue),
        ({"temperature": 0.0}, InvalidValue),
        ({"temperature": float("nan")}, InvalidValue),
        ({"rounding": "down"}, UnknownName),
    ],
)
def test_settings_that_are_not_accepted(settings, error):
    with pytest.raises(error):
        Rebase(**settings)
