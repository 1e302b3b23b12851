"""Guides without weights: each against numbers worked out by hand, or a slow reading of its definition."""

from __future__ import annotations

import math
from itertools import permutations
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.core.types import Completion, FinishReason, Message, Outcome, Problem, Sampling, State, Verdict
from clew.search import BestOfN, run_searches
from clew.search.guides import (
    HeuristicRule,
    MeanEntropy,
    MeanLogProb,
    PairwiseSelfJudgement,
    SelfCertainty,
    SelfEvaluation,
    SemanticEntropy,
    VerifierScorer,
)
from clew.search.guides.pairwise import meetings
from clew.search.guides.self_evaluation import preference
from clew.search.guides.tokens_read import TokensRead

PROBLEM = Problem("toy:1", "toy", (Message("user", "guess 1"),), {"digit": "1"})
OTHER = Problem("toy:2", "toy", (Message("user", "guess 2"),), {"digit": "2"})


def completion(**fields):
    return Completion((5, 6), None, FinishReason.STOP, **fields)


def states_of(*texts, problem=PROBLEM, finished=True):
    return [State(problem, tuple(text.encode()), finished=finished) for text in texts]


class Reading(NamedTuple):
    logprobs: list
    tokens_read: list


def text_of(state):
    return bytes(state.tokens).decode()


# By what the policy said.


def test_entropy_and_certainty_are_means_over_the_tokens():
    last = completion(entropies=(0.5, 1.5), certainties=(2.0, 5.0))
    state = State(PROBLEM)
    assert MeanEntropy().score([state], [last]) == [-1.0]
    assert SelfCertainty().score([state], [last]) == [3.5]
    assert MeanEntropy().cost_tokens([state]) == SelfCertainty().cost_tokens([state]) == 0


def test_a_surer_policy_scores_higher_by_every_internal_guide():
    sure, unsure = (0.97, 0.01, 0.01, 0.01), (0.25, 0.25, 0.25, 0.25)

    def said(p):
        entropy = -math.fsum(x * math.log(x) for x in p)
        certainty = -math.fsum(math.log(len(p) * x) for x in p) / len(p)
        return Completion((0,), (math.log(p[0]),), FinishReason.STOP, entropies=(entropy,), certainties=(certainty,))

    assert said(unsure).certainties == pytest.approx((0.0,), abs=1e-12)
    assert said(sure).certainties == pytest.approx((2.075198,), abs=1e-6)
    for guide in (MeanLogProb(), MeanEntropy(), SelfCertainty()):
        better, worse = guide.score([State(PROBLEM)] * 2, [said(sure), said(unsure)])
        assert better > worse


@pytest.mark.parametrize("guide", [MeanLogProb(), MeanEntropy(), SelfCertainty()], ids=lambda g: g.name)
@pytest.mark.parametrize("last", [None, completion()], ids=["told", "without"])
def test_a_guide_that_needs_statistics_says_what_to_do(guide, last):
    with pytest.raises(InvalidValue) as caught:
        guide.score([State(PROBLEM)], [last])
    assert "completion" in caught.value.given
    assert "token" in caught.value.accepted
    assert "verifier" in caught.value.advice


# By agreement.


def test_semantic_entropy_is_the_share_of_the_answer_within_its_problem(toy):
    policy = SimpleNamespace(text=text_of)
    guide = SemanticEntropy(policy=policy, task=toy.Task())
    mine = states_of("answer 3", "x answer 3", "answer 4", "no idea")
    theirs = states_of("answer 3", problem=OTHER)
    scores = guide.score([mine[0], *theirs, *mine[1:]], [None] * 5)
    assert scores == [0.5, 1.0, 0.5, 0.25, 0.0]
    assert guide.score([], []) == []


@given(st.lists(st.sampled_from(["answer 1", "answer 2", "none"]), min_size=1, max_size=8))
def test_shares_of_answers_add_up(texts):
    def extract(text):
        return text.partition("answer ")[2] or None

    guide = SemanticEntropy(policy=SimpleNamespace(text=text_of), task=SimpleNamespace(extract=extract))
    scores = guide.score(states_of(*texts), [None] * len(texts))
    slow = [0.0 if t == "none" else sum(u == t for u in texts) / len(texts) for t in texts]
    assert scores == slow


# By asking the policy.


class Asked:
    """Says `yes` with a probability that grows with the number of 1s in the state."""

    def __init__(self):
        self.states = []

    def next_logprobs(self, states, words):
        self.states += states
        assert words == ("yes", "no")
        rights = [0.1 + 0.2 * text_of(state).count("1") for state in states]
        return Reading([[math.log(p / 2), math.log((1 - p) / 2)] for p in rights], [len(s.tokens) for s in states])

    def encode(self, text):
        return tuple(text.encode())

    text = staticmethod(text_of)


def test_self_evaluation_is_the_share_of_the_right_word():
    policy = Asked()
    guide = SelfEvaluation(policy=policy)
    states = states_of("1", "11", "22", finished=False)
    assert guide.cost_tokens(states) > 0
    assert guide.score(states, [None] * 3) == pytest.approx([0.3, 0.5, 0.1])
    assert guide.cost_tokens(states[:1]) == 1
    assert guide.cost_tokens(states[1:]) == 4
    # With a question the policy reads it too, and a finished state is asked about without its stop token.
    guide = SelfEvaluation(policy=policy, question="11?")
    (finished,) = [State(PROBLEM, (49, 50, 7)).extend(Completion((49, 7), None, FinishReason.STOP))]
    assert guide.score([finished], [None]) == pytest.approx([0.1 + 0.2 * 4])
    assert policy.states[-1].tokens == (49, 50, 7, 49, *b"11?")
    assert guide.cost_tokens([finished]) == 7


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [(0.0, 0.0, 0.5), (-math.inf, -math.inf, 0.5), (-math.inf, 0.0, 0.0), (0.0, -math.inf, 1.0), (-900.0, -1.0, 0.0)],
)
def test_preference_at_the_edges(first, second, share):
    assert preference(first, second) == share


