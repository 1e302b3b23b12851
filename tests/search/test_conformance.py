"""What holds for every strategy. A new one passes by a row in `cases`; what it must fulfil is stated once, here."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import worlds
from cases import all_cases

from clew.core.cost import Budget, Cost
from clew.core.protocols import Prompt
from clew.core.types import FinishReason, Sampling, State
from clew.data.search_json import decode_record, decode_tree, encode_record, encode_tree
from clew.search import Roles, SearchRecord, StopReason, continue_searches
from clew.search.serve import sample_seed
from clew.search.specs import STRATEGIES
from clew.search.tree import NONE, Tree

CASES = all_cases()
each = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
each_with_a_tree = pytest.mark.parametrize("case", [c for c in CASES if c.tree], ids=[c.name for c in CASES if c.tree])
PROBLEMS = [worlds.problem(i) for i in range(6)]
N = 4
BUDGETS = [
    *(Budget(calls=calls) for calls in (1, 2, 3, 5, 8, 13)),
    *(Budget(tokens=tokens) for tokens in (1, 9, 30, 75, 150)),
    Budget(tokens=40, calls=4),
]
NUM_STANDARD_ERRORS = 3.0
"""How far below zero the mean of a paired difference may be before "more budget hurts" is believed."""


@dataclass
class Search:
    """One search of many problems, with everything counted a second time."""

    policy: worlds.CountingPolicy
    scorer: worlds.CountingScorer
    task: worlds.CountingTask
    outcomes: list

    def counted(self, problem) -> Cost:
        sampled = self.policy.cost.get(problem.id, Cost())
        return replace(
            sampled, scorer_tokens=self.scorer.tokens[problem.id], verifier_calls=self.task.verified[problem.id]
        )


def make_roles(case) -> Roles:
    task = worlds.CountingTask(may_verify=case.guide == "verifier")
    scorer = worlds.CountingScorer(best=case.best) if case.guide == "scorer" else None
    return Roles(worlds.CountingPolicy(), task, scorer)


def search(case, problems=PROBLEMS, *, n=N, seed=0, roles=None, **settings) -> Search:
    roles = roles if roles is not None else make_roles(case)
    outcomes = continue_searches(case.make(n), [SearchRecord(p, seed) for p in problems], roles, **settings)
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
    return Search(roles.policy, roles.scorer or worlds.CountingScorer(), roles.task, outcomes)


def seen(outcome) -> Any:
    """All of an outcome but its seconds, in a form in which NaN equals NaN."""
    tree = outcome.result.tree
    return (
        outcome.problem,
        replace(outcome.result, tree=None),
        None if tree is None else json.dumps(encode_tree(without_metadata(tree))),
        timeless(outcome.cost),
        outcome.stop,
        outcome.record.answers,
    )


def without_metadata(tree) -> Tree:
    """The tree, with a root whose problem can be written down."""
    bare = Tree(replace(tree.problem, metadata={}))
    for name in Tree.__slots__:
        setattr(bare, name, getattr(tree, name))
    bare.states = [replace(state, problem=replace(state.problem, metadata={})) for state in tree.states]
    return bare


def timeless(cost: Cost) -> Cost:
    return replace(cost, seconds=0.0)


def test_every_name_is_one_case():
    assert len({case.name for case in CASES}) == len(CASES) >= 5


def test_every_strategy_that_has_a_name_has_a_case():
    assert {type(template()) for template in STRATEGIES.values()} <= {type(case.make(N)) for case in CASES}


def test_the_world_is_as_exact_as_it_says():
    for i in range(4):
        problem = worlds.problem(i)
        stack = [State(problem), State(problem, (1, 4, worlds.WAIT)), State(problem, (2, 4, worlds.WAIT, 3, 4))]
        while stack:
            state = stack.pop()
            ends = [
                (p, worlds.value_of_text(problem.id, worlds.TABULAR.text(state.extend(last))))
                for last, p in worlds.TABULAR.enumerate(state, Sampling(max_tokens=9))
            ]
            assert worlds.state_value(state) == max(value for _, value in ends)
            expected = math.fsum(p * value for p, value in ends)
            assert worlds.state_value(state, best=False) == pytest.approx(expected, abs=1e-12)
            steps = worlds.TABULAR.enumerate(state, worlds.STEPS)
            stack += [state.extend(last) for last, _ in steps if last.finish is FinishReason.STEP]
    with pytest.raises(AssertionError, match="metadata"):
        dict(problem.metadata)
    with pytest.raises(AssertionError, match="looked at 'truth'"):
        _ = worlds.CountingTask().truth


@each
def test_metered_cost_equals_an_independent_count_of_every_call(case):
    for n in (1, N, 6):
        done = search(case, n=n)
        for outcome in done.outcomes:
            assert outcome.stop is StopReason.FINISHED
            assert timeless(outcome.cost) == done.counted(outcome.problem)
        assert sum(done.policy.calls) == sum(outcome.cost.model_calls for outcome in done.outcomes) > 0


@each
@pytest.mark.parametrize("budget", BUDGETS, ids=lambda b: f"{b.tokens}-{b.calls}")
def test_the_budget_is_exceeded_by_at_most_one_request(case, budget):
    roles = make_roles(case)

    class Watched(worlds.CountingPolicy):
        def sample(self, prompts, sampling):
            for problem in {p.state.problem.id: p.state.problem for p in prompts}.values():
                watch(problem)
            return super().sample(prompts, sampling)

    class WatchedScorer(worlds.CountingScorer):
        def score(self, states, completions):
            for problem in {s.problem.id: s.problem for s in states}.values():
                watch(problem)
            return super().score(states, completions)

    def watch(problem):
        spent = Search(watched.policy, watched.scorer or worlds.CountingScorer(), watched.task, []).counted(problem)
        assert budget.allows(spent), f"{problem.id} asks for more after {spent}"

    scorer = None if roles.scorer is None else WatchedScorer(best=case.best)
    watched = Roles(Watched(), roles.task, scorer)
    for outcome in search(case, n=6, roles=watched, budget=budget).outcomes:
        assert outcome.stop in (StopReason.FINISHED, StopReason.BUDGET)
        assert outcome.cost.model_calls > 0
        assert outcome.stop is StopReason.FINISHED or not budget.allows(outcome.cost)
        if outcome.result.chosen is not None and outcome.result.tree is not None:
            assert outcome.result.chosen in outcome.result.tree.states


@each
def test_the_same_seed_gives_the_same_result_and_another_seed_another(case):
    first = [seen(o) for o in search(case, seed=1).outcomes]
    assert first == [seen(o) for o in search(case, seed=1).outcomes]
    assert first != [seen(o) for o in search(case, seed=2).outcomes]


@each
def test_batching_changes_nothing(case):
    problems = [worlds.problem(i) for i in range(64)]
    together = search(case, problems, seed=5)
    alone = [search(case, [problem], seed=5) for problem in problems]
    assert [seen(o) for o in together.outcomes] == [seen(o) for one in alone for o in one.outcomes]
    assert len(together.policy.calls) * 8 <= sum(len(one.policy.calls) for one in alone), "batches are large"


@each
@pytest.mark.parametrize("budget", [Budget(), Budget(calls=5)], ids=["free", "calls"])
def test_stopping_at_any_round_and_going_on_equals_straight_through(case, budget):
    problems = [worlds.problem(i, closed=False) for i in range(3)]
    rounds = 0

    def count(progress):
        nonlocal rounds
        rounds = progress.rounds

    through = [seen(o) for o in search(case, problems, seed=3, budget=budget, on_round=count).outcomes]
    records = [SearchRecord(problem, 3) for problem in problems]
    for k in range(0, rounds + 1, max(1, rounds // 25)):
        paused = continue_searches(case.make(N), records, make_roles(case), budget=budget, max_rounds=k)
        saved = [decode_record(json.loads(json.dumps(encode_record(o.record)))) for o in paused]
        roles = make_roles(case)
        resumed = continue_searches(case.make(N), saved, roles, budget=budget)
        assert [seen(o)[:3] + seen(o)[4:] for o in resumed] == [one[:3] + one[4:] for one in through], f"after {k}"
        if budget == Budget():
            assert [seen(o) for o in resumed] == through
            drawn = sum(o.cost.model_calls for o in resumed) - sum(o.cost.model_calls for o in paused)
            assert sum(roles.policy.calls) == drawn, "what was drawn is not drawn again"


@pytest.mark.parametrize("case", [c for c in CASES if c.plain], ids=[c.name for c in CASES if c.plain])
def test_one_sample_equals_plain_sampling(case):
    problems = [worlds.problem(i) for i in range(20)]
    for outcome in search(case, problems, n=1, seed=9).outcomes:
        state = State(outcome.problem)
        while not state.finished:
            prompt = Prompt(state, sample_seed(9, state, 0))
            (last,) = worlds.TABULAR.sample([prompt], case.plain)
            state = state.extend(last)
        if outcome.result.chosen is None:
            assert case.guide == "none" and not worlds.letters_of(worlds.TABULAR.text(state))
        else:
            assert outcome.result.chosen == state


def value(state: State | None) -> float:
    """What the answer is worth; an answer that is none, or that does not end, is worth nothing."""
    return worlds.state_value(state) if state is not None and state.finished else 0.0


def values(case, n, seeds=range(4)) -> list[float]:
    problems = [worlds.problem(i) for i in range(30)]
    return [value(o.result.chosen) for seed in seeds for o in search(case, problems, n=n, seed=seed).outcomes]


@pytest.mark.parametrize("case", [c for c in CASES if c.improves], ids=[c.name for c in CASES if c.improves])
def test_with_an_exact_guide_more_budget_never_hurts_in_expectation(case):
    """Paired over 30 problems and 4 seeds; the mean difference may lie at most three standard errors below zero."""
    by_size = [values(case, n) for n in case.sizes]
    for fewer, more in pairwise(by_size):
        differences = [b - a for a, b in zip(fewer, more, strict=True)]
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        assert statistics.fmean(differences) >= -NUM_STANDARD_ERRORS * error
    gain = statistics.fmean(b - a for a, b in zip(by_size[0], by_size[-1], strict=True))
    assert gain > 0.02, f"{case.sizes[-1]} is no better than {case.sizes[0]}: {gain}"


@each
def test_nothing_but_verify_and_extract_is_touched_and_verify_only_by_who_may(case):
    """The world's task and metadata are traps: every other test runs into them too; this one names what they guard."""
    done = search(case, n=6)
    assert done.task.may_verify is (case.guide == "verifier")
    assert (sum(done.task.verified.values()) > 0) is (case.guide == "verifier")
    assert (sum(done.scorer.tokens.values()) > 0) is (case.guide == "scorer")


