from __future__ import annotations

import math

import pytest
from step_world import (
    DEPTH,
    POLICY,
    STEPS,
    Draw,
    Guide,
    Task,
    distinct,
    grown,
    noisy,
    optimum,
    plain,
    ranked,
    reward,
    search,
    value,
)

from clew.core.cost import Budget
from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import State
from clew.search.beam import Beam


def slow_beam(problem, n, m, rate, max_depth=40):
    """Every draw and every finished path of a beam, written out."""
    draw, beam, counts, done = Draw(), [State(problem)], [n], []
    for _ in range(max_depth):
        steps = [draw(state) for state, count in zip(beam, counts, strict=True) for _ in range(count)]
        done += [state for state in steps if state.finished]
        left = [state for state in steps if not state.finished]
        if not left:
            break
        beam = ranked(distinct(left), rate)[: math.ceil(len(left) / m)]
        counts = [len(left) // len(beam) + (place < len(left) % len(beam)) for place in range(len(beam))]
    return draw.all, done


@pytest.mark.parametrize(("n", "m"), [(1, 1), (8, 4), (8, 3), (4, 4), (5, 1), (24, 2)])
@pytest.mark.parametrize("rate", [value, noisy])
def test_against_a_slow_beam(n, m, rate):
    twins = 0
    for outcome in search(Beam(n=n, m=m, sampling=STEPS), rate):
        states, done = slow_beam(outcome.problem, n, m, rate)
        assert grown(outcome) == states
        assert outcome.result.chosen == ranked(done, rate)[0]
        assert outcome.cost.model_calls == len(states)
        assert len(done) == n
        twins += len(states) - len(distinct(states))
    assert twins > 0 or n == 1


def test_an_exact_guide_and_width_find_the_optimum():
    for outcome in search(Beam(n=256, m=128, sampling=STEPS)):
        assert outcome.result.chosen.tokens == optimum(outcome.problem)


def test_more_width_never_hurts_on_average():
    means = []
    for n in (1, 4, 16, 64):
        outcomes = search(Beam(n=n, m=4, sampling=STEPS))
        means.append(sum(reward(outcome.result.chosen) for outcome in outcomes))
    assert means == sorted(means)
    assert means[0] < means[-1]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("max_depth", [1, 2, 40])
def test_width_one_is_plain_sampling(seed, max_depth):
    strategy = Beam(n=1, m=1, sampling=STEPS, max_depth=max_depth)
    for outcome in search(strategy, seed=seed):
        assert outcome.result.chosen == plain(outcome.problem, max_depth, seed)


def test_equal_states_are_rated_once():
    guide = Guide(noisy)
    outcomes = search(Beam(n=16, m=4, sampling=STEPS), scorer=guide)
    asked = [state for call in guide.asked for state in call]
    assert len(asked) == len(set(asked))
    for outcome in outcomes:
        tree = outcome.result.tree
        assert [tree.score[node] for node in range(1, len(tree))] == [noisy(state) for state in grown(outcome)]


@pytest.mark.parametrize(
    ("how", "together"), [("min", min), ("product", math.prod), ("mean", lambda s: sum(s) / len(s))]
)
def test_a_path_is_worth_its_steps_together(how, together):
    def whole(state):
        marks = []
        while state.steps:
            marks.append(noisy(state))
            state = state.parent
        return together(marks)

    differs = 0
    for outcome in search(Beam(n=12, m=3, sampling=STEPS, aggregation=how), noisy):
        states, done = slow_beam(outcome.problem, 12, 3, whole)
        assert grown(outcome) == states
        assert whole(outcome.result.chosen) == pytest.approx(max(map(whole, done)))
        differs += states != slow_beam(outcome.problem, 12, 3, noisy)[0]
    assert differs > 0


def test_the_verifier_judges_finished_paths_whatever_the_aggregation():
    found = 0
    for how in ("last", "min", "product"):
        for outcome in search(Beam(n=48, m=2, sampling=STEPS, guide="verifier", aggregation=how)):
            verify = Task().verify
            right = [s for s in grown(outcome) if s.finished and verify(s.problem, POLICY.text(s)).right]
            assert outcome.result.chosen in (right or grown(outcome))
            found += bool(right)
    assert found > 0


def test_a_vote_adds_values_up():
    def rate(state):
        return 0.5 + 0.1 * noisy(state)

    changed = 0
    for best, vote in zip(
        search(Beam(n=24, m=8, sampling=STEPS), rate),
        search(Beam(n=24, m=8, sampling=STEPS, choose="vote"), rate),
        strict=True,
    ):
        assert grown(best) == grown(vote)
        totals = {}
        done = [state for state in grown(vote) if state.finished]
        for state in done:
            word = Task().extract(POLICY.text(state))
            if word is not None:
                totals[word] = totals.get(word, 0.0) + rate(state)
        winner = max(totals, key=totals.get)
        of_winner = [state for state in done if Task().extract(POLICY.text(state)) == winner]
        assert vote.result.chosen == ranked(of_winner, rate)[0]
        assert best.result.chosen == ranked(done, rate)[0]
        changed += vote.result.chosen != best.result.chosen
    assert changed > 0


def test_a_vote_over_negative_scores_is_refused():
    with pytest.raises(InvalidValue, match="weight of a vote"):
        search(Beam(n=2, m=1, sampling=STEPS, choose="vote"), lambda state: -1.0)


def test_a_product_of_scores_that_are_no_probabilities_is_refused():
    with pytest.raises(InvalidValue, match="score of a step"):
        search(Beam(n=2, m=1, sampling=STEPS, aggregation="product"), lambda state: -1.0)


@pytest.mark.parametrize("calls", range(1, 40, 3))
def test_a_budget_ends_it_with_the_best_so_far(calls):
    for outcome in search(Beam(n=8, m=4, sampling=STEPS), budget=Budget(calls=calls)):
        done = [state for state in grown(outcome) if state.finished]
        assert outcome.cost.model_calls < calls + 8
        assert outcome.result.chosen == (ranked(done, value)[0] if done else None)


def test_paths_that_are_cut_off_answer_if_none_is_finished():
    for outcome in search(Beam(n=6, m=2, sampling=STEPS, max_depth=2)):
        ends = [state for state in grown(outcome) if state.finished]
        cut = [state for state in grown(outcome) if len(state.steps) == 2]
        assert outcome.result.chosen == ranked(ends or cut, value)[0]
        assert max(len(state.steps) for state in grown(outcome)) <= 2


def test_the_deepest_path_is_as_deep_as_the_world():
    assert max(len(s.steps) for o in search(Beam(n=16, m=4, sampling=STEPS)) for s in grown(o)) == DEPTH + 1


@pytest.mark.parametrize(
    ("settings", "error", "name"),
    [
        ({"n": 0}, InvalidValue, "n"),
        ({"m": 0}, InvalidValue, "m"),
        ({"max_depth": 0}, InvalidValue, "max_depth"),
        ({"aggregation": "median"}, UnknownName, "aggregation"),
        ({"choose": "worst"}, UnknownName, "choose"),
        ({"guide": "prm"}, UnknownName, "guide"),
    ],
)
def test_settings_that_are_not_accepted(settings, error, name):
    with pytest.raises(error, match=name):
        Beam(**settings)