@given(st.floats(-50, 0), st.floats(-50, 0))
def test_preferences_add_up(first, second):
    assert preference(first, second) + preference(second, first) == pytest.approx(1.0)
    slow = math.exp(first) / (math.exp(first) + math.exp(second))
    assert preference(first, second) == pytest.approx(slow)


@given(st.integers(1, 12), st.sampled_from([2, 4, 6]))
def test_meetings_are_fair_and_bounded(n, opponents):
    pairs = [frozenset(pair) for pair in meetings(n, opponents)]
    assert len(pairs) == len(set(pairs))
    assert all(len(pair) == 2 for pair in pairs)
    met = [sum(i in pair for pair in pairs) for i in range(n)]
    assert set(met) == {min(opponents, n - 1)}


class Judge:
    """Prefers the solution with the larger number, and always leans to the first place."""

    def __init__(self, lean=1.0):
        self.asked = []
        self.lean = lean

    def next_logprobs(self, states, words):
        assert words == ("A", "B")
        self.asked += states
        logprobs = []
        for state in states:
            first, second = (int(part.split()[0]) for part in state.problem.prompt[0].content.split(":\n")[1:3])
            logprobs.append([float(first) + self.lean, float(second)])
        return Reading(logprobs, [10 * (place + 1) for place in range(len(states))])

    text = staticmethod(text_of)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_pairwise_is_the_win_rate_over_both_orders(numbers):
    policy = Judge()
    guide = PairwiseSelfJudgement(policy=policy)
    scores = guide.score(states_of(*map(str, numbers)), [None] * len(numbers))

    def wins(a, b):
        return 1 / (1 + math.exp(b - a))

    for i, number in enumerate(numbers):
        rates = []
        for j, other in enumerate(numbers):
            if i != j:
                rates += [wins(number + 1, other), 1 - wins(other + 1, number)]
        assert scores[i] == pytest.approx(sum(rates) / len(rates) if rates else 0.5)
    assert len(policy.asked) == len(list(permutations(numbers, 2)))
    assert sum(scores) == pytest.approx(len(numbers) / 2)


def test_pairwise_compares_within_a_problem_and_counts_what_was_read():
    policy = Judge()
    guide = PairwiseSelfJudgement(policy=policy)
    mine, theirs = states_of("1", "2"), states_of("3", problem=OTHER)
    low, alone, high = guide.score([mine[0], theirs[0], mine[1]], [None] * 3)
    assert low < alone == 0.5 < high
    assert all("guess 1" in state.problem.prompt[0].content for state in policy.asked)
    assert guide.cost_tokens(theirs) == 0
    assert guide.cost_tokens([mine[0]]) == 10
    assert guide.cost_tokens([mine[1]]) == 20


@pytest.mark.parametrize("opponents", [0, 1, 3, -2])
def test_opponents_are_even(opponents):
    with pytest.raises(InvalidValue, match=f"opponents is {opponents}"):
        PairwiseSelfJudgement(policy=Judge(), opponents=opponents)


def test_what_was_read_is_told_once():
    read = TokensRead()
    a, b = states_of("a", "b")
    read.note(a, 3)
    read.note(a, 4)
    assert read.take([a, a, b], lambda state: 100) == 107
    assert read.take([a], lambda state: 100) == 100


# By rules and verdicts.


def test_a_rule_sees_the_problem_and_the_text():
    def rule(problem, text):
        return len(text) + 100 * (problem.id == "toy:2")

    guide = HeuristicRule(rule=rule, policy=SimpleNamespace(text=text_of), name="length")
    assert guide.score([*states_of("abc"), *states_of("a", problem=OTHER)], [None, None]) == [3.0, 101.0]
    assert (guide.name, guide.cost_tokens([])) == ("length", 0)


def test_the_verifier_as_a_scorer(toy):
    guide = VerifierScorer(task=toy.Task(), policy=SimpleNamespace(text=text_of), unknown=0.25)
    right, wrong, unscored = states_of("answer 1", "answer 2", "crash")
    (open_,) = states_of("answer 1", finished=False)
    assert guide.score([right, wrong, unscored, open_], [None] * 4) == [1.0, 0.0, 0.25, 0.25]
    partial = SimpleNamespace(verify=lambda problem, text: Verdict(Outcome.WRONG, 0.4))
    assert VerifierScorer(task=partial, policy=SimpleNamespace(text=text_of)).score([right], [None]) == [0.4]


def test_the_verifier_as_a_scorer_chooses_as_the_verifier(toy):
    problems = [toy.problem(i) for i in range(5)]
    policy = toy.policy()
    strategy = BestOfN(n=6, sampling=Sampling(max_tokens=40), guide="scorer")
    guide = VerifierScorer(task=toy.Task(), policy=policy)
    ours = run_searches(strategy, problems, policy, task=toy.Task(), scorer=guide)
    theirs = run_searches(BestOfN(n=6, sampling=Sampling(max_tokens=40)), problems, policy, task=toy.Task())
    assert [o.result.chosen for o in ours] == [o.result.chosen for o in theirs]
