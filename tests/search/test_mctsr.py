from __future__ import annotations

import math
import random
from statistics import mean

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from talk import Digit, Rates, Talk, candidates, search, text

from clew.core.cost import Budget
from clew.core.errors import InvalidValue
from clew.search import StopReason
from clew.search.mctsr import MCTSr
from clew.search.mctsr_rules import Answer, backed_up, fully_expanded, select, uct, value_of
from clew.search.revision import Critique
from clew.search.self_refine import SelfRefine

CRITIQUE = Critique(ask="well?", refine="mend: {feedback}")


def test_the_golden_values():
    assert value_of([60, 80, 40]) == 50
    assert backed_up(50, [70, 20]) == 60
    assert uct(50, 5, 2, 1.4) == pytest.approx(51.325110, abs=5e-7)
    assert value_of([0.3]) == 0.3
    assert backed_up(50, []) == 50
    assert uct(0.5, 0, 1, 1.4) == 0.5


@pytest.mark.parametrize(
    ("value", "children", "full"),
    [
        (50, [], False),
        (50, [90, 90], False),
        (50, [10, 20, 49], False),
        (50, [10, 50, 20], True),
        (50, [10, 20, 30, 60], True),
    ],
)
def test_an_answer_is_given_up_when_three_refinements_were_made_and_one_is_as_good(value, children, full):
    assert fully_expanded(value, children, 3) is full


def grown(parents, rewards):
    """Answers with these fathers (None for the first) and rewards."""
    answers: list[Answer] = []
    for node, (parent, given_rewards) in enumerate(zip(parents, rewards, strict=True)):
        father = None if parent is None else answers[parent]
        answers.append(Answer(node, father, list(given_rewards)))
        if father is not None:
            father.children.append(answers[-1])
    return answers


def slow_select(parents, rewards, c, limit):
    """The authors' procedure on dictionaries, values recursive as in equation 2."""
    nodes = range(len(parents))
    children = {node: [k for k in nodes if parents[k] == node] for node in nodes}
    own = {node: 0.5 * (min(rewards[node]) + mean(rewards[node])) for node in nodes}

    def q(node):
        return 0.5 * (own[node] + max(map(q, children[node]))) if children[node] else own[node]

    bounds = {}
    for node in nodes:
        above = 0 if parents[node] is None else len(rewards[parents[node]])
        if len(children[node]) < limit or max(own[k] for k in children[node]) < own[node]:
            bounds[node] = q(node) + c * math.sqrt(math.log(above + 1) / (len(rewards[node]) + 1e-5))
    return min(bounds, key=lambda node: (-bounds[node], node))


@given(st.integers(0, 10**6), st.integers(1, 20), st.sampled_from([0.0, 1.4, 30.0]), st.integers(1, 3))
@example(0, 1, 1.4, 3)
@settings(deadline=None)
def test_selection_equals_the_slow_one(seed, size, c, limit):
    draw = random.Random(seed)
    parents = [None, *(draw.randrange(node) for node in range(1, size))]
    # Few different rewards: ties are common.
    rewards = [[draw.choice([0, 0.5, 1.0]) for _ in range(draw.randint(1, 4))] for _ in parents]
    assert select(grown(parents, rewards), c, limit).node == slow_select(parents, rewards, c, limit)


def lengthening():
    """A refinement is the answer it refines and one letter more, the number of the turn; a critique quotes it."""
    counter = iter(range(1000))

    def say(shown, begun):
        if not shown:
            return "."
        if shown[-1] == "well?":
            return f"{shown[-2]} is short"
        assert shown == (shown[0], f"mend: {shown[0]} is short")
        return shown[0] + "abcdefghijklmnopqrstuvwxyz"[next(counter)]

    return Talk(say)


