"""Monte Carlo and OmegaPRM labels in worlds that can be enumerated."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.cost import Budget, Cost
from clew.core.errors import InvalidValue
from clew.core.types import Message, Outcome, Problem, Sampling, Span, State, Verdict
from clew.data.search_json import decode_record, decode_tree, encode_record, encode_tree
from clew.reward.label_tree import LabelTree, Rollout, Solutions, split
from clew.reward.monte_carlo import MonteCarlo, hard_label, soft_label
from clew.reward.omega_prm import OmegaPrm, Wrong, exploration, first_wrong_step, rollout_value
from clew.reward.tree_labels import implied, labels_of_tree, soft, tree_values
from clew.search import Roles, SearchRecord, StopReason, TabularPolicy, continue_searches, run_searches

WORDS = ("</s>", "a;", "b;", "x;", "y")
A, B, X, Y = 1, 2, 3, 4
DEPTH = 6
WHOLE = Sampling(max_tokens=12)
PROBLEM = Problem("world:0", "world", (Message("user", "avoid b"),))


def next_probs(state):
    """`a;`, the mistake `b;`, `x;` that crashes the judge, and a `y` that ends no step; over after DEPTH steps."""
    steps = sum(token != Y for token in state.tokens)
    if steps == DEPTH:
        return (1.0, 0.0, 0.0, 0.0, 0.0)
    if state.tokens[-1:] == (Y,):
        return (0.0, 0.7, 0.2, 0.1, 0.0)
    return (0.0, 0.6, 0.2, 0.0, 0.2)


POLICY = TabularPolicy(WORDS, next_probs)


@dataclass
class Judge:
    """Right is a response of DEPTH steps without `b;`; one with `x;` cannot be judged. Counts by itself."""

    calls: int = 0

    def verify(self, problem, text):
        self.calls += 1
        words = text.split()
        if "x;" in words:
            return Verdict(Outcome.UNSCORED, None, None, "crash")
        right = "b;" not in words and sum(word != "y" for word in words) == DEPTH
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), text)

    def extract(self, text):
        return text


@dataclass
class Counting:
    cost: Cost = field(default_factory=Cost)
    asked: Counter = field(default_factory=Counter)
    longest: int = 0
    version: str = "counting"

    def sample(self, prompts, sampling):
        found = POLICY.sample(prompts, sampling)
        for prompt, completion in zip(prompts, found, strict=True):
            self.asked[prompt.state.tokens] += 1
            self.cost += Cost(
                tokens_sampled=len(completion.tokens), prompt_tokens_read=len(prompt.state.tokens), model_calls=1
            )
            self.longest = max(self.longest, len(prompt.state.tokens) + len(completion.tokens))
        return found

    def text(self, state):
        return POLICY.text(state)

    def encode(self, text):
        return POLICY.encode(text)


@cache
def true_value(tokens):
    """P(right | it can be judged), by enumeration."""
    totals = Counter()
    state = State(PROBLEM, tokens)
    for completion, probability in POLICY.enumerate(state, Sampling(max_tokens=64)):
        totals[Judge().verify(PROBLEM, POLICY.text(state.extend(completion))).outcome] += probability
    scored = totals[Outcome.RIGHT] + totals[Outcome.WRONG]
    return totals[Outcome.RIGHT] / scored if scored else None


def solution(*tokens, finished=True):
    return State(PROBLEM, (*tokens, 0) if finished else tokens, finished=finished)


def label(strategy, *, seed=0, policy=None, judge=None, budget=None):
    (outcome,) = run_searches(
        strategy, [PROBLEM], policy or Counting(), task=judge or Judge(), seed=seed, budget=budget
    )
    assert outcome.error is None, outcome.error
    return outcome


def solutions(*states, **settings):
    given_states = {PROBLEM.id: states} if states else {}
    return Solutions(**{"given": given_states, "sampling": Sampling(max_tokens=20), "step_ends": (";",)} | settings)


LINE = solution(A, A, B, A, Y, A, B)


# Monte Carlo.


def test_labels_of_one_prefix():
    right, wrong, unscored = Outcome.RIGHT, Outcome.WRONG, Outcome.UNSCORED
    assert soft_label([right, wrong, wrong, unscored, right]) == 0.5
    assert hard_label([wrong, wrong, unscored, right]) == 1.0
    assert hard_label([wrong, unscored]) == 0.0
    assert soft_label([unscored]) is None and hard_label([]) is None


def test_values_are_those_of_enumeration():
    runs, k = 30, 8
    found = Counter()
    line = solution(A, A, Y, A, A, A, A)
    for seed in range(runs):
        tree = label(MonteCarlo(k=k, solutions=solutions(line)), seed=seed).result.tree
        for node in range(1, len(tree) - 1):
            found[tree.states[node].tokens] += tree.value(node)
    # Steps end with `;`: the `y` belongs to the step that it begins.
    assert list(found) == [line.tokens[:at] for at in (1, 2, 4, 5, 6)]
    for tokens, total in found.items():
        value = true_value(tokens)
        assert abs(total / runs - value) <= 4.0 * math.sqrt(value * (1.0 - value) / (runs * k * 0.8)), tokens


def test_unscored_rollouts_are_in_no_value_and_are_counted():
    judge, policy = Judge(), Counting()
    outcome = label(MonteCarlo(k=16, solutions=solutions(LINE)), policy=policy, judge=judge)
    tree = outcome.result.tree
    (labels,) = labels_of_tree(tree, POLICY.text, soft, made="")
    measured = labels.visits[:-1]
    assert labels.unscored == 16 * len(measured) - sum(measured) > 0
    assert labels.visits[-1] == 1 and labels.labels[-1] == 0.0
    # A mistake cannot be undone: counted as wrong, unscored roll-outs would have made the first values smaller.
    assert [label > 0 for label in labels.labels] == [True, True, False, False, False, False]
    assert outcome.cost.verifier_calls == judge.calls
    assert labels.cost.model_calls == 16 * len(measured) == policy.cost.model_calls


def test_a_prefix_whose_rollouts_cannot_be_judged_has_no_label():
    tree = label(MonteCarlo(k=4, solutions=solutions(solution(A, Y, X, A, A, A, A)))).result.tree
    (labels,) = labels_of_tree(tree, POLICY.text, soft, made="")
    assert labels.labels[1:] == (None,) * 5
    assert labels.weights[1:] == (0.0,) * 5
    # The solution itself is one more that nobody could judge.
    assert labels.unscored == (4 - labels.visits[0]) + 4 * 4 + 1


def test_shared_steps_are_rolled_out_once():
    policy = Counting()
    tree = label(MonteCarlo(k=3, solutions=solutions(LINE, solution(A, A, A, A, A, A))), policy=policy).result.tree
    assert set(policy.asked.values()) == {3}
    first, second = labels_of_tree(tree, POLICY.text, soft, made="m")
    assert first.labels[:2] == second.labels[:2]
    assert second.weights == (0.0, 0.0, 1.0, 1.0, 1.0, 1.0)
    assert first.cost + second.cost == tree.cost()
    assert "".join(first.steps) == POLICY.text(LINE) and first.tokens == LINE.tokens
    assert [LINE.tokens[a:b] for a, b in first.spans] == [(A,), (A,), (B,), (A,), (Y, A), (B, 0)]


def test_solutions_that_are_not_given_are_sampled():
    policy = Counting()
    outcome = label(MonteCarlo(k=2, solutions=solutions(n=5)), policy=policy)
    tree = outcome.result.tree
    assert policy.asked[()] == 5
    labels = labels_of_tree(tree, POLICY.text, soft, made="")
    assert {one.tokens for one in labels} == {c.state.tokens for c in outcome.result.candidates[:5]}
    assert sum((one.cost for one in labels), Cost()) == tree.cost()
    spent = outcome.cost
    assert (spent.tokens_sampled, spent.model_calls) == (policy.cost.tokens_sampled, policy.cost.model_calls)


@pytest.mark.parametrize("most", [3, 5, 8])
def test_no_solution_is_longer_than_the_most_tokens(most):
    line = State(PROBLEM, LINE.tokens[:most])
    outcome = label(MonteCarlo(k=8, solutions=solutions(line, sampling=Sampling(max_tokens=most))))
    assert max(len(candidate.state.tokens) for candidate in outcome.result.candidates) <= most
    cut = [c.state for c in outcome.result.candidates if len(c.state.tokens) == most and not c.state.finished]
    assert cut and all(state.steps[-1].stop == most for state in cut)
    # Six steps need seven tokens: nothing shorter is right.
    values = [value for value in tree_values(outcome.result.tree) if value is not None]
    assert (max(values) > 0.0) == (most == 8)


def test_equal_seeds_give_equal_trees_and_stops_change_nothing():
    for strategy in (MonteCarlo(k=2, solutions=solutions(n=3)), OmegaPrm(k=2, solutions=solutions(n=6))):
        straight = label(strategy, policy=POLICY, seed=3)
        roles, records = Roles(POLICY, Judge()), [SearchRecord(PROBLEM, 3)]
        for _ in range(200):
            (outcome,) = continue_searches(strategy, records, roles, max_rounds=1)
            records = [decode_record(encode_record(outcome.record))]
            if outcome.stop is not StopReason.PAUSED:
                break
        assert outcome.stop is StopReason.FINISHED
        assert outcome.result.tree == straight.result.tree
        assert decode_tree(encode_tree(straight.result.tree)) == straight.result.tree


def test_a_spent_budget_keeps_what_was_measured():
    for strategy in (MonteCarlo(k=4, solutions=solutions(n=3)), OmegaPrm(k=16, solutions=solutions(LINE))):
        outcome = label(strategy, budget=Budget(calls=1))
        assert outcome.stop is StopReason.BUDGET
        assert outcome.result.tree is not None
        assert sum(visits > 0 for visits in outcome.result.tree.visits) >= 1


# OmegaPRM.


def test_constants_of_the_paper():
    found = [rollout_value(0.25, 100), rollout_value(0.75, 100), rollout_value(0.75, 1000)]
    assert found == pytest.approx([0.582205, 0.823362, 0.681126], abs=1e-6)
    assert exploration(20, 3) == pytest.approx(0.139754, abs=1e-6)


def searched(num_steps, is_right):
    search, asked = first_wrong_step(num_steps), []
    try:
        at = next(search)
        while True:
            asked.append(at)
            at = search.send(is_right(at))
    except StopIteration as end:
        return end.value, asked


@given(st.integers(1, 200), st.data())
def test_binary_search_finds_the_first_wrong_step(num_steps, data):
    place = data.draw(st.integers(0, num_steps - 1))
    found, asked = searched(num_steps, lambda at: at < place)
    assert found == place
    assert len(asked) <= math.ceil(math.log2(num_steps)) and len(set(asked)) == len(asked)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_whatever_the_values_the_step_before_the_found_one_is_right(rights):
    found, asked = searched(len(rights), lambda at: rights[at])
    assert found == len(rights) - 1 or (found in asked and not rights[found])
    assert found == 0 or (found - 1 in asked and rights[found - 1])


@pytest.mark.parametrize("place", range(DEPTH))
def test_the_first_wrong_step_is_found_when_values_are_exact(place):
    line = solution(*[A] * place, B, *[A] * (DEPTH - place - 1))
    policy = Counting()
    tree = label(OmegaPrm(k=64, join=False, solutions=solutions(line)), policy=policy).result.tree
    (labels,) = labels_of_tree(tree, POLICY.text, implied, made="")
    assert labels.labels == tuple(float(at < place) for at in range(DEPTH))
    assert labels.first_wrong == place
    # The root, and at most log2 of the steps; no roll-out more.
    assert policy.cost.model_calls == 64 * len(policy.asked) <= 64 * (1 + math.ceil(math.log2(DEPTH)))


def test_a_problem_that_is_never_solved_is_not_searched():
    policy = Counting()
    tree = label(OmegaPrm(k=4, solutions=solutions(LINE, sampling=Sampling(max_tokens=4))), policy=policy).result.tree
    assert len(tree) == 1 and policy.asked == {(): 4}


def test_a_solution_that_could_not_be_judged_is_not_searched():
    policy = Counting()
    crashing = solution(A, Y, X, A, A, A, A)
    tree = label(OmegaPrm(k=16, join=False, solutions=solutions(crashing)), policy=policy).result.tree
    assert len(tree) == 1 and policy.asked == {(): 16}


class CrashesAfter(Judge):
    """Judges as usual, but crashes on all that begins like LINE up to its mistake, LINE itself left out."""

    def verify(self, problem, text):
        begins = text.startswith(POLICY.text(solution(*LINE.tokens[:3], finished=False)))
        if begins and text != POLICY.text(LINE):
            return Verdict(Outcome.UNSCORED, None, None, "crash")
        return Judge.verify(self, problem, text)


def test_a_search_ends_where_no_rollout_could_be_judged():
    policy = Counting()
    strategy = OmegaPrm(k=8, join=False, solutions=solutions(LINE))
    tree = label(strategy, policy=policy, judge=CrashesAfter()).result.tree
    # The middle of LINE is after its third step: nothing says whether the error is before it or behind it.
    assert policy.asked == {(): 8, LINE.tokens[:3]: 8}
    (labels,) = labels_of_tree(tree, POLICY.text, implied, made="")
    assert labels.labels == (None,) * 5 + (0.0,)


def test_wrong_rollouts_of_measured_prefixes_join():
    alone = label(OmegaPrm(k=8, join=False, solutions=solutions(LINE))).result.tree
    joined = label(OmegaPrm(k=8, searches=10, solutions=solutions(LINE))).result.tree
    assert len(list(alone.leaves())) == 1 < len(list(joined.leaves())) <= 10
    one, *others = labels_of_tree(joined, POLICY.text, implied, made="")
    assert one.tokens == LINE.tokens
    for other in others:
        assert other.outcome == "wrong"
        words = "".join(other.steps).replace(" y", "").replace("y ", "").split()
        mistake = words.index("b;")
        assert other.labels[:mistake] == (1.0,) * mistake
        assert 0.0 in other.labels[mistake:]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 30), st.integers(0, 4)), min_size=1, max_size=8))
def test_selection_is_the_largest_of_q_plus_u(rows):
    """Against the formula written out, over states with MC of n/8, length of the roll-out and visits."""
    labelled = LabelTree.of(PROBLEM, solutions())
    pool, visits = [], {}
    for at, (eighths, length, seen) in enumerate(rows):
        prefix = (A,) * (at + 1)
        node = labelled.tree.add(0, State(PROBLEM, prefix))
        labelled.tree.visits[node], labelled.tree.value_sum[node] = 8, eighths
        pool.append(Wrong(node, Rollout(State(PROBLEM, prefix + (B,) * length), Verdict(Outcome.WRONG, 0.0))))
        visits[node] = seen
    scores = [
        0.5 ** (1 - eighths / 8) * 0.9 ** (length / 500) + 0.125 * sum(visits.values()) ** 0.5 / (1 + seen)
        for eighths, length, seen in rows
    ]
    chosen = OmegaPrm().select(labelled, pool, visits)
    assert scores[chosen] == pytest.approx(max(scores), abs=1e-12)


# Settings and splitting.


def test_steps_of_tokens():
    pieces = dict(enumerate(("", *WORDS[1:])))
    assert split((), pieces, (";",)) == []
    assert split((Y, Y), pieces, (";",)) == [Span(0, 2)]
    assert split((A, Y, B), pieces, (";",)) == [Span(0, 1), Span(1, 3)]
    assert split((A, B, 0), pieces, (";",)) == [Span(0, 1), Span(1, 3)]
    assert split((B, Y, 0), pieces, (";",)) == [Span(0, 1), Span(1, 3)]
    assert split((0,), pieces, (";",)) == [Span(0, 1)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: MonteCarlo(k=0),
        lambda: OmegaPrm(k=0),
        lambda: OmegaPrm(searches=0),
        lambda: OmegaPrm(alpha=0.0),
        lambda: OmegaPrm(beta=1.5),
        lambda: OmegaPrm(scale=math.nan),
        lambda: Solutions(n=0),
        lambda: Solutions(sampling=Sampling(step_ends=("=",))),
    ],
)
def test_settings_that_make_no_sense(make):
    with pytest.raises(InvalidValue):
        make()
