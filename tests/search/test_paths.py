"""What holds for every strategy that grows paths of steps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from step_world import POLICY, PROBLEMS, STEPS, Guide, Task, grown, noisy, ranked, search

from clew.core.cost import Budget, Cost
from clew.core.types import State
from clew.search.beam import Beam
from clew.search.best_first import BestFirst
from clew.search.driver import continue_searches
from clew.search.dvts import Dvts
from clew.search.lookahead import Lookahead
from clew.search.particle_filter import ParticleFilter
from clew.search.paths import Paths
from clew.search.rebase import Rebase
from clew.search.record import SearchRecord, StopReason
from clew.search.serve import Roles
from clew.search.tree import Tree
from clew.search.tree_of_thoughts import TreeOfThoughtsBfs, TreeOfThoughtsDfs

STRATEGIES = [
    Beam(n=8, m=4, sampling=STEPS),
    Beam(n=8, m=2, sampling=STEPS, aggregation="product", choose="vote"),
    Dvts(n=8, m=4, sampling=STEPS, aggregation="min"),
    Rebase(n=8, sampling=STEPS),
    Rebase(n=8, sampling=STEPS, rounding="nearest", choose="vote"),
    Lookahead(n=8, m=4, k=2, sampling=STEPS, aggregation="mean"),
    Lookahead(n=8, m=4, k=9, sampling=STEPS, guide="verifier"),
    BestFirst(n=3, expansions=20, g="logprob", sampling=STEPS),
    TreeOfThoughtsBfs(b=4, m=2, sampling=STEPS),
    TreeOfThoughtsDfs(n=3, max_nodes=60, sampling=STEPS),
    TreeOfThoughtsDfs(n=1, max_nodes=60, sampling=STEPS, guide="verifier"),
    ParticleFilter(n=8, sampling=STEPS),
    ParticleFilter(n=8, resampling="multinomial", sampling=STEPS, guide="verifier"),
]
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)


def seen(outcome):
    tree = outcome.result.tree
    cost = replace(outcome.cost, seconds=0.0)
    return outcome.result.chosen, grown(outcome), list(tree.parent), list(map(str, tree.score)), cost, outcome.stop


@each_strategy
def test_stopped_and_continued_is_straight_through(strategy):
    straight = search(strategy, noisy)
    roles = Roles(POLICY, Task(), Guide(noisy))
    records = [SearchRecord(problem, 0) for problem in PROBLEMS]
    for _ in range(500):
        outcomes = continue_searches(strategy, records, roles, max_rounds=1)
        records = [outcome.record for outcome in outcomes]
        if all(outcome.stop is StopReason.FINISHED for outcome in outcomes):
            break
    assert list(map(seen, outcomes)) == list(map(seen, straight))


@each_strategy
def test_together_is_one_after_another(strategy):
    together = search(strategy, noisy)
    alone = [search(strategy, noisy, problems=[problem])[0] for problem in PROBLEMS]
    assert list(map(seen, together)) == list(map(seen, alone))


@each_strategy
def test_all_that_was_paid_for_is_in_the_tree(strategy):
    for outcome in search(strategy, noisy):
        in_tree = outcome.result.tree.cost()
        paid = replace(outcome.cost, seconds=0.0, scorer_tokens=0, verifier_calls=0)
        assert in_tree == paid != Cost()


@each_strategy
@pytest.mark.parametrize("calls", [1, 5, 11, 23])
def test_a_budget_is_exceeded_by_one_request_at_most_and_what_is_finished_answers(strategy, calls):
    for outcome in search(strategy, noisy, budget=Budget(calls=calls)):
        tree = outcome.result.tree
        largest = max(list(tree.made).count(made) for made in set(tree.made) - {0})
        assert outcome.cost.model_calls < calls + largest
        chosen = outcome.result.chosen
        assert chosen in [tree.states[node] for node in tree.finished()] if any(tree.finished()) else chosen is None


@each_strategy
def test_equal_states_have_equal_scores(strategy):
    for outcome in search(strategy, noisy):
        tree, marks = outcome.result.tree, {}
        for node in range(1, len(tree)):
            if not math.isnan(tree.score[node]) and strategy.guide == "scorer" and strategy.name != "lookahead":
                assert marks.setdefault(tree.states[node].tokens, tree.score[node]) == noisy(tree.states[node])


def test_paths_without_a_score_come_last():
    tree = Tree(PROBLEMS[0])
    low, unrated = (tree.add(0, State(PROBLEMS[0], (token, 0), finished=True)) for token in (1, 2))
    tree.score[low] = -1e9
    assert Paths(tree, Beam()).best([unrated, low], 2) == [low, unrated]


def test_without_a_step_end_a_beam_is_best_of_n():
    strategy = Beam(n=8, m=4, sampling=replace(STEPS, step_ends=(), max_tokens=64))
    for outcome in search(strategy, noisy):
        assert len(grown(outcome)) == 8
        assert outcome.result.chosen == ranked(grown(outcome), noisy)[0]
        assert len(outcome.result.chosen.steps) == 1
