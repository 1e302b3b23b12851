from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from driven import SAMPLING, STRATEGIES, PaidScorer, StepByStep, each_strategy, run, timeless

from clew.core.cost import Budget, Cost
from clew.core.errors import InvalidValue
from clew.core.protocols import Sample, Score, SearchResult, Verify
from clew.core.seeds import derive_seed
from clew.core.types import State
from clew.search import (
    BestOfN,
    BudgetExhausted,
    MajorityVote,
    MeanLogProb,
    Roles,
    SearchRecord,
    StopReason,
    continue_searches,
    run_searches,
)


@pytest.mark.parametrize("strategy", [*STRATEGIES, StepByStep()], ids=repr)
def test_meter_equals_an_independent_count(strategy, toy):
    policy, task = toy.Counting(toy.policy()), toy.Task()
    outcomes = run(strategy, toy, policy=policy, task=task, scorer=PaidScorer())
    for outcome in outcomes:
        given = policy.given[outcome.problem.id]
        states = sum(len(a.values) for a in outcome.record.answers if type(a).__name__ == "Verdicts")
        assert outcome.cost.model_calls == len(given)
        assert outcome.cost.tokens_sampled == sum(len(c.tokens) for c in given)
        assert outcome.cost.prompt_tokens_read == sum(c.prompt_tokens_read for c in given)
        assert outcome.cost.prompt_tokens_cached == sum(c.prompt_tokens_cached for c in given)
        assert outcome.cost.verifier_calls == task.verified.count(outcome.problem.id) == states
        assert outcome.cost.seconds > 0.0
        assert outcome.stop is StopReason.FINISHED
    uses_scorer = getattr(strategy, "guide", "") == "scorer" or isinstance(strategy, StepByStep)
    assert all((outcome.cost.scorer_tokens > 0) == uses_scorer for outcome in outcomes)


def test_scorer_tokens_are_each_problems_own(toy):
    outcomes = run(BestOfN(n=5, sampling=SAMPLING, guide="scorer"), toy, scorer=PaidScorer())
    for outcome in outcomes:
        assert outcome.cost.scorer_tokens == sum(len(c.state.tokens) for c in outcome.result.candidates)
    assert len({outcome.cost.scorer_tokens for outcome in outcomes}) > 1


def test_requests_of_all_problems_are_one_batch(toy):
    policy = toy.Counting(toy.policy())
    run(BestOfN(n=7, sampling=SAMPLING, per_request=3), toy, policy=policy)
    assert policy.calls == [27, 27, 9]