@each
def test_a_guide_that_fails_on_one_problem_fails_that_problem_alone(case):
    roles, guilty = make_roles(case), PROBLEMS[2]
    expected = [seen(o) for o in search(case).outcomes]

    class Failing:
        name = "failing"

        def sample(self, prompts, sampling):
            assert not any(p.state.problem is guilty for p in prompts)
            return roles.policy.sample(prompts, sampling)

        def verify(self, problem, text):
            assert problem is not guilty
            return roles.task.verify(problem, text)

        def score(self, states, completions):
            values = roles.scorer.score(states, completions)
            return [math.nan if s.problem is guilty else v for s, v in zip(states, values, strict=True)]

        def __getattr__(self, name):
            role = roles.scorer if name == "cost_tokens" else roles.task if name == "extract" else roles.policy
            return getattr(role, name)

    failing = {"none": {"policy": Failing()}, "verifier": {"task": Failing()}, "scorer": {"scorer": Failing()}}
    records = [SearchRecord(problem) for problem in PROBLEMS]
    outcomes = continue_searches(case.make(N), records, replace(roles, **failing[case.guide]))
    assert [o.stop is StopReason.FAILED for o in outcomes] == [p is guilty for p in PROBLEMS]
    failed = outcomes[2]
    assert f"strategy {case.make(N).name!r} on problem {guilty.id!r}" in failed.error
    assert failed.result.chosen is None
    others = [seen(o) for o in outcomes if o is not failed]
    assert others == [one for one in expected if one[0] is not guilty]
    # What failed goes on from where it was once its cause is mended.
    (mended,) = continue_searches(case.make(N), [failed.record], make_roles(case))
    assert seen(mended)[1:3] == expected[2][1:3]


