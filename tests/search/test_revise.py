from __future__ import annotations

from dataclasses import replace

import pytest
from talk import Digit, Talk, candidates, search, text

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import Sampling
from clew.search import StopReason
from clew.search.revise import Revise
from clew.search.revision import CUT_OFF

ASK = "no, {reason}"


def right_at(k: int):
    """A policy that is right on its `k`-th revision, and only if it was told about the one before."""

    def say(shown, begun):
        if not shown:
            return "x0" if k else "x7"
        last = int(shown[-2][1:])
        assert shown[-1] == f"no, {last % 10} is not it"
        return f"x{last + 1}" if last + 1 < k else "x7"

    return Talk(say)


@pytest.mark.parametrize("k", range(6))
def test_it_stops_when_it_is_right_and_pays_for_no_more(k):
    judge, talk = Digit(), right_at(k)
    found = search(Revise(rounds=5, feedback=ASK), talk, judge=judge)
    assert text(found) == "x7"
    assert len(talk.turns) == len(judge.judged) == len(candidates(found)) == k + 1
    assert found.cost.verifier_calls == found.cost.model_calls == k + 1
    assert found.result.candidates[-1].score == 1.0
    assert found.result.tree.cost().tokens_sampled == found.cost.tokens_sampled


def test_rounds_end_it_and_of_equals_the_last_is_the_answer():
    found = search(Revise(rounds=2, feedback=ASK), right_at(5), judge=Digit())
    assert (text(found), candidates(found)) == ("x2", ["x0", "x1", "x2"])
    assert found.stop is StopReason.FINISHED


def test_of_unequal_ones_the_best_is_the_answer():
    class Partial(Digit):
        def verify(self, problem, said):
            return replace(super().verify(problem, said), value={"0": 0.1, "1": 0.6}.get(said[-1], 0.2))

    assert text(search(Revise(rounds=3, feedback=ASK), right_at(9), judge=Partial())) == "x1"


def test_it_remembers_the_last_few_attempts():
    talk = right_at(9)
    search(Revise(rounds=4, feedback=ASK, memory=2), talk, judge=Digit())
    assert talk.turns[-1].shown == ("x2", "no, 2 is not it", "x3", "no, 3 is not it")
    assert [len(turn.shown) for turn in talk.turns] == [0, 2, 4, 4, 4]


def test_what_cannot_be_judged_is_told_too():
    said = iter(["crash", "much too long", "7"])
    talk = Talk(lambda shown, begun: next(said))
    found = search(Revise(rounds=4, sampling=Sampling(max_tokens=8), feedback=ASK), talk, judge=Digit())
    assert text(found) == "7"
    assert talk.turns[-1].shown[1::2] == ("no, the checker crashed", f"no, {CUT_OFF}")
    assert found.cost.verifier_calls == 2


@pytest.mark.parametrize("calls", range(1, 5))
def test_whenever_the_budget_ends_it_answers_with_the_last_it_has(calls):
    found = search(Revise(rounds=9, feedback=ASK), right_at(9), judge=Digit(), budget=Budget(calls=calls))
    assert (found.stop, text(found)) == (StopReason.BUDGET, f"x{calls - 1}")


@pytest.mark.parametrize("settings", [{"rounds": -1}, {"memory": 0}])
def test_settings_that_are_not_accepted(settings):
    with pytest.raises(InvalidValue, match="at least"):
        Revise(**settings)
