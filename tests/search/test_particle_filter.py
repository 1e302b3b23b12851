from __future__ import annotations

import random
from collections import Counter

import pytest
from step_world import POLICY, PROBLEMS, STEPS, grown, noisy, optimum, plain, ranked, search, value

from clew.core.cost import Budget
from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import State
from clew.search.particle_filter import ParticleFilter


def odds(state):
    score = min(max(noisy(state), 1e-7), 1 - 1e-7)
    return score / (1 - score)


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_many_particles_follow_the_exact_law(resampling):
    """After one step and one resampling a state holds the share (policy's probability) x (odds of its score)."""
    n = 2000

    def rate(state):
        return (0.6, 0.2, 0.5, 0.8)[state.tokens[-1]]

    for problem, outcome in zip(
        PROBLEMS[:3],
        search(ParticleFilter(n=n, resampling=resampling, sampling=STEPS, max_depth=2), rate, problems=PROBLEMS[:3]),
        strict=True,
    ):
        law = dict.fromkeys(range(4), 0.0)
        for word, probability in enumerate(POLICY.next_probs(State(problem))):
            law[word] = probability * rate(State(problem, (word,))) / (1 - rate(State(problem, (word,))))
        total = sum(law.values())
        second = Counter(state.tokens[0] for state in grown(outcome) if len(state.steps) == 2)
        # Finished particles take no second step: the law of the others is what can be seen.
        for word in (1, 2, 3):
            assert second[word] / n == pytest.approx(law[word] / total, abs=0.035)
        assert second.total() < n


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_a_guide_without_an_opinion_changes_little(resampling):
    """With equal scores systematic resampling keeps every particle: n plain samples, each followed to its end."""
    outcomes = search(ParticleFilter(n=8, resampling=resampling, sampling=STEPS), lambda state: 0.5)
    for outcome in outcomes:
        tree = outcome.result.tree
        widths = [len(children) for node, children in enumerate(tree.children) if node and children]
        if resampling == "systematic":
            assert set(widths) <= {1}
            assert sum(state.finished for state in grown(outcome)) == 8
    if resampling == "multinomial":
        assert any(len(children) > 1 for o in outcomes for children in o.result.tree.children[1:])


def test_the_same_draws_whatever_the_global_stream():
    strategy = ParticleFilter(n=8, resampling="multinomial", sampling=STEPS)
    random.seed(1)
    first = [grown(outcome) for outcome in search(strategy, noisy)]
    random.seed(2)
    assert first == [grown(outcome) for outcome in search(strategy, noisy)]
    other = search(ParticleFilter(n=8, resampling="multinomial", sampling=STEPS, seed=1), noisy)
    assert first != [grown(outcome) for outcome in other]


def test_every_step_of_every_problem_draws_from_a_stream_of_its_own(monkeypatch):
    drawn = []

    def record(weights, num, stream):
        drawn.append(stream.random())
        return list(range(num))

    monkeypatch.setattr("clew.search.particle_filter.systematic", record)
    search(ParticleFilter(n=8, sampling=STEPS), noisy)
    assert len(drawn) > 2 * len(PROBLEMS)
    assert len(set(drawn)) == len(drawn)


def test_finished_particles_keep_their_place_and_crowd_out_worse_ones():
    def rate(state):
        return 1.0 if state.finished else 0.0

    for outcome in search(ParticleFilter(n=32, sampling=STEPS), rate):
        done = [len(state.steps) for state in grown(outcome) if state.finished]
        # As soon as one is finished all particles are it.
        assert len(set(done)) == 1
        assert max(len(state.steps) for state in grown(outcome)) == done[0]


def test_particles_of_no_weight_are_not_followed():
    def rate(state):
        return 0.0 if 1 in state.tokens else 0.9

    for outcome in search(ParticleFilter(n=32, sampling=STEPS), rate):
        assert all(1 not in state.tokens[:-1] for state in grown(outcome))


def test_an_exact_guide_and_width_find_the_optimum():
    for outcome in search(ParticleFilter(n=600, sampling=STEPS)):
        assert outcome.result.chosen.tokens == optimum(outcome.problem)


@pytest.mark.parametrize("rate", [value, noisy])
def test_the_best_of_all_that_finished_is_chosen(rate):
    for outcome in search(ParticleFilter(n=12, sampling=STEPS), rate):
        assert outcome.result.chosen == ranked([s for s in grown(outcome) if s.finished], rate)[0]


@pytest.mark.parametrize("max_depth", [1, 2, 40])
def test_one_particle_is_plain_sampling(max_depth):
    for outcome in search(ParticleFilter(n=1, sampling=STEPS, max_depth=max_depth), noisy, seed=3):
        assert outcome.result.chosen == plain(outcome.problem, max_depth, seed=3)


@pytest.mark.parametrize("calls", [1, 9, 17, 30])
def test_a_budget_ends_it_with_the_best_so_far(calls):
    for outcome in search(ParticleFilter(n=8, sampling=STEPS), budget=Budget(calls=calls)):
        assert outcome.cost.model_calls < calls + 8
        done = [state for state in grown(outcome) if state.finished]
        assert outcome.result.chosen == (ranked(done, value)[0] if done else None)


def test_settings_that_are_not_accepted():
    with pytest.raises(InvalidValue):
        ParticleFilter(n=0)
    with pytest.raises(UnknownName):
        ParticleFilter(resampling="stratified")
