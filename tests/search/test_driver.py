from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from clew.core.cost import Budget, Cost
from clew.core.errors import InvalidValue
from clew.core.protocols import Extract, Request, Sample, Score, SearchResult, Verify
from clew.core.seeds import derive_seed
from clew.core.types import Outcome, Sampling, State, Verdict
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
from clew.search.record import SearchFailed, SearchInterrupted

SAMPLING = Sampling(max_tokens=32)
STRATEGIES = [
    BestOfN(n=6, sampling=SAMPLING),
    BestOfN(n=6, sampling=SAMPLING, guide="scorer"),
    BestOfN(n=7, sampling=SAMPLING, per_request=2),
    BestOfN(n=7, sampling=SAMPLING, guide="scorer", per_request=3),
    MajorityVote(n=6, sampling=SAMPLING),
    MajorityVote(n=7, sampling=SAMPLING, per_request=1),
]
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)


@dataclass(frozen=True)
class PaidScorer:
    """Prefers short solutions and claims to read every token for it."""

    name: str = "paid"

    def score(self, states, completions):
        return [-float(len(state.tokens)) for state in states]

    def cost_tokens(self, states):
        return sum(len(state.tokens) for state in states)


@dataclass(frozen=True)
class StepByStep:
    """Two steps of a few tokens, then scores, verdicts and answers: every kind of request, several depths."""

    name: str = "step-by-step"

    def run(self, problem) -> Generator[Request, Any, SearchResult]:
        states = (State(problem),)
        for width in (3, 2):
            rows = yield Sample(states, width, Sampling(max_tokens=4 + width))
            pairs = [(s.extend(c), c) for s, row in zip(states, rows, strict=True) for c in row]
            scores = yield Score(tuple(s for s, _ in pairs), tuple(c for _, c in pairs))
            states = tuple(pairs[i][0] for i in sorted(range(len(pairs)), key=lambda i: -scores[i])[:2])
        verdicts = yield Verify(states)
        yield Extract(states)
        return SearchResult(next((s for s, v in zip(states, verdicts, strict=True) if v.right), states[0]), ())


def timeless(cost: Cost) -> Cost:
    return replace(cost, seconds=0.0)


