from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talk import PROBLEM, Digit, Rates, Talk, candidates, search, text

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import Completion, FinishReason, Sampling, Span, State
from clew.search import ScriptedPolicy, StopReason
from clew.search.budget_forcing import BudgetForcing, without_end
from clew.search.policies import END

SHORT = {
    "wait": " wait ",
    "answer_cue": "|so ",
    "sampling": Sampling(max_tokens=99),
    "answering": Sampling(max_tokens=9),
}


def counter():
    """Says how often it was told to wait; every answer is 6 tokens long, its end included."""
    return Talk(lambda shown, begun: f"is {begun.count('wait')}.")


@pytest.mark.parametrize(
    ("least", "waits", "expected"),
    [
        (0, 5, "is 0."),
        (5, 5, "is 0."),
        (6, 5, "is 0. wait is 1."),
        (16, 5, "is 0. wait is 1."),
        (17, 5, "is 0. wait is 1. wait is 2."),
        (90, 2, "is 0. wait is 1. wait is 2."),
        (90, 0, "is 0."),
    ],
)
def test_below_the_minimum_the_end_is_taken_back_and_wait_is_told(least, waits, expected):
    talk = counter()
    found = search(BudgetForcing(min_thinking=least, max_thinking=99, waits=waits, **SHORT), talk)
    assert text(found) == expected
    assert found.result.chosen.finished
    assert found.result.chosen.tokens.count(END) == 1
    # Each end that was suppressed was sampled, and is paid for.
    assert found.cost.tokens_sampled == sum(len(turn.said) + 1 for turn in talk.turns)
    assert found.cost.tokens_sampled == found.result.tree.cost().tokens_sampled
    assert candidates(found) == [expected[: 5 + 11 * i] for i in range(expected.count("is"))]


def test_above_the_maximum_the_answer_is_asked_for():
    talk = Talk(lambda shown, begun: "five" if begun.endswith("|so ") else "hm " * 30)
    found = search(BudgetForcing(min_thinking=0, max_thinking=12, **SHORT), talk)
    assert text(found) == "hm hm hm hm |so five"
    assert [turn.begun for turn in talk.turns] == ["", "hm hm hm hm |so "]
    assert candidates(found) == [text(found)]
    assert found.cost.tokens_sampled == 12 + 5


def test_a_request_shorter_than_the_maximum_is_gone_on_with():
    talk = Talk(lambda shown, begun: "five" if begun.endswith("|so ") else "abcdefghijkl"[len(begun) :] + "..")
    strategy = BudgetForcing(min_thinking=0, max_thinking=12, **{**SHORT, "sampling": Sampling(max_tokens=5)})
    found = search(strategy, talk)
    assert [turn.begun for turn in talk.turns] == ["", "abcde", "abcdefghij", "abcdefghijkl|so "]
    assert text(found) == "abcdefghijkl|so five"


def test_a_mark_ends_the_thinking_and_is_suppressed_like_an_end():
    def say(shown, begun):
        return "seven" if begun.endswith("|") else f"think{begun.count('wait')}|six"

    talk = Talk(say)
    marked = {**SHORT, "sampling": Sampling(max_tokens=99, step_ends=("|",))}
    found = search(BudgetForcing(min_thinking=10, max_thinking=99, waits=5, **marked), talk)
    assert text(found) == "think0 wait think1|seven"
    assert [turn.begun for turn in talk.turns] == ["", "think0 wait ", "think0 wait think1|"]
    assert candidates(found) == [text(found)]


def test_the_guide_chooses_among_the_ends_that_the_policy_wanted():
    settings = {"min_thinking": 90, "max_thinking": 99, "waits": 2, **SHORT}
    by = Rates(lambda said: 1.0 if said.endswith("is 1.") else 0.0)
    assert text(search(BudgetForcing(guide="scorer", **settings), counter(), scorer=by)) == "is 0. wait is 1."
    equal = Rates(lambda said: 0.5)
    assert text(search(BudgetForcing(guide="scorer", **settings), counter(), scorer=equal)).count("wait") == 2
    seven = Talk(lambda shown, begun: f"{8 - begun.count('wait')}")
    found = search(BudgetForcing(guide="verifier", **settings), seven, judge=Digit())
    assert text(found) == "8 wait 7"


