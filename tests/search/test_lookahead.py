from __future__ import annotations

from dataclasses import replace

import pytest
from step_world import DEPTH, POLICY, STEPS, Guide, Task, grown, noisy, optimum, plain, ranked, search, value
from test_beam import slow_beam

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.protocols import Prompt
from clew.search.beam import Beam
from clew.search.lookahead import Lookahead


def greedy_end(state, k, max_depth=40):
    while k and not state.finished and len(state.steps) < max_depth:
        (completion,) = POLICY.sample([Prompt(state, 99)], replace(STEPS, temperature=0.0))
        state, k = state.extend(completion), k - 1
    return state


def steps_of(outcome):
    """Nodes that were sampled as steps: a roll-out is the first child of its step, or follows another roll-out."""
    tree, rolled = outcome.result.tree, set()
    for node in range(1, len(tree)):
        parent = tree.parent[node]
        if parent in rolled or (parent and node == tree.children[parent][0]):
            rolled.add(node)
    return [node for node in range(1, len(tree)) if node not in rolled]


@pytest.mark.parametrize("rate", [value, noisy])
def test_without_looking_ahead_it_is_a_beam(rate):
    beams = search(Beam(n=8, m=4, sampling=STEPS), rate)
    for ahead, beam in zip(search(Lookahead(n=8, m=4, k=0, sampling=STEPS), rate), beams, strict=True):
        assert grown(ahead) == grown(beam)
        assert ahead.result.chosen == beam.result.chosen
        assert ahead.cost.model_calls == beam.cost.model_calls


@pytest.mark.parametrize("k", [1, 2, 9])
@pytest.mark.parametrize("max_depth", [3, 40])
def test_a_step_is_worth_what_it_leads_to(k, max_depth):
    for outcome in search(Lookahead(n=6, m=3, k=k, sampling=STEPS, max_depth=max_depth), noisy):
        tree = outcome.result.tree
        assert max(tree.depth) <= max_depth
        for node in steps_of(outcome):
            assert tree.score[node] == noisy(greedy_end(tree.states[node], k, max_depth))


@pytest.mark.parametrize("k", [1, 3])
def test_the_paths_are_those_of_a_beam_with_far_sighted_scores(k):
    """One sample of each kept step has gone into looking ahead, so draws differ; the cut must not."""
    for outcome in search(Lookahead(n=6, m=3, k=k, sampling=STEPS), noisy):
        steps = [outcome.result.tree.states[node] for node in steps_of(outcome)]
        _, done = slow_beam(outcome.problem, 6, 3, noisy)
        assert sum(state.finished for state in steps) == len(done) == 6
        for depth in range(1, DEPTH + 1):
            level = [s for s in steps if len(s.steps) == depth and not s.finished]
            if not level:
                break
            followed = {s.parent.tokens for s in steps if len(s.steps) == depth + 1}
            order = ranked(list({s.tokens: s for s in level}.values()), lambda s: noisy(greedy_end(s, k)))
            assert followed == {s.tokens for s in order[: -(-len(level) // 3)]}
        assert outcome.result.chosen == ranked([s for s in steps if s.finished], noisy)[0]


def test_equal_steps_are_rolled_out_and_rated_once():
    guide = Guide(noisy)
    search(Lookahead(n=16, m=4, k=2, sampling=STEPS), scorer=guide)
    for call in guide.asked:
        assert len(call) == len(set(call))
    for outcome in search(Lookahead(n=16, m=4, k=1, sampling=STEPS)):
        tree = outcome.result.tree
        first = [node for node in tree.children[0] if tree.children[node]]
        assert len({tree.states[node].tokens for node in first}) == len(first)


def test_an_exact_guide_and_width_find_the_optimum():
    for outcome in search(Lookahead(n=256, m=128, k=0, sampling=STEPS)):
        assert outcome.result.chosen.tokens == optimum(outcome.problem)


def test_the_verifier_guides_by_what_a_step_leads_to():
    strategy = Lookahead(n=8, m=4, k=9, sampling=STEPS, guide="verifier")
    scores = set()
    for outcome in search(strategy):
        tree = outcome.result.tree
        for node in steps_of(outcome):
            end = greedy_end(tree.states[node], 9)
            assert tree.score[node] == Task().verify(end.problem, POLICY.text(end)).value
            scores.add((tree.score[node], tree.states[node].finished))
    assert len(scores) == 4


@pytest.mark.parametrize("max_depth", [1, 2, 40])
def test_width_one_without_a_look_is_plain_sampling(max_depth):
    for outcome in search(Lookahead(n=1, m=1, k=0, sampling=STEPS, max_depth=max_depth), noisy, seed=3):
        assert outcome.result.chosen == plain(outcome.problem, max_depth, seed=3)


@pytest.mark.parametrize("calls", range(1, 60, 6))
def test_a_budget_ends_it_with_the_best_so_far(calls):
    for outcome in search(Lookahead(n=8, m=4, k=2, sampling=STEPS), budget=Budget(calls=calls)):
        assert outcome.cost.model_calls < calls + 8
        done = [state for state in grown(outcome) if state.finished]
        assert (outcome.result.chosen in done) if done else outcome.result.chosen is None


def test_settings_that_are_not_accepted():
    for settings in ({"n": 0}, {"m": 0}, {"k": -1}):
        with pytest.raises(InvalidValue):
            Lookahead(**settings)
