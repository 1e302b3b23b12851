from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import Problem
from clew.search import MajorityVote, ScriptedPolicy, run_searches
from clew.search.adaptive_vote import AdaptiveVote

PROBLEM = Problem("p", "toy", ())
ANSWERS = st.lists(st.sampled_from(["a", "a", "a", "b", "c", ""]), min_size=1, max_size=30)


class Task:
    def verify(self, problem, text):
        raise AssertionError("a vote asks no verifier")

    def extract(self, text):
        return text or None


def search(strategy, answers, **settings):
    (outcome,) = run_searches(strategy, [PROBLEM], ScriptedPolicy(answers), task=Task(), **settings)
    assert outcome.error is None
    return outcome


def slow_number_taken(answers, n, at_least, wave, confidence):
    taken = 0
    while taken < n:
        votes = Counter(answer for answer in answers[:taken] if answer)
        (_, first), (_, second) = [*votes.most_common(2), ("", 0), ("", 0)][:2]
        if taken >= at_least and beta.sf(0.5, first + 1, second + 1) >= confidence:
            return taken
        taken = min(n, max(taken + wave, at_least))
    return n


@given(ANSWERS, st.integers(1, 40), st.integers(1, 9), st.sampled_from([0.6, 0.8, 0.95, 0.99]))
def test_equals_a_majority_vote_of_the_samples_before_the_first_decided_look(answers, at_least, wave, confidence):
    n = len(answers)
    outcome = search(AdaptiveVote(n=n, at_least=at_least, wave=wave, confidence=confidence), answers)
    taken = slow_number_taken(answers, n, min(at_least, n), wave, confidence)
    assert outcome.cost.model_calls == taken
    whole = search(MajorityVote(n=taken), answers)
    assert outcome.result.candidates == whole.result.candidates
    assert outcome.result.chosen == whole.result.chosen


@pytest.mark.parametrize(
    ("answers", "taken"),
    [
        ("aaaaaaaa", 4),
        # In waves of four it is looked at after eight: 7-1.
        ("abaaaaaaaaa", 8),
        ("abaaaaaa", 7),
        ("abbaaaaaaa", 10),
        ("baaabaaaaaaa", 10),
    ],
)
def test_golden(answers, taken):
    wave = 4 if taken == 8 else 1
    outcome = search(AdaptiveVote(n=len(answers), wave=wave), list(answers))
    assert outcome.cost.model_calls == taken
    assert outcome.result.tree.answers[1] == answers[0]


def test_the_first_wave_is_as_large_as_what_it_must_take_anyway():
    outcome = search(AdaptiveVote(n=10, at_least=5, wave=3), ["a"] * 10)
    assert outcome.cost.model_calls == 5
    assert set(outcome.result.tree.made) == {0, 1}
    assert search(AdaptiveVote(n=10, at_least=50, wave=3), ["a"] * 10).cost.model_calls == 10


def test_votes_that_are_never_decided_take_all():
    assert search(AdaptiveVote(n=10), list("abababababab")).cost.model_calls == 10
    silent = search(AdaptiveVote(n=10), [""] * 10)
    assert silent.cost.model_calls == 10
    assert silent.result.chosen is None
    assert [c.score for c in silent.result.candidates] == [None] * 10


def test_certainty_is_never_reached():
    outcome = search(AdaptiveVote(n=20, confidence=1.0), ["a"] * 20)
    assert outcome.cost.model_calls == 20


def test_one_is_plain_sampling_or_nothing(toy):
    policy, task = toy.policy(), toy.Task()
    adaptive = run_searches(AdaptiveVote(n=1), toy.problems, policy, task=task)
    majority = run_searches(MajorityVote(n=1), toy.problems, policy, task=task)
    assert [o.result for o in adaptive] == [o.result for o in majority]


def test_each_solution_is_read_once(toy):
    task = toy.Task()
    outcomes = run_searches(AdaptiveVote(n=20, wave=3, confidence=0.6), toy.problems, toy.policy(), task=task)
    assert task.extracted == sum(o.cost.model_calls for o in outcomes)
    assert len({o.cost.model_calls for o in outcomes}) > 1


def test_a_budget_ends_it_with_the_vote_so_far():
    outcome = search(AdaptiveVote(n=20), list("babaccc"), budget=Budget(calls=5))
    assert outcome.cost.model_calls == 5
    assert outcome.result.chosen == outcome.result.candidates[0].state, "b and a are tied, b was first"
    assert search(AdaptiveVote(n=20), ["a"], budget=Budget(seconds=1e-12)).result.chosen is not None


@pytest.mark.parametrize(
    "settings",
    [{"n": 0}, {"at_least": 0}, {"wave": 0}, {"confidence": 0.5}, {"confidence": 1.1}, {"confidence": float("nan")}],
)
def test_settings_that_are_not_accepted(settings):
    with pytest.raises(InvalidValue, match=next(iter(settings))):
        AdaptiveVote(**settings)