@each_with_a_tree
def test_the_tree_is_well_formed(case):
    for n in (1, N, 6):
        for budget in (Budget(), Budget(calls=7)):
            for outcome in search(case, n=n, budget=budget).outcomes:
                tree = outcome.result.tree
                assert isinstance(tree, Tree)
                check_shape(tree)
                check_states(tree)
                spent = replace(timeless(outcome.cost), scorer_tokens=0, verifier_calls=0)
                assert timeless(tree.cost()) == spent, "what the nodes cost is what was sampled"
                if outcome.result.chosen is not None:
                    assert outcome.result.chosen in tree.states
                assert all(c.state in tree.states for c in outcome.result.candidates)
                if outcome.stop is StopReason.FINISHED and case.guide != "none" and any(tree.finished()):
                    assert outcome.result.chosen is not None, "it saw a whole response"


def check_shape(tree):
    assert (tree.parent[0], tree.depth[0]) == (NONE, 0)
    children = [[] for _ in range(len(tree))]
    for node in range(1, len(tree)):
        assert 0 <= tree.parent[node] < node
        assert tree.depth[node] == tree.depth[tree.parent[node]] + 1
        assert tree.made[node] >= tree.made[node - 1]
        children[tree.parent[node]].append(node)
    assert tree.children == children
    for name in ("costs", "completions", "states", "prior", "visits", "value_sum", "pending", "score", "made"):
        assert len(getattr(tree, name)) == len(tree), name
    assert set(tree.verdicts) | set(tree.answers) <= set(range(len(tree)))


