from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from talk import PROBLEM, Digit, Rates, Talk, search
from worlds import SOLUTIONS, TABULAR, CountingTask
from worlds import problem as world_problem

from clew.core.protocols import Prompt, Sample, SearchResult
from clew.core.types import Completion, FinishReason, Message, Outcome, Sampling, State, Verdict
from clew.initialize.chat import render_problem
from clew.search import PooledPolicy, Roles, SearchRecord, continue_searches
from clew.search.best_of_n_then_revise import BestOfNThenRevise
from clew.search.grow import sample_children
from clew.search.mctsr import MCTSr
from clew.search.reflexion import Reflexion
from clew.search.revise import Revise
from clew.search.revision import (
    CUT_OFF,
    Critique,
    Exchange,
    best,
    conversation,
    criticise,
    fill,
    latest,
    outcome,
    reason,
    respond,
)
from clew.search.self_refine import SelfRefine
from clew.search.tree import Tree
from clew.tasks.arithmetic import Arithmetic
from clew.tasks.countdown import Countdown


def test_a_conversation_is_the_same_problem_in_a_longer_prompt():
    two = [Exchange("5", "no"), Exchange("6", "again no")]
    longer = conversation(PROBLEM, two)
    turns = [("assistant", "5"), ("user", "no"), ("assistant", "6"), ("user", "again no")]
    assert longer == replace(PROBLEM, prompt=(*PROBLEM.prompt, *(Message(*turn) for turn in turns)))
    assert conversation(conversation(PROBLEM, two[:1]), two[1:]) == longer
    assert conversation(PROBLEM, []) == PROBLEM


def test_a_small_model_reads_the_turns_and_its_task_judges_the_answer():
    task = Countdown()
    problem = task.problem({"numbers": [3, 5, 7, 9], "target": 24})
    asked = conversation(problem, [Exchange("answer 3 + 5 + 7", "no does not use 9")])
    prompt = "<|user|> make 24 from 3 5 7 9<|think|> answer 3 + 5 + 7<|end|><|user|> no does not use 9<|think|>"
    assert render_problem(asked) == prompt
    assert task.verify(asked, "answer 3 + 5 + 7 + 9").right


@given(st.text(), st.text(), st.text())
def test_a_text_is_put_in_once_whatever_it_says(before, first, second):
    template = before.replace("{", "") + "{a} {b} {} {c}"
    assert fill(template, a=first, b=second) == before.replace("{", "") + first + " " + second + " {} {c}"


STRATEGIES = [
    SelfRefine(rounds=4, sampling=SOLUTIONS, critique=Critique(sampling=SOLUTIONS)),
    Revise(rounds=6, sampling=SOLUTIONS),
    Reflexion(trials=5, sampling=SOLUTIONS, reflection=SOLUTIONS),
    BestOfNThenRevise(n=12, keep=3, ratio=0.7, sampling=SOLUTIONS),
    MCTSr(rollouts=5, guide="verifier", sampling=SOLUTIONS, critique=Critique(sampling=SOLUTIONS)),
]
each = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)


@each
def test_every_turn_draws_from_its_own_random_stream(strategy):
    talk = Talk(lambda shown, begun: f"{len(shown)} no")
    search(strategy, talk, judge=Digit())
    assert len(talk.turns) > 5
    assert len({turn.seed for turn in talk.turns}) == len(talk.turns)


@each
def test_a_pool_that_other_strategies_fill_does_not_mix_up_their_turns(strategy):
    problems = [world_problem(i) for i in range(8)]

    def searched(policy, one=strategy):
        return [o.result for o in continue_searches(one, [SearchRecord(p) for p in problems], Roles(policy, task))]

    task, pool = CountingTask(), PooledPolicy(Talking())
    for other in STRATEGIES:
        searched(pool, other)
    assert searched(pool) == searched(Talking())


class Talking:
    """The world's policy, but the length of the prompt turns its letters round: who ignores the prompt is found out."""

    version = "talking"

    def sample(self, prompts, sampling):
        given = TABULAR.sample(prompts, sampling)
        return [
            replace(
                last,
                tokens=tuple(
                    (t + len(p.state.problem.prompt) - 2) % 3 + 1 if t in (1, 2, 3) else t for t in last.tokens
                ),
            )
            for p, last in zip(prompts, given, strict=True)
        ]

    def text(self, state):
        return TABULAR.text(state)

    def encode(self, text):
        return TABULAR.encode(text)


def drive(generator, policy):
    """The value of a generator whose requests `policy` answers, and nobody else."""
    answer = None
    while True:
        try:
            request = generator.send(answer)
        except StopIteration as end:
            return end.value
        if isinstance(request, Sample):
            prompts = [Prompt(state, 0) for state in request.states]
            answer = [[completion] for completion in policy.sample(prompts, request.sampling)]
        else:
            answer = [policy.text(state) for state in request.states]


