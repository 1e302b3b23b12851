from __future__ import annotations

import math

import pytest
from step_world import POLICY, PROBLEMS, STEPS, WHOLE, Draw, Guide, grown, noisy, plain, reward, search, value

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import FinishReason, Sampling, State
from clew.search import ScriptedPolicy, run_searches
from clew.search.serve import sample_seed
from clew.search.speculative_rejection import SpeculativeRejection


def slow_race(problem, n, alpha, rate, max_depth=16):
    """All that is drawn, and the answer: a list of responses in which the dropped ones are crossed out."""
    draw, race, finished = Draw(), [State(problem)] * n, []
    for _ in range(max_depth):
        race = [state if state.finished else draw(state) for state in race]
        finished += [state for state in race if state.finished and not any(state is other for other in finished)]
        if all(state.finished for state in race):
            break
        for _ in range(round(alpha * 1000) * len(race) // 1000):
            worst = min(rate(state) for state in race)
            race.pop(max(i for i, state in enumerate(race) if rate(state) == worst))
    among = finished or race
    # The earliest made of the best.
    return draw.all, max(sorted(among, key=lambda s: next(i for i, o in enumerate(draw.all) if o is s)), key=rate)


@pytest.mark.parametrize("rate", [noisy, reward, value, lambda state: 0.5], ids=["noisy", "reward", "value", "ties"])
@pytest.mark.parametrize(("n", "alpha"), [(1, 0.5), (2, 0.5), (5, 0.2), (5, 0.9), (16, 0.0), (16, 0.5), (50, 0.29)])
@pytest.mark.parametrize("max_depth", [1, 3, 16])
def test_equals_a_slow_race(n, alpha, rate, max_depth):
    strategy = SpeculativeRejection(n=n, alpha=alpha, sampling=STEPS, max_depth=max_depth)
    for problem, outcome in zip(PROBLEMS, search(strategy, rate), strict=True):
        drawn, answer = slow_race(problem, n, alpha, rate, max_depth)
        assert grown(outcome) == drawn
        assert outcome.result.chosen == answer


@pytest.mark.parametrize(("alpha", "alive"), [(0.5, [16, 8, 4, 2, 1, 1]), (0.25, [16, 12, 9, 7, 6, 5])])
def test_the_share_that_is_dropped(alpha, alive):
    policy = ScriptedPolicy(lambda prompt, _: "x" * 6)
    strategy = SpeculativeRejection(n=16, alpha=alpha, sampling=Sampling(max_tokens=1), max_depth=6)
    outcomes = run_searches(strategy, PROBLEMS, policy, task=None, scorer=Guide(noisy))
    for outcome in outcomes:
        tree = outcome.result.tree
        assert [list(tree.depth).count(depth + 1) for depth in range(6)] == alive


def test_a_share_is_what_its_decimals_say():
    assert 0.29 * 100 < 29
    policy = ScriptedPolicy(lambda prompt, _: "xx")
    strategy = SpeculativeRejection(n=100, alpha=0.29, sampling=Sampling(max_tokens=1), max_depth=2)
    (outcome,) = run_searches(strategy, PROBLEMS[:1], policy, task=None, scorer=Guide(noisy))
    assert list(outcome.result.tree.depth).count(2) == 71


def test_nobody_dropped_is_best_of_n():
    for problem, outcome in zip(PROBLEMS, search(SpeculativeRejection(n=8, alpha=0.0, sampling=STEPS)), strict=True):
        finished = [candidate.state for candidate in outcome.result.candidates]
        assert len(finished) == 8
        assert all(state.finished for state in finished)
        assert outcome.result.chosen.tokens == max(finished, key=reward).tokens
        assert outcome.result.chosen.problem is problem


def first_word(state):
    return float(state.tokens[0])


def test_a_guide_that_knows_early_loses_nothing_and_costs_less():
    kept, halved = (search(SpeculativeRejection(n=8, alpha=a, sampling=STEPS), first_word) for a in (0.0, 0.5))
    for all_of_them, few in zip(kept, halved, strict=True):
        assert first_word(few.result.chosen) == first_word(all_of_them.result.chosen)
        assert few.cost.tokens_sampled < all_of_them.cost.tokens_sampled


def test_a_dropped_response_that_had_finished_can_still_be_the_answer():
    # The first response is finished and worth 0.6; the others promise 0.9 and end at 0.1.
    first = sample_seed(0, State(PROBLEMS[0]), 0)
    scripted = ScriptedPolicy(lambda prompt, _: "" if prompt.seed == first else "xy")

    class Hopeful:
        name = "hopeful"

        def score(self, states, completions):
            return [0.6 if len(s.tokens) == 1 and s.finished else 0.9 if len(s.tokens) == 1 else 0.1 for s in states]

        def cost_tokens(self, states):
            return 0

    strategy = SpeculativeRejection(n=4, sampling=Sampling(max_tokens=1))
    (outcome,) = run_searches(strategy, PROBLEMS[:1], scripted, task=None, scorer=Hopeful())
    tree = outcome.result.tree
    assert outcome.result.chosen is tree.states[1]
    assert tree.children[1] == []


def test_scores_are_only_asked_for_where_they_decide():
    guide = Guide(noisy)
    outcomes = search(SpeculativeRejection(n=1, sampling=STEPS), scorer=guide)
    asked = [pair for call in guide.asked for pair in call]
    assert sorted(asked) == sorted((o.problem.id, o.result.chosen.tokens) for o in outcomes)


def test_every_state_is_scored_at_most_once():
    guide = Guide(noisy)
    for outcome in search(SpeculativeRejection(n=16, alpha=0.3, sampling=STEPS), scorer=guide):
        scored = sum(not math.isnan(score) for score in outcome.result.tree.score)
        assert scored == sum(pair[0] == outcome.problem.id for call in guide.asked for pair in call)


@pytest.mark.parametrize("max_depth", [1, 2, 16])
def test_one_is_plain_sampling(max_depth):
    strategy = SpeculativeRejection(n=1, sampling=STEPS, max_depth=max_depth)
    for problem, outcome in zip(PROBLEMS, search(strategy), strict=True):
        assert outcome.result.chosen == plain(problem, max_depth)


def test_one_burst_that_holds_a_response_is_best_of_n_and_follows_the_policys_distribution():
    counts = {}
    problem = PROBLEMS[0]
    for seed in range(400):
        strategy = SpeculativeRejection(n=1, sampling=WHOLE)
        (outcome,) = search(strategy, problems=[problem], seed=seed)
        counts[outcome.result.chosen.tokens] = counts.get(outcome.result.chosen.tokens, 0) + 1
    exact = {completion.tokens: p for completion, p in POLICY.enumerate(State(problem), WHOLE)}
    likeliest = max(exact, key=exact.get)
    spread = (exact[likeliest] * (1 - exact[likeliest]) / 400) ** 0.5
    assert counts[likeliest] / 400 == pytest.approx(exact[likeliest], abs=4 * spread)


def test_the_verifier_rates_what_is_finished():
    strategy = SpeculativeRejection(n=16, alpha=0.5, sampling=STEPS, guide="verifier")
    for outcome in search(strategy):
        tree = outcome.result.tree
        assert outcome.result.chosen.finished
        assert all(tree.states[node].finished for node in tree.verdicts)
        right = [node for node, verdict in tree.verdicts.items() if verdict.right]
        assert outcome.result.chosen in [tree.states[node] for node in right] or not right


@pytest.mark.parametrize("calls", range(1, 40, 3))
def test_a_budget_ends_it_with_the_best_so_far(calls):
    strategy = SpeculativeRejection(n=8, sampling=STEPS)
    for outcome in search(strategy, noisy, budget=Budget(calls=calls)):
        tree = outcome.result.tree
        assert outcome.result.chosen is not None
        finished = [node for node in range(len(tree)) if tree.states[node].finished]
        if finished:
            chosen = next(node for node in finished if tree.states[node] is outcome.result.chosen)
            scored = [tree.score[node] for node in finished if not math.isnan(tree.score[node])]
            assert not scored or tree.score[chosen] == max(scored)


def test_cut_off_responses_compete_where_none_is_finished():
    policy = ScriptedPolicy(lambda prompt, _: "xyz")
    strategy = SpeculativeRejection(n=4, sampling=Sampling(max_tokens=1), max_depth=2)
    (outcome,) = run_searches(strategy, PROBLEMS[:1], policy, task=None, scorer=Guide(lambda s: len(s.tokens)))
    assert len(outcome.result.chosen.tokens) == 2
    assert outcome.result.candidates[-1].completion.finish is FinishReason.LENGTH


@pytest.mark.parametrize(
    "settings", [{"n": 0}, {"alpha": 1.0}, {"alpha": -0.1}, {"alpha": float("nan")}, {"max_depth": 0}]
)
def test_settings_that_are_not_accepted(settings):
    with pytest.raises(InvalidValue, match=next(iter(settings))):
        SpeculativeRejection(**settings)
