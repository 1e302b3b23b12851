"""What fails fails alone, what would not end is ended, and Ctrl-C keeps what there is."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from driven import SAMPLING, STRATEGIES, PaidScorer, StepByStep, run, timeless

from clew.core.cost import Budget, Cost
from clew.core.errors import InvalidValue
from clew.core.protocols import Extract, Request, Sample, Score, SearchResult, Verify
from clew.core.types import Outcome, Sampling, State, Verdict
from clew.search import (
    BestOfN,
    MajorityVote,
    MeanLogProb,
    Roles,
    SearchRecord,
    StopReason,
    continue_searches,
)
from clew.search.record import SearchFailed, SearchInterrupted

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
        (ValueError("a bug"), "it raised ValueError: a bug (test_driver_failures.py, line "),
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
