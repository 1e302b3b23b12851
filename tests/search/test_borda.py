from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.core.types import Completion, FinishReason, Problem, Sampling
from clew.search import MajorityVote, ScriptedPolicy, TabularPolicy, run_searches
from clew.search.borda import Borda
from clew.stats.self_certainty import self_certainty

PROBLEM = Problem("p", "toy", ())
SOLUTIONS = st.lists(
    st.tuples(st.sampled_from("abc-"), st.sampled_from([(0.5,), (1.0, 0.0), (2.0,), (2.5, 0.5, 0.0), (4.0, 1.0)])),
    min_size=1,
    max_size=9,
)


@dataclass
class Scripted:
    """Gives these answers with these certainties of their tokens, in order."""

    solutions: list
    version: str = "scripted"

    def sample(self, prompts, sampling):
        assert sampling.statistics
        taken, self.solutions = self.solutions[: len(prompts)], self.solutions[len(prompts) :]
        return [
            Completion((ord(answer),) * len(certain), None, FinishReason.STOP, certainties=certain)
            for answer, certain in taken
        ]

    def text(self, state):
        return chr(state.tokens[0])


class Task:
    def extract(self, text):
        return None if text[0] == "-" else text[0]


def search(strategy, solutions, **settings):
    (outcome,) = run_searches(strategy, [PROBLEM], Scripted(list(solutions)), task=Task(), **settings)
    assert outcome.error is None, outcome.error
    return outcome


def place(outcome):
    chosen = outcome.result.chosen
    return next((i for i, c in enumerate(outcome.result.candidates) if c.state is chosen), None)


def slow_choice(solutions, power):
    """Ranks by counting; equal candidates take the mean of the votes of the ranks they fill."""
    certain = [Fraction(sum(tokens)) / len(tokens) for _, tokens in solutions]
    n, votes = len(solutions), []
    for own in certain:
        first = 1 + sum(other > own for other in certain)
        ranks = range(first, first + certain.count(own))
        votes.append(Fraction(sum((n - rank + 1) ** power for rank in ranks), len(ranks)))
    answers = list(dict.fromkeys(answer for answer, _ in solutions if answer != "-"))
    totals = [sum(v for v, (a, _) in zip(votes, solutions, strict=True) if a == answer) for answer in answers]
    voters = [i for i, (a, _) in enumerate(solutions) if not answers or a == answers[totals.index(max(totals))]]
    return max(voters, key=lambda i: (certain[i], -i))


def mean(certainties):
    return sum(certainties) / len(certainties)


@given(SOLUTIONS, st.sampled_from([0, 1, 2, 5]))
def test_equals_a_slow_vote(solutions, power):
    outcome = search(Borda(n=len(solutions), power=float(power)), solutions)
    assert place(outcome) == slow_choice(solutions, power)
    assert [c.score for c in outcome.result.candidates] == [mean(certain) for _, certain in solutions]
    assert outcome.cost.verifier_calls == 0


@given(SOLUTIONS)
def test_power_zero_and_equal_certainties_are_a_majority_vote(solutions):
    n = len(solutions)
    alike = [(answer, (1.5,)) for answer, _ in solutions]
    for strategy, given_ in ((Borda(n=n, power=0.0), solutions), (Borda(n=n, power=1.3), alike)):
        answers = [answer for answer, _ in given_ if answer != "-"]
        most = max(answers, key=answers.count, default="-")
        assert given_[place(search(strategy, given_))][0] == most


@given(SOLUTIONS)
def test_a_large_power_lets_the_most_certain_decide(solutions):
    distinct = [(answer, (float(i),)) for i, (answer, _) in enumerate(solutions)]
    voters = [i for i, (answer, _) in enumerate(distinct) if answer != "-"]
    assert place(search(Borda(n=len(distinct), power=64.0), distinct)) == max(voters, default=len(distinct) - 1)


def test_golden():
    # Ranks 4, 1, 3, 2: b has 4^p votes, a has 1 + 2^p + 3^p.
    solutions = [("a", (0.1,)), ("b", (0.9,)), ("a", (0.2,)), ("a", (0.3,))]
    assert place(search(Borda(n=4, power=1.0), solutions)) == 3
    assert place(search(Borda(n=4, power=4.0), solutions)) == 1


PROBS = (0.5, 0.3, 0.15, 0.05)
TABULAR = TabularPolicy(("a", "b", "c", "-"), lambda state: PROBS if not state.tokens else PROBS[::-1], stop=9)


def test_the_scores_are_those_of_the_policys_own_distributions():
    strategy = Borda(n=6, sampling=Sampling(max_tokens=2, temperature=0.7))
    (outcome,) = run_searches(strategy, [PROBLEM], TABULAR, task=Task(), seed=3)
    sharp = [p ** (1 / 0.7) for p in PROBS]
    rows = [[p / sum(sharp) for p in sharp]] * 2
    assert [c.score for c in outcome.result.candidates] == pytest.approx([self_certainty(rows)] * 6)


def test_truncated_distributions_are_infinitely_certain_and_vote_alike():
    sampling = Sampling(max_tokens=1, top_k=2)
    (borda,) = run_searches(Borda(n=9, sampling=sampling), [PROBLEM], TABULAR, task=Task())
    (majority,) = run_searches(MajorityVote(n=9, sampling=sampling), [PROBLEM], TABULAR, task=Task())
    assert borda.result.chosen == majority.result.chosen
    assert {c.score for c in borda.result.candidates} == {float("inf")}


def test_one_is_plain_sampling():
    for solution in [("a", (0.5,)), ("-", (0.5, 1.0))]:
        assert place(search(Borda(n=1), [solution])) == 0


def test_a_budget_ends_it_with_the_vote_so_far():
    solutions = [("a", (0.1,)), ("b", (0.9,)), ("c", (2.0,))]
    outcome = search(Borda(n=3, per_request=1), solutions, budget=Budget(calls=2))
    assert (outcome.cost.model_calls, place(outcome)) == (2, 1)


def test_a_policy_without_certainties_is_an_error_that_names_the_strategy(toy):
    with pytest.raises(InvalidValue) as error:
        run_searches(Borda(n=2), toy.problems, ScriptedPolicy(lambda prompt, _: "answer 3"), task=toy.Task())
    assert "certainties" in error.value.given
    assert "strategy 'borda'" in error.value.given
    assert "majority-vote" in error.value.advice


@pytest.mark.parametrize(
    "settings", [{"n": 0}, {"per_request": 0}, {"power": -1.0}, {"power": 65.0}, {"power": float("nan")}]
)
def test_settings_that_are_not_accepted(settings):
    with pytest.raises(InvalidValue, match=next(iter(settings))):
        Borda(**settings)