def run(strategy, toy, *, problems=None, policy=None, task=None, scorer=None, **settings):
    return run_searches(
        strategy,
        problems if problems is not None else toy.problems,
        policy or toy.policy(),
        task=task or toy.Task(),
        scorer=scorer or MeanLogProb(),
        **settings,
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


# What fails fails alone ----------------------------------------------------------------------------------------------


def others_equal_straight_through(outcomes, strategy, toy, guilty, **settings):
    """The one guilty problem failed; all others are what they are without it. The guilty outcome."""
    expected = {o.problem.id: o for o in run(strategy, toy, **settings)}
    for outcome in outcomes:
        if outcome.problem.id != guilty.id:
            assert outcome.result == expected[outcome.problem.id].result
            assert outcome.stop is StopReason.FINISHED
            assert outcome.error is None
    (failed,) = (o for o in outcomes if o.problem.id == guilty.id)
    assert failed.stop is StopReason.FAILED
    assert failed.result.chosen is None
    assert f"strategy {strategy.name!r} on problem {guilty.id!r}" in failed.error
    assert "\n  accepted: " in failed.error and "\n  what to do: " in failed.error
    return failed


@dataclass
class Broken:
    """Any role that behaves, but for one problem: a policy, a scorer and a task at once."""

    toy: Any
    guilty: str
    fault: Any
    where: str
    name: str = "broken"
    version: str = "broken"

    def __post_init__(self):
        self.policy, self.task, self.calls = self.toy.policy(), self.toy.Task(), []

    def _hit(self, where, problems):
        return where == self.where and any(p.id == self.guilty for p in problems)

    def _raise(self):
        if isinstance(self.fault, Exception):
            raise self.fault

    def sample(self, prompts, sampling):
        self.calls.append([p.state.problem.id for p in prompts])
        completions = self.policy.sample(prompts, sampling)
        if self._hit("sample", [p.state.problem for p in prompts]):
            self._raise()
            if self.fault == "one too few":
                return completions[:-1]
            if self.fault == "none":
                return []
            of_guilty = [p.state.problem.id == self.guilty for p in prompts]
            return [replace(c, tokens=()) if g else c for g, c in zip(of_guilty, completions, strict=True)]
        return completions

    def text(self, state):
        if self._hit("text", [state.problem]):
            self._raise()
        return self.policy.text(state)

    def score(self, states, completions):
        if self._hit("score", [s.problem for s in states]):
            self._raise()
            if self.fault == "one too few":
                return [0.0] * (len(states) - 1)
            return [self.fault if s.problem.id == self.guilty else -float(len(s.tokens)) for s in states]
        return [-float(len(s.tokens)) for s in states]

    def cost_tokens(self, states):
        if self._hit("cost_tokens", [s.problem for s in states]):
            self._raise()
        return sum(len(s.tokens) for s in states)

    def verify(self, problem, text):
        if self._hit("verify", [problem]):
            self._raise()
            return self.fault
        return self.task.verify(problem, text)

    def extract(self, text):
        return self.task.extract(text)


FAULTS = [
    ("sample", RuntimeError("out of memory"), "the policy failed: RuntimeError: out of memory"),
    ("sample", AssertionError(), "the policy failed: AssertionError"),
    ("sample", InvalidValue("context", 9, "at most 8", "shorten it"), "the policy failed: context is 9"),
    ("sample", "one too few", "the policy failed: it gave"),
    ("sample", "none", "the policy failed: it gave 0 completions for"),
    ("sample", "empty", "a completion without a token"),
    ("text", RuntimeError("no text"), "RuntimeError: no text"),
    ("score", RuntimeError("no score"), "the scorer failed: RuntimeError: no score"),
    ("score", float("nan"), "the scorer failed: 'broken' gave NaN"),
    ("score", "text", "the scorer failed: ValueError: could not convert"),
    ("score", None, "the scorer failed: TypeError"),
    ("score", "one too few", "the scorer failed: 'broken' gave"),
    ("cost_tokens", RuntimeError("no count"), "the scorer failed: RuntimeError: no count"),
    ("verify", RuntimeError("no verdict"), "the verifier failed: RuntimeError: no verdict"),
    ("verify", None, "the verifier failed"),
    ("verify", Verdict(Outcome.RIGHT, float("nan")), "the verifier failed: it gave Verdict"),
]


@pytest.mark.parametrize(("where", "fault", "message"), FAULTS, ids=lambda v: str(v)[:30])
@pytest.mark.parametrize("budget", [None, Budget(tokens=10_000)], ids=["free", "budget"])
def test_one_problem_fails_and_the_others_finish(where, fault, message, budget, toy):
    guide = "scorer" if where in ("score", "cost_tokens") else "verifier"
    strategy = BestOfN(n=5, sampling=SAMPLING, guide=guide, per_request=2)
    guilty = toy.problems[4]
    broken = Broken(toy, guilty.id, fault, where)
    outcomes = run(strategy, toy, policy=broken, task=broken, scorer=broken, budget=budget)
    failed = others_equal_straight_through(outcomes, strategy, toy, guilty, scorer=PaidScorer())
    assert message in failed.error
    if where == "sample":
        assert failed.record.answers == ()
        assert failed.result.candidates == ()
    else:
        assert len(failed.result.candidates) == failed.cost.model_calls == 5
        assert len(failed.record.answers) == 3


def test_only_a_batch_that_raised_is_asked_for_again_one_search_at_a_time(toy):
    broken = Broken(toy, toy.problems[4].id, RuntimeError("no"), "sample")
    run(BestOfN(n=4, sampling=SAMPLING, per_request=2), toy, policy=broken, task=broken)
    ids = [p.id for p in toy.problems]
    others = [i for i in ids if i != toy.problems[4].id]
    twice = [[i, i] for i in ids]
    assert broken.calls == [[i for i in ids for _ in range(2)], *twice, [i for i in others for _ in range(2)]]


def test_a_failed_search_goes_on_when_its_cause_is_mended(toy):
    strategy, guilty = BestOfN(n=5, sampling=SAMPLING, guide="scorer", per_request=2), toy.problems[4]
    broken = Broken(toy, guilty.id, float("nan"), "score")
    outcomes = run(strategy, toy, scorer=broken)
    roles = Roles(toy.policy(), toy.Task(), PaidScorer())
    mended = continue_searches(strategy, [o.record for o in outcomes], roles)
    assert [o.result for o in mended] == [o.result for o in run(strategy, toy, scorer=PaidScorer())]
    assert {o.stop for o in mended} == {StopReason.FINISHED}


def test_a_failure_can_be_raised_where_there_is_but_one_problem(toy):
    broken = Broken(toy, toy.problems[0].id, RuntimeError("two\nlines"), "verify")
    failed, fine = run(BestOfN(n=2), toy, problems=toy.problems[:2], policy=broken, task=broken)
    fine.raise_if_failed()
    with pytest.raises(SearchFailed) as raised:
        failed.raise_if_failed()
    assert str(raised.value) == failed.error
    assert raised.value.given.endswith("the verifier failed: RuntimeError: two\nlines")
    assert raised.value.advice.startswith("mend the verifier")


def test_what_a_failed_request_consumed_is_counted(toy):
    strategy, guilty = BestOfN(n=5, sampling=SAMPLING, guide="scorer"), toy.problems[4]
    outcomes = run(strategy, toy, scorer=Broken(toy, guilty.id, float("nan"), "score"))
    expected = run(strategy, toy, scorer=PaidScorer())
    assert [timeless(o.cost) for o in outcomes] == [timeless(o.cost) for o in expected]


@pytest.mark.parametrize("where", ["sample", "score", "verify"])
def test_a_role_that_fails_for_all_fails_each(where, toy):
    class Failing(Broken):
        def _hit(self, at, problems):
            return at == self.where

    broken = Failing(toy, "", RuntimeError("down"), where)
    strategy = BestOfN(n=3, guide="scorer" if where == "score" else "verifier")
    outcomes = run(strategy, toy, policy=broken, task=broken, scorer=broken)
    assert {o.stop for o in outcomes} == {StopReason.FAILED}
    assert all(f"problem {o.problem.id!r}" in o.error and "RuntimeError: down" in o.error for o in outcomes)


@dataclass(frozen=True)
class Faulty:
    """Samples once, then does what `then` says on one problem."""

    guilty: str
    then: Any
    name: str = "faulty"

    def run(self, problem) -> Generator[Request, Any, SearchResult]:
        ((one,),) = yield Sample((State(problem),), 1, SAMPLING)
        if problem.id == self.guilty:
            if isinstance(self.then, Exception):
                raise self.then
            if self.then == "returns":
                return None
            yield self.then
        return SearchResult(State(problem).extend(one), ())


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (ValueError("a bug"), "it raised ValueError: a bug (test_driver.py, line "),
        (ZeroDivisionError(), "it raised ZeroDivisionError"),
        (StopIteration(3), "it raised RuntimeError: generator raised StopIteration"),
        ("returns", "run returned None, which is no SearchResult"),
        (3, "run yielded 3, which is no request"),
    ],
    ids=repr,
)
def test_a_strategy_that_fails_on_one_problem(then, message, toy):
    strategy, guilty = Faulty(toy.problems[4].id, then), toy.problems[4]
    failed = others_equal_straight_through(run(strategy, toy), strategy=Faulty("", then), toy=toy, guilty=guilty)
    assert message in failed.error
    assert len(failed.result.candidates) == 1
    again = continue_searches(strategy, [failed.record], Roles(toy.policy(), toy.Task()))
    assert [(o.stop, o.error) for o in again] == [(StopReason.FAILED, failed.error)]