def test_the_critique_is_asked_for_and_arrives_in_the_prompt_of_the_refinement():
    talk = lengthening()
    found = search(MCTSr(rollouts=2, critique=CRITIQUE), talk, scorer=Rates(lambda said: len(said) / 10))
    assert [turn.shown for turn in talk.turns[:3]] == [(), (".", "well?"), (".", "mend: . is short")]
    assert text(found) == max(candidates(found), key=len)
    assert found.cost.model_calls == len(talk.turns) == 5
    assert found.cost.tokens_sampled == sum(len(turn.said) + 1 for turn in talk.turns)
    assert found.result.tree.cost().tokens_sampled == found.cost.tokens_sampled


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ask_again", [False, True])
def test_the_tree_it_grows_is_the_one_of_the_slow_search(seed, ask_again):
    stream = random.Random(seed)
    given_rewards: list[tuple[str, float]] = []

    def rated(said):
        given_rewards.append((said, stream.choice([0.1, 0.2, 0.4, 0.8])))
        return given_rewards[-1][1]

    talk, by = lengthening(), Rates(rated)
    strategy = MCTSr(rollouts=15, c=0.3, critique=CRITIQUE, ask_again=ask_again)
    found = search(strategy, talk, scorer=by)
    # The same rewards, handed to the slow rules.
    supply = iter(given_rewards)
    texts, parents, rewards = ["."], [None], [[next(supply)[1]]]
    for turn in range(15):
        father = slow_select(parents, rewards, 0.3, 3)
        rewards[father].append(next(supply)[1] if ask_again else rewards[father][0])
        texts.append(texts[father] + "abcdefghijklmno"[turn])
        parents.append(father)
        rewards.append([next(supply)[1]])
    assert candidates(found) == texts
    own = [0.5 * (min(given) + mean(given)) for given in rewards]
    assert text(found) == texts[own.index(max(own))]
    tree = found.result.tree
    assert tree.visits[0] == sum(map(len, rewards)) == 31
    assert tree.value_sum[0] == pytest.approx(sum(map(sum, rewards)))
    assert next(supply, None) is None


def test_it_goes_back_to_the_better_answer_where_a_chain_of_refinements_goes_on_from_the_worse():
    """A refinement is one step up or, every other time, back at the foot; the top is seven steps up."""

    def climber():
        coin = iter([True, False] * 100)

        def say(shown, begun):
            if not shown:
                return "0"
            return "?" if shown[-1] == "well?" else str(int(shown[-2]) + 1) if next(coin) else "0"

        return Talk(say)

    height = Rates(lambda said: int(said) / 7)
    chain = search(SelfRefine(rounds=30, critique=CRITIQUE, memory=1, choose="best"), climber(), scorer=height)
    assert text(chain) == "1"
    strategy = MCTSr(rollouts=30, c=0.007, critique=CRITIQUE, enough=1.0)
    assert text(search(strategy, climber(), scorer=height)) == "7"


def test_with_a_scorer_nobody_looks_at_the_environment():
    trap = Digit(closed=True)
    found = search(MCTSr(rollouts=6, guide="scorer"), Talk(lambda *_: "7"), judge=trap, scorer=Rates(lambda said: 1.0))
    assert (text(found), trap.judged, found.cost.verifier_calls) == ("7", [], 0)


def test_with_the_verifier_it_stops_as_soon_as_it_is_right():
    digits = iter("3507")
    talk = Talk(lambda shown, begun: "?" if shown and shown[-1] == "well?" else next(digits))
    judge = Digit()
    found = search(MCTSr(rollouts=9, guide="verifier", enough=1.0, critique=CRITIQUE), talk, judge=judge)
    assert (text(found), judge.judged) == ("7", ["3", "5", "0", "7"])


def test_equal_answers_and_no_rollouts():
    flat = Rates(lambda said: 0.0)
    assert text(search(MCTSr(rollouts=9, critique=CRITIQUE), lengthening(), scorer=flat)) == "."
    alone = search(MCTSr(rollouts=0), lengthening(), scorer=flat)
    assert (text(alone), candidates(alone), alone.cost.model_calls) == (".", ["."], 1)


@pytest.mark.parametrize("calls", range(1, 10))
def test_whenever_the_budget_ends_it_answers_with_the_best_so_far(calls):
    by = Rates(lambda said: len(said) / 10)
    found = search(MCTSr(rollouts=9, c=0.0, critique=CRITIQUE), lengthening(), scorer=by, budget=Budget(calls=calls))
    assert found.stop is StopReason.BUDGET
    # Answers are the calls 1, 3, 5 ...; with nothing explored each refines the one before.
    assert len(text(found)) == len(candidates(found)) == 1 + (calls - 1) // 2


def test_a_budget_that_does_not_reach_to_a_first_reward_leaves_the_first_answer():
    found = search(MCTSr(), lengthening(), scorer=Rates(lambda said: 1.0, tokens=9), budget=Budget(calls=1))
    assert (text(found), found.result.candidates[0].score) == (".", None)


@pytest.mark.parametrize(
    "wrong", [{"rollouts": -1}, {"max_children": 0}, {"c": -1.0}, {"c": math.nan}, {"c": math.inf}]
)
def test_settings_that_are_not_accepted(wrong):
    with pytest.raises(InvalidValue, match="at least"):
        MCTSr(**wrong)
