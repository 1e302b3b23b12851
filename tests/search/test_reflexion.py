from __future__ import annotations

import pytest
from talk import QUESTION, Digit, Rates, Talk, candidates, search, text

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import Sampling
from clew.search import StopReason
from clew.search.reflexion import Reflexion

REMEMBER = {"ask": "failed: {reason}", "remember": "{reflections} | {question}"}


def learner(needed: int, said_before: str = "try"):
    """A policy that is right once it remembers `needed` lessons; lesson i names the trial it comes from."""

    def say(shown, begun):
        if shown and shown[-1].startswith("failed: "):
            return f"not {shown[-2]}"
        lessons = [] if not shown else shown[0].partition(" | ")[0].split("\n")
        assert not shown or shown[0].endswith(f" | {QUESTION}")
        return "7" if len(lessons) >= needed else f"{said_before}{lessons[-1][-1] if lessons else 0}{len(lessons)}"

    return Talk(say)


@pytest.mark.parametrize("needed", range(4))
def test_lessons_precede_the_next_trial_until_it_is_right(needed):
    talk, judge = learner(needed), Digit()
    found = search(Reflexion(trials=6, **REMEMBER), talk, judge=judge)
    assert text(found) == "7"
    assert len(judge.judged) == len(candidates(found)) == needed + 1
    assert len(talk.turns) == 2 * needed + 1
    assert found.cost.model_calls == len(talk.turns)
    assert found.cost.tokens_sampled == sum(len(turn.said) + 1 for turn in talk.turns)


def test_memory_is_bounded_to_the_last_lessons_and_a_trial_sees_no_earlier_trial():
    talk, trial = learner(99), iter(range(9))
    original = talk.say
    talk.say = lambda shown, begun: (
        original(shown, begun) if shown and shown[-1].startswith("failed") else f"t{next(trial)}"
    )
    found = search(Reflexion(trials=5, memory=2, **REMEMBER), talk, judge=Digit())
    trials = [turn.shown for turn in talk.turns if turn.said.startswith("t")]
    assert trials == [
        (),
        (f"- not t0 | {QUESTION}",),
        (f"- not t0\n- not t1 | {QUESTION}",),
        (f"- not t1\n- not t2 | {QUESTION}",),
        (f"- not t2\n- not t3 | {QUESTION}",),
    ]
    # A reflection sees the trial as it was posed, the lessons of that time included, and why it failed.
    reflections = [turn.shown for turn in talk.turns if turn.said.startswith("not")]
    assert reflections[:2] == [("t0", "failed: 0 is not it"), (f"- not t0 | {QUESTION}", "t1", "failed: 1 is not it")]
    assert (text(found), found.stop) == ("t4", StopReason.FINISHED)


def test_a_scorer_says_what_is_enough_and_nobody_looks_at_the_environment():
    by = Rates(lambda said: len(said) / 4)
    talk = learner(2, "xy")
    strategy = Reflexion(trials=5, guide="scorer", enough=1.0, **REMEMBER)
    found = search(strategy, talk, scorer=by)
    assert by.rated == ["xy00"]
    assert text(found) == "xy00"
    below = search(Reflexion(trials=3, guide="scorer", enough=1.1, **REMEMBER), learner(9, "xy"), scorer=by)
    assert len(candidates(below)) == 3
    told = [turn.shown[-1] for turn in learn_and_return(by)]
    assert "failed: it was rated 1.00" in told


def learn_and_return(by):
    talk = learner(9, "xy")
    search(Reflexion(trials=3, guide="scorer", enough=1.1, **REMEMBER), talk, scorer=by)
    return [turn for turn in talk.turns if turn.shown]


def test_reflections_are_short():
    talk = Talk(lambda shown, begun: "much too long")
    settings = {"sampling": Sampling(max_tokens=9), "reflection": Sampling(max_tokens=3)}
    found = search(Reflexion(trials=2, **settings, **REMEMBER), talk, judge=Digit())
    assert [len(last.tokens) for last in found.result.tree.completions if last is not None] == [9, 3, 9]


@pytest.mark.parametrize("calls", range(1, 6))
def test_whenever_the_budget_ends_it_answers_with_the_last_trial(calls):
    talk, trial = learner(99), iter(range(9))
    original = talk.say
    talk.say = lambda shown, begun: (
        original(shown, begun) if shown and shown[-1].startswith("failed") else f"t{next(trial)}"
    )
    found = search(Reflexion(trials=9, **REMEMBER), talk, judge=Digit(), budget=Budget(calls=calls))
    assert (found.stop, text(found)) == (StopReason.BUDGET, f"t{(calls - 1) // 2}")


@pytest.mark.parametrize("settings", [{"trials": 0}, {"memory": 0}])
def test_settings_that_are_not_accepted(settings):
    with pytest.raises(InvalidValue, match="at least"):
        Reflexion(**settings)