def test_a_run_that_is_no_generator_fails(toy):
    class NoGenerator:
        name = "no-generator"

        def run(self, problem):
            return [problem]

    outcomes = run(NoGenerator(), toy)
    assert all("which is no generator" in o.error for o in outcomes)


@pytest.mark.parametrize("first", [True, False], ids=["at once", "later"])
def test_wrong_use_is_raised_only_while_it_meets_every_search(first, toy):
    """A guide that cannot work is the caller's mistake; a state that outgrew its context ends its own search."""

    @dataclass(frozen=True)
    class Grows:
        name: str = "grows"

        def run(self, problem):
            state = State(problem)
            for _ in range(3):
                ((one,),) = yield Sample((state,), 1, SAMPLING)
                state = state.extend(one)
            return SearchResult(state, ())

    class Narrow(Broken):
        def sample(self, prompts, sampling):
            if first or any(p.state.tokens for p in prompts):
                raise InvalidValue("context", 9, "at most 8", "shorten it")
            return self.policy.sample(prompts, sampling)

    def search():
        return run(Grows(), toy, policy=Narrow(toy, "", None, ""), scorer=MeanLogProb())

    if first:
        with pytest.raises(InvalidValue, match=r"context is 9 \(strategy 'grows', scorer 'mean-logprob'\)"):
            search()
    else:
        outcomes = search()
        assert {o.stop for o in outcomes} == {StopReason.FAILED}
        assert all("context is 9" in o.error for o in outcomes)


