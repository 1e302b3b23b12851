from __future__ import annotations

import pytest
from talk import Digit, Rates, Talk, candidates, search, text

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import Sampling
from clew.search import StopReason
from clew.search.revision import Critique
from clew.search.self_refine import ASK_OR_STOP, SelfRefine

CRITIQUE = Critique(ask="well?", refine="mend it: {feedback}")


def counting_up(start: int):
    """A policy that says `start`, is told by its own critique to say one more, and does so until it says 7."""

    def say(shown, begun):
        if not shown:
            return f"it is {start}"
        if shown[-1] == "well?":
            digit = int(shown[-2][-1])
            return "Nothing to MEND." if digit == 7 else f"say {digit + 1}"
        assert shown[-1].startswith("mend it: say ")
        return f"it is {shown[-1][-1]}"

    return Talk(say)


@pytest.mark.parametrize(("start", "rounds", "answer"), [(7, 3, 7), (5, 3, 7), (4, 3, 7), (3, 3, 6), (3, 0, 3)])
def test_it_refines_until_the_critique_is_content_or_the_rounds_are_over(start, rounds, answer):
    talk = counting_up(start)
    found = search(SelfRefine(rounds=rounds, critique=CRITIQUE), talk)
    assert text(found) == f"it is {answer}"
    assert candidates(found) == [f"it is {digit}" for digit in range(start, answer + 1)]
    # A critique follows every answer but one that the rounds left no time for.
    num_critiques = min(answer - start + 1, rounds)
    assert len(talk.turns) == (answer - start + 1) + num_critiques
    assert found.cost.tokens_sampled == sum(len(turn.said) + 1 for turn in talk.turns)
    assert found.cost.model_calls == len(talk.turns)
    assert found.cost.verifier_calls == 0


def test_a_critique_sees_one_answer_and_a_refinement_the_last_few_with_their_critiques():
    talk = counting_up(3)
    search(SelfRefine(rounds=4, critique=CRITIQUE, memory=2), talk)
    assert [turn.shown for turn in talk.turns] == [
        (),
        ("it is 3", "well?"),
        ("it is 3", "mend it: say 4"),
        ("it is 4", "well?"),
        ("it is 3", "mend it: say 4", "it is 4", "mend it: say 5"),
        ("it is 5", "well?"),
        ("it is 4", "mend it: say 5", "it is 5", "mend it: say 6"),
        ("it is 6", "well?"),
        ("it is 5", "mend it: say 6", "it is 6", "mend it: say 7"),
    ]


def test_each_kind_of_turn_has_its_own_sampling():
    long, short = Sampling(max_tokens=7), Sampling(max_tokens=4)
    talk = counting_up(4)
    found = search(SelfRefine(rounds=1, sampling=long, critique=Critique(ask="well?", sampling=short)), talk_cut(talk))
    assert [len(last.tokens) for last in found.result.tree.completions if last is not None] == [7, 4, 7]


def talk_cut(talk):
    talk.say = lambda shown, begun: "much too long"
    return talk


@pytest.mark.parametrize("stop", ["", "never said"])
def test_without_a_stop_phrase_it_uses_all_its_rounds(stop):
    talk = Talk(lambda shown, begun: "nothing to mend")
    found = search(SelfRefine(rounds=3, stop=stop), talk)
    assert len(candidates(found)) == 4


def test_the_default_question_tells_the_stop_phrase():
    assert SelfRefine().stop in ASK_OR_STOP == SelfRefine().critique.ask


def test_the_best_is_the_guides_the_last_is_nobodys():
    by = Rates(lambda said: {"3": 0.2, "4": 0.9, "5": 0.9, "6": 0.1}[said[-1]])
    best = search(SelfRefine(rounds=3, critique=CRITIQUE, choose="best"), counting_up(3), scorer=by)
    assert (text(best), by.rated) == ("it is 4", [f"it is {d}" for d in (3, 4, 5, 6)])
    assert [c.score for c in best.result.candidates] == [0.2, 0.9, 0.9, 0.1]
    assert text(search(SelfRefine(rounds=3, critique=CRITIQUE), counting_up(3))) == "it is 6"
    judge = Digit()
    by_task = SelfRefine(rounds=5, critique=CRITIQUE, choose="best", guide="verifier", stop="")
    looping = Talk(lambda shown, begun: f"it is {(len(shown) // 2 * 4 + 3) % 10}")
    assert text(search(by_task, looping, judge=judge)) == "it is 7"


def test_an_answer_that_was_cut_off_is_not_the_last():
    def say(shown, begun):
        return "it is 6" if not shown else "well, it could be 7"

    found = search(SelfRefine(rounds=2, sampling=Sampling(max_tokens=8), stop=""), Talk(say))
    assert (text(found), len(candidates(found))) == ("it is 6", 3)


@pytest.mark.parametrize("calls", range(1, 9))
@pytest.mark.parametrize("choose", ["last", "best"])
def test_whenever_the_budget_ends_it_answers_with_the_last_it_has(calls, choose):
    strategy = SelfRefine(rounds=4, critique=CRITIQUE, choose=choose)
    found = search(strategy, counting_up(3), scorer=Rates(lambda said: -1.0, tokens=1), budget=Budget(calls=calls))
    assert found.stop is StopReason.BUDGET
    # Answers are the calls 1, 3, 5 ...; the scorer runs a model and is refused.
    assert text(found) == f"it is {3 + (calls - 1) // 2}"


@pytest.mark.parametrize("settings", [{"rounds": -1}, {"memory": 0}])
def test_settings_that_are_not_accepted(settings):
    with pytest.raises(InvalidValue, match="at least"):
        SelfRefine(**settings)
