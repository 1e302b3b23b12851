from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import Outcome, Problem, Verdict
from clew.search import BestOfN, MajorityVote, MeanLogProb, ScriptedPolicy, StopReason, run_searches
from clew.search.weighted_best_of_n import WeightedBestOfN

PROBLEM = Problem("p", "toy", ())
DYADIC = [0.0, 0.25, 0.5, 0.75, 1.0, 3.0]


class Task:
    """Text `a1.5` gives answer a; the verifier's value is the number, unscored if there is none."""

    def verify(self, problem, text):
        if not text[1:]:
            return Verdict(Outcome.UNSCORED, None)
        return Verdict(Outcome.RIGHT if float(text[1:]) == 1.0 else Outcome.WRONG, float(text[1:]))

    def extract(self, text):
        return None if text[0] == "-" else text[0]


class ByNumber:
    name = "by-number"

    def score(self, states, completions):
        return [float(bytes(state.tokens[1:-1]).decode()) for state in states]

    def cost_tokens(self, states):
        return len(states)


def solutions_of(scores):
    return st.lists(st.tuples(st.sampled_from("abc-"), st.sampled_from(scores)), min_size=1, max_size=9)


def search(strategy, solutions, **settings):
    texts = [f"{answer}{'' if score is None else score}" for answer, score in solutions]
    settings = {"scorer": ByNumber(), **settings}
    (outcome,) = run_searches(strategy, [PROBLEM], ScriptedPolicy(texts), task=Task(), **settings)
    assert outcome.error is None, outcome.error
    return outcome


def place(outcome):
    """Which sample was chosen."""
    chosen = outcome.result.chosen
    return next(i for i, c in enumerate(outcome.result.candidates) if c.state is chosen)


def slow_choice(solutions, weigh):
    """Place of the choice; `solutions` are (answer, score), a score None weighs nothing."""
    answers = list(dict.fromkeys(answer for answer, _ in solutions if answer != "-"))
    totals = [sum(weigh(s) for a, s in solutions if a == answer and s is not None) for answer in answers]
    voters = [i for i, (a, _) in enumerate(solutions) if not answers or a == answers[totals.index(max(totals))]]
    best = max((s for i in voters if (s := solutions[i][1]) is not None), default=None)
    return next(i for i in voters if solutions[i][1] == best)


@given(solutions_of(DYADIC))
def test_equals_a_slow_sum_of_scores(solutions):
    outcome = search(WeightedBestOfN(n=len(solutions)), solutions)
    assert place(outcome) == slow_choice(solutions, Fraction)
    assert [c.score for c in outcome.result.candidates] == [score for _, score in solutions]


@given(solutions_of([-4.0, -2.5, -0.5, 0.0, 1.0]), st.sampled_from([0.3, 1.0, 4.0]))
def test_equals_a_slow_sum_of_exponentials(solutions, temperature):
    outcome = search(WeightedBestOfN(n=len(solutions), temperature=temperature), solutions)
    # Equal up to rounding is a tie only if the scores are the same ones.
    assert place(outcome) == slow_choice(solutions, lambda score: Fraction(round(math.exp(score / temperature), 9)))


@given(solutions_of([None, 0.0, 0.5, 1.0]))
def test_the_verifier_guides_and_what_it_cannot_judge_weighs_nothing(solutions):
    if all(score is None for _, score in solutions):
        return
    outcome = search(WeightedBestOfN(n=len(solutions), guide="verifier"), solutions)
    assert place(outcome) == slow_choice(solutions, Fraction)
    assert outcome.cost.verifier_calls == len(solutions)
    assert outcome.cost.scorer_tokens == 0


@given(solutions_of([0.5]))
def test_equal_scores_are_a_majority_vote(solutions):
    majority = search(MajorityVote(n=len(solutions)), solutions).result.chosen
    weighted = search(WeightedBestOfN(n=len(solutions)), solutions)
    assert weighted.result.chosen == (majority or weighted.result.candidates[0].state)


@given(st.permutations(list(zip("abcdef", DYADIC, strict=True))))
def test_answers_that_occur_once_are_best_of_n(solutions):
    weighted, best = (search(s(n=6, guide="scorer"), solutions).result for s in (WeightedBestOfN, BestOfN))
    assert (weighted.chosen, weighted.candidates) == (best.chosen, best.candidates)


def test_many_fair_solutions_outweigh_one_good_one():
    solutions = [("a", 1.0), ("b", 0.5), ("b", 0.75)]
    assert place(search(WeightedBestOfN(n=3), solutions)) == 2
    assert place(search(WeightedBestOfN(n=3, temperature=0.1), solutions)) == 0


def test_one_is_plain_sampling():
    for solution in [("a", 0.0), ("-", 0.5), ("-", 0.0)]:
        assert place(search(WeightedBestOfN(n=1), [solution])) == 0
    assert place(search(WeightedBestOfN(n=1, guide="verifier"), [("a", None)])) == 0


def test_without_money_for_scores_every_solution_has_one_vote():
    outcome = search(WeightedBestOfN(n=4), [("a", 1.0), ("b", 0.0), ("b", 0.25), ("c", 0.5)], budget=Budget(calls=4))
    assert outcome.stop is StopReason.BUDGET
    assert outcome.cost.scorer_tokens == 0
    assert place(outcome) == 1


def test_scores_below_zero_are_an_error_that_tells_what_to_do(toy):
    with pytest.raises(InvalidValue) as error:
        run_searches(WeightedBestOfN(n=3), toy.problems, toy.policy(), task=toy.Task(), scorer=MeanLogProb())
    assert "weighted-best-of-n" in error.value.given
    assert "temperature" in error.value.advice
    strategy = WeightedBestOfN(n=3, temperature=1.0)
    outcomes = run_searches(strategy, toy.problems, toy.policy(), task=toy.Task(), scorer=MeanLogProb())
    assert all(outcome.result.chosen is not None for outcome in outcomes)


@pytest.mark.parametrize(
    "settings", [{"n": 0}, {"per_request": 0}, {"temperature": 0.0}, {"temperature": float("nan")}]
)
def test_settings_that_are_not_accepted(settings):
    with pytest.raises(InvalidValue, match=next(iter(settings))):
        WeightedBestOfN(**settings)