@pytest.mark.parametrize(
    ("calls", "expected"), [(1, "is 0."), (2, "is 0. wait is 1."), (3, "is 0. wait is 1. wait is 2.")]
)
def test_whenever_the_budget_ends_it_answers_with_the_last_end(calls, expected):
    strategy = BudgetForcing(min_thinking=90, max_thinking=99, waits=9, **SHORT)
    found = search(strategy, counter(), budget=Budget(calls=calls))
    assert (found.stop, text(found)) == (StopReason.BUDGET, expected)


def test_a_budget_that_ends_in_the_middle_of_thinking_leaves_nothing_chosen():
    strategy = BudgetForcing(min_thinking=0, max_thinking=12, **SHORT)
    found = search(strategy, Talk(lambda shown, begun: "hm" * 30), budget=Budget(calls=1))
    assert (found.stop, found.result.chosen, found.result.candidates) == (StopReason.BUDGET, None, ())


def expected_text(say, *, least, most, waits, limit, answering):
    """The rules on strings, one token a letter: (response, tokens sampled)."""
    written, sampled = "", 0
    while len(written) < most:
        room, tokens = min(limit, most - len(written)), [*say(written), "END"]
        stop = tokens.index("|") + 1 if "|" in tokens[:-1] else len(tokens)
        taken = tokens[: min(stop, room)]
        sampled += len(taken)
        if taken[-1] not in ("|", "END"):
            written += "".join(taken)
            continue
        thought = written + "".join(taken[:-1])
        if waits and len(thought) < least:
            waits, written = waits - 1, thought + " wait "
            continue
        if taken[-1] == "END":
            return thought, sampled
        written = thought + "|"
        break
    else:
        written += "|so "
    rest = [*say(written), "END"][:answering]
    return written + "".join(t for t in rest if t != "END"), sampled + len(rest)


@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(0, 20), st.integers(0, 4), st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_it_equals_the_rules_written_on_strings(seed, least, more, waits, limit):
    def said(begun):
        draw = random.Random(f"{seed} {begun}")
        return "".join(draw.choice("abc|") for _ in range(draw.randrange(9)))

    most = max(1, least + more)
    strategy = BudgetForcing(
        min_thinking=least,
        max_thinking=most,
        waits=waits,
        wait=" wait ",
        answer_cue="|so ",
        sampling=Sampling(max_tokens=limit, step_ends=("|",)),
        answering=Sampling(max_tokens=4),
    )
    found = search(strategy, Talk(lambda shown, begun: said(begun)))
    expected = expected_text(said, least=least, most=most, waits=waits, limit=limit, answering=4)
    last = found.result.tree.states[-1]
    assert (ScriptedPolicy("").text(last), found.cost.tokens_sampled) == expected
    assert len(last.tokens) <= most + len(" wait ") + len("|so ") + 4


def test_the_token_that_ended_the_last_step_is_taken_off():
    state = State(PROBLEM).extend(Completion((1, 2), None, FinishReason.STEP))
    whole = state.extend(Completion((3, END), None, FinishReason.STOP))
    assert without_end(whole) == State(PROBLEM, (1, 2, 3), (Span(0, 2), Span(2, 3))) == whole.reopened()
    assert without_end(state) == State(PROBLEM, (1,), (Span(0, 1),))


@pytest.mark.parametrize(
    "wrong", [{"min_thinking": -1}, {"waits": -1}, {"max_thinking": 127}, {"min_thinking": 0, "max_thinking": 0}]
)
def test_settings_that_are_not_accepted(wrong):
    with pytest.raises(InvalidValue, match="at least"):
        BudgetForcing(**wrong)