def check_states(tree):
    assert tree.states[0] == State(tree.problem)
    for node in range(1, len(tree)):
        before, last = tree.states[tree.parent[node]], tree.completions[node]
        assert not (before.finished and last is not None), "nothing is sampled after the end of a response"
        if last is not None:
            assert tree.states[node] == before.extend(last)
        if node in tree.verdicts:
            assert tree.states[node].finished


@each_with_a_tree
def test_visits_and_values_add_up(case):
    """A node's visits are those of its children and of itself; the values are the guide's, between 0 and 1."""
    for n in (1, N, 6):
        for budget in (Budget(), Budget(calls=7)):
            for outcome in search(case, n=n, budget=budget).outcomes:
                tree = outcome.result.tree
                assert set(tree.pending) == {0}, "the search is at rest"
                for node in range(len(tree)):
                    own = tree.visits[node] - sum(tree.visits[child] for child in tree.children[node])
                    worth = tree.value_sum[node] - sum(tree.value_sum[child] for child in tree.children[node])
                    assert own >= 0
                    assert -1e-9 <= worth <= own + 1e-9


@each_with_a_tree
def test_the_tree_is_saved_and_loaded(case):
    for outcome in search(case, [worlds.problem(i, closed=False) for i in range(3)]).outcomes:
        saved = json.dumps(encode_tree(outcome.result.tree), allow_nan=False)
        loaded = decode_tree(json.loads(saved))
        assert json.dumps(encode_tree(loaded)) == saved
        assert loaded.states == outcome.result.tree.states
        assert [list(loaded.path(node)) for node in range(len(loaded))] == [
            outcome.result.tree.path(node) for node in range(len(loaded))
        ]