def test_turns_are_nodes_and_what_they_cost_is_in_the_tree():
    def say(shown, begun):
        return {0: "it is 5", 2: "wrong: too low", 4: "never"}[len(shown)]

    talk, tree = Talk(say), Tree(PROBLEM)
    policy = talk.policy()
    ((first,),) = drive(sample_children(tree, [0], 1, Sampling()), policy)
    critique = drive(criticise(tree, first, Critique(ask="well?", refine="<{feedback}>")), policy)
    asked = conversation(PROBLEM, [critique.exchange])
    (second,) = drive(respond(tree, [critique.node], [asked], Sampling()), policy)
    assert critique[1:] == ("wrong: too low", Exchange("it is 5", "<wrong: too low>"))
    assert talk.turns[1].shown == ("it is 5", "well?")
    assert talk.turns[2].shown == ("it is 5", "<wrong: too low>")
    assert tree.path(second) == [0, first, critique.node - 1, critique.node, second - 1, second]
    assert tree.states[second - 1] == State(asked) and tree.completions[second - 1] is None
    assert tree.cost().tokens_sampled == sum(len(turn.said) + 1 for turn in talk.turns)
    assert list(tree.made) == [0, 1, 2, 2, 3, 3]


def test_nobody_is_asked_for_no_response():
    tree = Tree(PROBLEM)
    assert drive(respond(tree, [], [], Sampling()), None) == []
    assert len(tree) == 1


def grown(*ends):
    """A tree with one response under the root for each finish and score."""
    tree = Tree(PROBLEM)
    for finish, score in ends:
        last = Completion((1,), None, finish)
        tree.score[tree.add(0, tree.states[0].extend(last), last)] = score
    return tree


STOP, CUT, NAN = FinishReason.STOP, FinishReason.LENGTH, float("nan")


def test_the_best_is_the_first_of_equals_and_the_unrated_come_last():
    tree = grown((STOP, NAN), (STOP, -2.0), (STOP, 1.0), (STOP, 1.0), (STOP, NAN))
    assert best(tree, [1, 2, 3, 4, 5]) == 3
    assert best(tree, [5, 4, 3, 2, 1]) == 4
    assert best(tree, [1, 2]) == best(tree, [2, 5]) == 2
    assert best(tree, [5, 1]) == 5
    assert best(tree, []) is None


def test_the_latest_is_finished_if_one_is():
    tree = grown((STOP, 0.0), (STOP, 0.0), (CUT, 0.0), (CUT, 0.0))
    assert latest(tree, [1, 2, 3, 4]) == 2
    assert latest(tree, [3, 4]) == 4
    assert latest(tree, []) is None


def test_the_reason_is_what_the_guide_said():
    tree = grown((CUT, 0.9), (STOP, -1.234), (STOP, 0.0), (STOP, 0.0))
    tree.verdicts[3] = Verdict(Outcome.WRONG, 0.0, "5", "equals 5, not 7")
    tree.verdicts[4] = Verdict(Outcome.WRONG, 0.0, "5")
    assert [reason(tree, node) for node in (1, 2, 3, 4)] == [CUT_OFF, "it was rated -1.23", "equals 5, not 7", "wrong"]


def test_candidates_are_the_attempts_alone():
    tree = grown((STOP, 0.5), (STOP, NAN), (CUT, 0.0))
    found = outcome(tree, [1, 2], 2)
    assert isinstance(found, SearchResult) and found.chosen is tree.states[2] and found.tree is tree
    assert [(c.state, c.score) for c in found.candidates] == [(tree.states[1], 0.5), (tree.states[2], None)]
    assert outcome(tree, [], None).chosen is None


def test_what_a_wrong_arithmetic_answer_is_told_does_not_give_the_right_one_away():
    task = Arithmetic()
    for problem in task.problems("train", 30, 0):
        wrong = str(int(task.gold(problem)) + 1000)
        assert task.gold(problem) not in task.verify(problem, f"answer {wrong}").reason.replace(wrong, "").split()


def test_a_scorer_can_be_the_guide_of_all_that_look_for_the_best():
    for strategy in STRATEGIES:
        if hasattr(strategy, "guide"):
            guided = replace(strategy, guide="scorer", **({"choose": "best"} if strategy.name == "self-refine" else {}))
            rates = Rates(lambda text: float(text[-1:] == "3"))
            talk = Talk(lambda shown, begun: f"at {len(shown)}")
            search(guided, talk, scorer=rates)
            assert rates.rated
