from __future__ import annotations

import pytest
from step_world import STEPS, Draw, grown, noisy, optimum, plain, ranked, search, value

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import State
from clew.search.dvts import Dvts


def slow_dvts(problem, n, m, rate):
    draw, ends = Draw(), [State(problem)] * (n // m)
    while ends:
        bests = [ranked([draw(state) for _ in range(m)], rate)[0] for state in ends]
        ends = [best for best in bests if not best.finished]
    return draw.all


@pytest.mark.parametrize(("n", "m"), [(1, 1), (8, 4), (4, 4), (5, 1), (24, 2)])
@pytest.mark.parametrize("rate", [value, noisy])
def test_against_a_slow_one(n, m, rate):
    for outcome in search(Dvts(n=n, m=m, sampling=STEPS), rate):
        states = slow_dvts(outcome.problem, n, m, rate)
        assert grown(outcome) == states
        assert outcome.result.chosen == ranked([state for state in states if state.finished], rate)[0]


def test_an_exact_guide_and_width_find_the_optimum():
    for outcome in search(Dvts(n=256, m=128, sampling=STEPS)):
        assert outcome.result.chosen.tokens == optimum(outcome.problem)


@pytest.mark.parametrize("max_depth", [1, 2, 40])
def test_width_one_is_plain_sampling(max_depth):
    for outcome in search(Dvts(n=1, m=1, sampling=STEPS, max_depth=max_depth), noisy, seed=3):
        assert outcome.result.chosen == plain(outcome.problem, max_depth, seed=3)


def test_trees_without_a_choice_are_independent_samples():
    """With m = 1 nothing is compared: the paths are n plain samples, whatever the guide says."""
    one, other = (search(Dvts(n=6, m=1, sampling=STEPS), rate) for rate in (value, noisy))
    for a, b in zip(one, other, strict=True):
        assert grown(a) == grown(b)
        assert sum(state.finished for state in grown(a)) == 6


@pytest.mark.parametrize("calls", [1, 9, 17, 30])
def test_a_budget_ends_it_with_the_best_so_far(calls):
    for outcome in search(Dvts(n=8, m=4, sampling=STEPS), budget=Budget(calls=calls)):
        done = [state for state in grown(outcome) if state.finished]
        assert outcome.cost.model_calls < calls + 8
        assert outcome.result.chosen == (ranked(done, value)[0] if done else None)


@pytest.mark.parametrize("settings", [{"n": 10, "m": 4}, {"n": 2, "m": 4}, {"n": 0, "m": 1}, {"m": 0}])
def test_settings_that_are_not_accepted(settings):
    with pytest.raises(InvalidValue):
        Dvts(**settings)