def test_seconds_are_shared_by_tokens(toy, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("clew.search.serve.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    outcomes = run(BestOfN(n=4, sampling=SAMPLING), toy)
    total = sum(outcome.cost.tokens for outcome in outcomes)
    for outcome in outcomes:
        # One second for the one call of the policy, and one for each problem's own verification.
        assert outcome.cost.seconds == pytest.approx(1.0 + outcome.cost.tokens / total)


@each_strategy
def test_samples_depend_on_their_problem_and_index_alone(strategy, toy):
    expected = {}
    for problem in toy.problems:
        root = State(problem)
        seeds = [derive_seed(5, problem.id, "sample", i) for i in range(strategy.n)]
        expected[problem.id] = [f"{seed % 7}" if seed % 7 < 6 else None for seed in seeds]
        assert root.tokens == ()
    task, policy = toy.Task(), toy.policy()
    for outcome in run(strategy, toy, policy=policy, problems=toy.problems[::-1], seed=5):
        answers = [task.extract(policy.text(c.state)) for c in outcome.result.candidates]
        assert answers == expected[outcome.problem.id]


def test_a_later_state_has_streams_of_its_own_and_a_repeated_one_does_not_repeat_its_samples(toy):
    seeds = []

    def script(prompt, sampling):
        seeds.append(prompt.seed)
        return "ab"

    @dataclass(frozen=True)
    class Twice:
        name: str = "twice"

        def run(self, problem):
            root = State(problem)
            ((one,),) = yield Sample((root,), 1)
            later = root.extend(one)
            yield Sample((root, later, root), 2, first_index=1)
            return SearchResult(None, ())

    policy = replace(toy.policy(), script=script)
    run(Twice(), toy, problems=toy.problems[:1], policy=policy, seed=3)
    problem_id, tokens = toy.problems[0].id, (*b"ab", 256)
    later = [derive_seed(3, problem_id, "sample", i, *tokens) for i in (1, 2)]
    root = [derive_seed(3, problem_id, "sample", i) for i in range(5)]
    assert seeds == [root[0], root[1], root[2], *later, root[3], root[4]]
    assert len(set(seeds)) == len(seeds)


@each_strategy
def test_same_seed_same_result_and_other_seed_another(strategy, toy):
    first, second = run(strategy, toy, seed=1), run(strategy, toy, seed=1)
    assert [o.result for o in first] == [o.result for o in second]
    assert [timeless(o.cost) for o in first] == [timeless(o.cost) for o in second]
    assert [o.result for o in run(strategy, toy, seed=2)] != [o.result for o in first]


@pytest.mark.parametrize("strategy", [*STRATEGIES, StepByStep()], ids=repr)
@pytest.mark.parametrize("budget", [Budget(tokens=1), Budget(tokens=40), Budget(tokens=90), Budget(calls=3)], ids=repr)
def test_budget_is_exceeded_by_at_most_one_request(strategy, budget, toy):
    for outcome in run(strategy, toy, budget=budget, scorer=PaidScorer()):
        before, model_requests = Cost(), 0
        for answer in outcome.record.answers:
            if type(answer).__name__ == "Samples":
                assert budget.allows(before), "a request was answered after the budget was spent"
                model_requests += 1
                rows = [c for row in answer.values for c in row]
                before += Cost(
                    tokens_sampled=sum(len(c.tokens) for c in rows),
                    prompt_tokens_read=sum(c.prompt_tokens_read for c in rows),
                    model_calls=len(rows),
                )
        assert model_requests >= 1
        assert outcome.cost.model_calls == before.model_calls
        assert (outcome.stop is StopReason.BUDGET) <= (not budget.allows(outcome.cost))


def test_calls_are_held_to_the_ceiling(toy):
    outcomes = run(BestOfN(n=64, sampling=SAMPLING, per_request=4), toy, budget=Budget(calls=10))
    assert {outcome.cost.model_calls for outcome in outcomes} == {12}
    assert {len(outcome.result.candidates) for outcome in outcomes} == {12}
    assert {outcome.stop for outcome in outcomes} == {StopReason.BUDGET}
    assert all(outcome.result.chosen is not None for outcome in outcomes)


def test_a_vote_is_still_counted_when_the_budget_is_out(toy):
    strategy = MajorityVote(n=64, sampling=SAMPLING, per_request=1)
    stopped = run(strategy, toy, budget=Budget(calls=5))
    whole = run(replace(strategy, n=5), toy)
    assert [o.result for o in stopped] == [o.result for o in whole]


def test_unrated_candidates_fall_back_to_the_first(toy):
    strategy = BestOfN(n=5, sampling=SAMPLING, guide="scorer")
    for outcome in run(strategy, toy, budget=Budget(calls=5), scorer=PaidScorer()):
        assert outcome.stop is StopReason.BUDGET
        assert outcome.cost.scorer_tokens == 0
        assert outcome.result.chosen == outcome.result.candidates[0].state


def test_a_strategy_that_catches_nothing_leaves_all_it_saw(toy):
    outcomes = run(StepByStep(), toy, budget=Budget(calls=3))
    for outcome in outcomes:
        assert outcome.stop is StopReason.BUDGET
        assert outcome.result.chosen is None
        assert len(outcome.result.candidates) == outcome.cost.model_calls == 3
        assert all(c.state.tokens == c.completion.tokens for c in outcome.result.candidates)


def test_a_strategy_that_will_not_stop_is_closed(toy):
    tried = []

    @dataclass(frozen=True)
    class Stubborn:
        name: str = "stubborn"

        def run(self, problem):
            while True:
                try:
                    yield Sample((State(problem),), 1)
                except BudgetExhausted:
                    tried.append(problem.id)

    (outcome,) = run(Stubborn(), toy, problems=toy.problems[:1], budget=Budget(calls=2))
    assert outcome.stop is StopReason.BUDGET
    assert outcome.cost.model_calls == 2
    assert 1 <= len(tried) < 20


@pytest.mark.parametrize("strategy", [*STRATEGIES, StepByStep()], ids=repr)
@pytest.mark.parametrize("pause_after", [0, 1, 2, 3])
@pytest.mark.parametrize("budget", [Budget(), Budget(calls=3)], ids=repr)
def test_stop_and_go_on_equals_straight_through(strategy, pause_after, budget, toy):
    policy = toy.Counting(toy.policy())
    roles = Roles(policy, toy.Task(), MeanLogProb())
    through = run(strategy, toy, seed=4, budget=budget)
    records = [SearchRecord(problem, 4) for problem in toy.problems]
    paused = continue_searches(strategy, records, roles, budget=budget, max_rounds=pause_after)
    sampled = sum(policy.calls)
    assert sampled == sum(o.cost.model_calls for o in paused)
    resumed = continue_searches(strategy, [o.record for o in paused], roles, budget=budget)
    assert [o.result for o in resumed] == [o.result for o in through]
    assert [o.stop for o in resumed] == [o.stop for o in through]
    assert [o.record.answers for o in resumed] == [o.record.answers for o in through]
    assert sum(policy.calls) == sum(o.cost.model_calls for o in through), "replayed samples are not drawn again"
    if budget == Budget():
        assert [timeless(o.cost) for o in resumed] == [timeless(o.cost) for o in through]


@each_strategy
def test_a_search_stopped_by_its_budget_goes_on_under_a_larger_one(strategy, toy):
    roles = Roles(toy.policy(), toy.Task(), MeanLogProb())
    records = [SearchRecord(problem, 4) for problem in toy.problems]
    stopped = continue_searches(strategy, records, roles, budget=Budget(calls=2))
    resumed = continue_searches(strategy, [o.record for o in stopped], roles)
    assert [o.result for o in resumed] == [o.result for o in run(strategy, toy, seed=4)]
    assert {o.stop for o in resumed} == {StopReason.FINISHED}


def test_paused_says_so(toy):
    roles = Roles(toy.policy(), toy.Task())
    records = [SearchRecord(problem) for problem in toy.problems]
    for outcome in continue_searches(BestOfN(n=4), records, roles, max_rounds=1):
        assert outcome.stop is StopReason.PAUSED
        assert len(outcome.result.candidates) == 4
        assert outcome.result.chosen == outcome.result.candidates[0].state, "its best so far"
        assert outcome.cost.verifier_calls == 0


def test_a_paused_vote_is_counted_over_what_there_is(toy):
    roles = Roles(toy.policy(), toy.Task())
    records = [SearchRecord(problem) for problem in toy.problems]
    strategy = MajorityVote(n=9, per_request=1)
    paused = continue_searches(strategy, records, roles, max_rounds=4)
    assert [o.result for o in paused] == [o.result for o in run(replace(strategy, n=4), toy)]
    assert {len(o.record.answers) for o in paused} == {4}


@pytest.mark.parametrize("other", [BestOfN(n=5), MajorityVote(n=4), BestOfN(n=4, per_request=2)], ids=repr)
def test_the_record_of_another_strategy_is_refused(other, toy):
    record = run(BestOfN(n=4), toy)[0].record
    with pytest.raises(InvalidValue, match="do not fit"):
        continue_searches(other, [record], Roles(toy.policy(), toy.Task()))


def test_the_seconds_ceiling_stops_verification_too(toy, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("clew.search.serve.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    (outcome,) = run(BestOfN(n=4), toy, problems=toy.problems[:1], budget=Budget(seconds=0.5))
    assert outcome.stop is StopReason.BUDGET
    assert outcome.cost.verifier_calls == 0
    assert outcome.result.chosen == outcome.result.candidates[0].state


def test_a_missing_scorer_is_named(toy):
    with pytest.raises(InvalidValue, match="scorer"):
        run_searches(BestOfN(n=2, guide="scorer"), toy.problems, toy.policy(), task=toy.Task())


def test_no_problem_no_outcome(toy):
    assert run(BestOfN(n=2), toy, problems=[]) == []


def test_empty_requests_are_answered_without_the_model(toy):
    @dataclass(frozen=True)
    class Nothing:
        name: str = "nothing"

        def run(self, problem):
            assert (yield Sample((), 3)) == []
            assert (yield Sample((State(problem),), 0)) == [[]]
            assert (yield Score((), ())) == []
            assert (yield Verify(())) == []
            return SearchResult(None, ())

    policy = toy.Counting(toy.policy())
    outcomes = run(Nothing(), toy, policy=policy)
    assert {(o.stop, o.error) for o in outcomes} == {(StopReason.FINISHED, None)}
    assert policy.calls == []
    assert {timeless(o.cost) for o in outcomes} == {Cost()}


def test_costs_add_up_field_by_field():
    one = Cost(*range(1, 9))
    assert one + Cost(*range(10, 90, 10)) == Cost(*(i + 10 * i for i in range(1, 9)))