def test_a_guide_that_needs_log_probs_is_refused_by_name(toy):
    policy = replace(toy.policy(), logprob=None)
    expected = r"log-probs .* is None \(strategy 'best-of-n', scorer 'mean-logprob'\)"
    with pytest.raises(InvalidValue, match=expected) as raised:
        run(BestOfN(n=3, guide="scorer"), toy, policy=policy)
    assert "a guide that needs none" in str(raised.value)
    assert all(o.error is None for o in run(BestOfN(n=3), toy, policy=policy))


# Searches that would not end -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Endless:
    kind: str
    name: str = "endless"

    def run(self, problem):
        root = State(problem)
        (first,) = yield Sample((root,), 1, SAMPLING)
        request = {
            "verify": Verify((root.extend(first[0]),)),
            "extract": Extract((root.extend(first[0]),)),
            "score": Score((root,), (None,)),
            "empty": Sample((), 1),
            "none": Sample((root,), 0),
            "sample": Sample((root,), 1, Sampling(max_tokens=1)),
        }[self.kind]
        while True:
            yield request


@pytest.mark.parametrize("kind", ["verify", "extract", "score", "empty", "none"])
@pytest.mark.parametrize("budget", [None, Budget(tokens=1000)], ids=["free", "budget"])
def test_a_search_that_samples_nothing_for_ever_fails(kind, budget, toy, monkeypatch):
    monkeypatch.setattr("clew.search.driver.MAX_IDLE_REQUESTS", 20)
    scorer = SimpleNamespace(name="free", score=lambda s, c: [0.0] * len(s), cost_tokens=lambda s: 0)
    for outcome in run(Endless(kind), toy, budget=budget, scorer=scorer):
        assert outcome.stop is StopReason.FAILED
        assert f"strategy 'endless' on problem {outcome.problem.id!r}: it made more than 20 requests" in outcome.error
        assert len(outcome.record.answers) == 22


def test_a_search_that_samples_for_ever_without_a_budget_fails(toy, monkeypatch):
    monkeypatch.setattr("clew.search.driver.MAX_REQUESTS", 30)
    for outcome in run(Endless("sample"), toy):
        assert outcome.stop is StopReason.FAILED
        assert "more than 30 requests without a budget" in outcome.error
        assert outcome.cost.model_calls == 31
    stopped = run(Endless("sample"), toy, budget=Budget(calls=50))
    assert {(o.stop, o.cost.model_calls) for o in stopped} == {(StopReason.BUDGET, 50)}


# Progress and Ctrl-C -------------------------------------------------------------------------------------------------


def test_progress_is_told_after_every_round(toy):
    seen = []

    def on_round(progress):
        cost, records = progress.cost, progress.records()
        seen.append((progress.rounds, progress.num_live, cost.model_calls, sum(len(r.answers) for r in records)))
        assert progress.num_problems == 9
        assert progress.tokens_per_second == pytest.approx(cost.tokens_sampled / progress.seconds)
        assert timeless(sum((r.cost for r in records), Cost())) == timeless(cost)

    outcomes = run(BestOfN(n=5, sampling=SAMPLING, per_request=2), toy, on_round=on_round)
    assert seen == [(1, 9, 18, 9), (2, 9, 36, 18), (3, 9, 45, 27), (4, 0, 45, 36)]
    assert {o.stop for o in outcomes} == {StopReason.FINISHED}


