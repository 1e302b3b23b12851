"""Terms of a reward: published values, slow references, and what none may do: give the unscored a reward."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.cost import Cost
from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import Completion, FinishReason, Group, Outcome, Reward, Span, State, Trajectory, Verdict
from clew.reward.length import (
    CosineLength,
    Overlong,
    RelativeLength,
    cosine_between,
    relative_length,
    soft_overlong,
)
from clew.reward.terms import TERMS, VERIFIED, Scored, Verified, make_term, mean_parts, rewarded
from clew.reward.writing import Format, Language, Repetition, markers_in_order, repeated_share, script_share
from clew.tasks import Countdown

PROBLEM = Countdown().problem({"numbers": [3, 5, 7, 9], "target": 30})
VALUES = {Outcome.RIGHT: 1.0, Outcome.WRONG: 0.0, Outcome.UNSCORED: None}


def answer(outcome=Outcome.RIGHT, tokens=(1, 2, 3), text="answer 1", *, finished=True, value=None):
    tokens = tuple(tokens)
    state = State(PROBLEM, tokens, (Span(0, len(tokens)),), finished=finished)
    completion = Completion(tokens, None, FinishReason.STOP if finished else FinishReason.LENGTH)
    verdict = Verdict(outcome, VALUES[outcome] if value is None else value)
    return Trajectory(state, text, verdict, Reward(math.nan), Cost(), 0, completion)


def group(*trajectories):
    return Group(PROBLEM, trajectories)


@pytest.mark.parametrize(
    ("length", "reward"), [(0, 0.0), (1024, 0.0), (1025, -1 / 256), (1088, -0.25), (1279, -255 / 256), (1281, -1.0)]
)
def test_soft_overlong_is_that_of_dapo(length, reward):
    assert soft_overlong(length, longest=1280, margin=256) == reward


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=12))
def test_relative_length_against_the_formula_answer_by_answer(answers):
    lengths, right = [a for a, _ in answers], [b for _, b in answers]
    found = relative_length(lengths, right)
    for length, correct, reward in zip(lengths, right, found, strict=True):
        if max(lengths) == min(lengths):
            expected = 0.0
        else:
            expected = 0.5 - (length - min(lengths)) / (max(lengths) - min(lengths))
            expected = expected if correct else min(0.0, expected)
        assert reward == pytest.approx(expected)
        assert correct or reward <= 0.0


def test_a_quarter_of_the_cosine():
    half = math.sqrt(0.5)
    assert cosine_between(25, longest=100, at_zero=2.0, at_longest=1.0) == pytest.approx(1.5 + half / 2)
    assert cosine_between(75, longest=100, at_zero=-10.0, at_longest=0.0) == pytest.approx(-5 * (1 - half))


def test_cosine_length_pays_short_right_answers_and_long_wrong_ones():
    term = CosineLength(longest=10)
    of = {
        (outcome, n): term.rate(group(answer(outcome, range(n))))[0]
        for outcome in (Outcome.RIGHT, Outcome.WRONG)
        for n in (0, 5, 9, 10, 11)
    }
    assert of[Outcome.RIGHT, 0] == 1.0
    assert of[Outcome.RIGHT, 5] == pytest.approx(0.75)
    assert of[Outcome.WRONG, 0] == -1.0
    assert of[Outcome.WRONG, 5] == pytest.approx(-0.75)
    assert of[Outcome.RIGHT, 0] > of[Outcome.RIGHT, 9] > 0.5 > -0.5 > of[Outcome.WRONG, 9] > of[Outcome.WRONG, 0]
    assert {of[outcome, n] for outcome in (Outcome.RIGHT, Outcome.WRONG) for n in (10, 11)} == {-1.0}


def test_relative_length_leaves_the_unscored_out_of_the_comparison():
    rated = RelativeLength(weight=1.0).rate(
        group(
            answer(tokens=range(10)),
            answer(Outcome.UNSCORED, range(1000)),
            answer(tokens=range(20)),
            answer(Outcome.WRONG, range(10)),
        )
    )
    assert rated == [0.5, 0.0, -0.5, 0.0]


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("<think> a </think> answer 3", True),
        ("<think> a </think> answer 3 answer 4", False),
        ("</think> a <think> answer 3", False),
        ("<think> a answer 3", False),
        ("", False),
    ],
)
def test_markers(text, follows):
    assert markers_in_order(text, ["<think>", "</think>", "answer"]) == follows


def test_the_format_of_an_answer_that_was_cut_off_earns_nothing():
    assert Format().rate(group(answer(), answer(finished=False), answer(text="no end"))) == [0.1, 0.0, 0.0]


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_repetition_against_counting(tokens, n):
    seen, again = set(), 0
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    for gram in grams:
        again += gram in seen
        seen.add(gram)
    assert repeated_share(tokens, n) == pytest.approx(again / len(grams) if grams else 0.0)


@pytest.mark.parametrize(
    ("text", "script", "share"),
    [
        ("we add 3 and 5", "LATIN", 1.0),
        ("we add 3 и 5", "LATIN", 2 / 3),
        ("九 times", "LATIN", 0.5),
        ("九八 times", "LATIN", 1 / 3),
        ("九八 times", "CJK", 2 / 3),
        ("naïve re\u0301sume\u0301", "LATIN", 1.0),
        ("3 + 5 = 8", "LATIN", 1.0),
        ("", "CJK", 1.0),
        ("привет", "LATIN", 0.0),
        ("\ud800 \x00 \U0010ffff", "LATIN", 1.0),
    ],
)
def test_share_of_a_script(text, script, share):
    assert script_share(text, frozenset({script})) == pytest.approx(share)


@given(st.text(st.characters(), max_size=200))
def test_terms_of_writing_never_raise_and_stay_within_their_weight(text):
    some = group(answer(text=text, tokens=[ord(c) for c in text]))
    for term, low, high in ((Format(), 0.0, 0.1), (Language(), 0.0, 0.1), (Repetition(), -0.1, 0.0)):
        assert low <= term.rate(some)[0] <= high


def test_a_megabyte_takes_bounded_time():
    text = "answer 九 и nine \u0301" * 60_000
    start = time.perf_counter()
    Format().rate(group(answer(text=text)))
    Language().rate(group(answer(text=text)))
    assert time.perf_counter() - start < 10


class Constant:
    name = "constant"

    def score(self, states, completions):
        return [len(state.tokens) / 2 for state in states]

    def cost_tokens(self, states):
        return 0


def test_a_reward_is_the_sum_of_its_named_parts_and_unscored_has_none():
    terms = (Verified(), Overlong(longest=4, margin=2), Scored(scorer=Constant()))
    some = group(answer(tokens=range(3)), answer(Outcome.UNSCORED), answer(Outcome.WRONG, range(2), value=0.25))
    first, second, third = rewarded(some, terms).trajectories
    assert first.reward == Reward(2.0, {"verifier": 1.0, "overlong": -0.5, "model": 1.5})
    assert math.isnan(second.reward.value)
    assert second.reward.parts == {}
    assert third.reward == Reward(1.25, {"verifier": 0.25, "overlong": 0.0, "model": 1.0})
    assert mean_parts([rewarded(some, terms)]) == {"verifier": 0.625, "overlong": -0.25, "model": 1.25}
    assert mean_parts([group(answer(Outcome.UNSCORED))]) == {}


def test_a_name_may_not_come_twice():
    for terms in ((), (Verified(), Verified(weight=2.0))):
        with pytest.raises(InvalidValue, match="terms of the reward"):
            rewarded(group(answer()), terms)


def test_every_term_can_be_made_by_its_name_and_rates_every_group():
    groups = [group(answer()), group(answer(tokens=())), group(answer(Outcome.UNSCORED), answer(Outcome.WRONG))]
    for name in TERMS:
        term = make_term(name)
        assert term.name == name
        for some in groups:
            assert all(math.isfinite(x) for x in term.rate(some))
    assert (make_term("verifier"),) == VERIFIED


def test_settings_of_a_term():
    assert make_term("repetition:n=4,weight=0.5") == Repetition(n=4, weight=0.5)
    assert make_term("language:scripts=hiragana cjk") == Language(scripts="hiragana cjk")
    for spec, error, words in (
        ("overlongg", UnknownName, "did you mean 'overlong'"),
        ("overlong:longst=3", UnknownName, "did you mean 'longest'"),
        ("overlong:longest=many", InvalidValue, "a whole number"),
        ("overlong:longest=", InvalidValue, "a whole number"),
        ("overlong:weight=inf", InvalidValue, "a finite number"),
        ("overlong:margin=0", InvalidValue, "1 to 240"),
        ("format:markers=", InvalidValue, "a word"),
        ("repetition:n=0", InvalidValue, "at least 1"),
        ("cosine-length:longest=0", InvalidValue, "at least 1"),
    ):
        with pytest.raises(error, match=words):
            make_term(spec)