@pytest.mark.parametrize("strategy", [*STRATEGIES, StepByStep()], ids=repr)
@pytest.mark.parametrize("where", ["sample", "score", "verify", "extract", "on_round", "strategy"])
def test_ctrl_c_keeps_what_there_is(strategy, where, toy):
    """Wherever the interrupt comes, the outcomes it carries go on to the same result, and nothing is drawn twice."""
    calls = []

    def interrupting(at, function):
        def wrapped(*args):
            calls.append(at)
            if at == where and calls.count(at) == 2:
                raise KeyboardInterrupt
            return function(*args)

        return wrapped

    policy, task, scorer = toy.Counting(toy.policy()), toy.Task(), PaidScorer()
    roles = Roles(policy, task, scorer)
    stoppable = Roles(
        SimpleNamespace(version="", sample=interrupting("sample", policy.sample), text=policy.text),
        SimpleNamespace(verify=interrupting("verify", task.verify), extract=interrupting("extract", task.extract)),
        SimpleNamespace(name="s", score=interrupting("score", scorer.score), cost_tokens=scorer.cost_tokens),
    )
    inner = SimpleNamespace(name=strategy.name, run=interrupting("strategy", strategy.run))
    records = [SearchRecord(problem, 4) for problem in toy.problems]
    try:
        outcomes = continue_searches(inner, records, stoppable, on_round=interrupting("on_round", lambda _: None))
        assert where in ("sample", "score", "verify", "extract") and calls.count(where) < 2
        return
    except SearchInterrupted as stop:
        outcomes = stop.outcomes
    assert [o.problem for o in outcomes] == toy.problems
    assert {o.stop for o in outcomes} <= {StopReason.PAUSED, StopReason.FINISHED}
    resumed = continue_searches(strategy, [o.record for o in outcomes], roles)
    through = run(strategy, toy, seed=4, scorer=PaidScorer())
    assert [o.result for o in resumed] == [o.result for o in through]
    if where in ("sample", "score", "on_round", "strategy"):
        assert [timeless(o.cost) for o in resumed] == [timeless(o.cost) for o in through]
        assert sum(policy.calls) == sum(o.cost.model_calls for o in through)


def test_an_interrupt_while_a_record_is_replayed_loses_no_answer(toy):
    strategy = BestOfN(n=5, sampling=SAMPLING, per_request=1)
    roles = Roles(toy.policy(), toy.Task())
    paused = continue_searches(strategy, [SearchRecord(p, 4) for p in toy.problems], roles, max_rounds=3)

    @dataclass(frozen=True)
    class Interrupted:
        name: str = "best-of-n"

        def run(self, problem):
            if problem.id == toy.problems[5].id:
                raise KeyboardInterrupt
            return (yield from strategy.run(problem))

    with pytest.raises(SearchInterrupted) as stop:
        continue_searches(Interrupted(), [o.record for o in paused], roles)
    assert [o.record for o in stop.value.outcomes] == [o.record for o in paused]
    assert {o.stop for o in stop.value.outcomes} == {StopReason.PAUSED}


def test_an_interrupt_while_the_outcomes_are_made_keeps_them(toy):
    task, calls = toy.Task(), []

    def extract(text):
        calls.append(text)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return task.extract(text)

    strategy = MajorityVote(n=9, per_request=1)
    records = [SearchRecord(problem) for problem in toy.problems]
    roles = Roles(toy.policy(), SimpleNamespace(verify=None, extract=extract))
    with pytest.raises(SearchInterrupted) as stop:
        continue_searches(strategy, records, roles, max_rounds=4)
    undisturbed = continue_searches(strategy, records, Roles(toy.policy(), task), max_rounds=4)
    assert [(o.stop, o.error) for o in stop.value.outcomes] == [(StopReason.PAUSED, None)] * 9
    assert [o.record.answers for o in stop.value.outcomes] == [o.record.answers for o in undisturbed]
    assert [o.result for o in stop.value.outcomes] == [o.result for o in undisturbed]
