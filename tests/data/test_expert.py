"""D_expert: which solutions are the best, who wrote their tokens, duplicates and caps."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.core.types import Message, Outcome, Problem, State, Verdict
from clew.data.distinct import by_chance, capped, without_duplicates
from clew.data.expert import RULES, Solution, expert, likeliest, rewarded, shortest, solutions_of_tree
from clew.data.origin import Origin
from clew.search.tree import Tree

PROBLEMS = [Problem(f"toy:{i}", "toy", (Message("user", str(i)),)) for i in range(3)]
SOLUTIONS = st.lists(
    st.builds(
        Solution,
        problem=st.sampled_from(PROBLEMS),
        tokens=st.lists(st.integers(1, 2), min_size=1, max_size=3).map(tuple),
        outcome=st.sampled_from([None, *Outcome]),
        value=st.sampled_from([None, 0.0, 1.0]),
    ),
    max_size=12,
)


@given(SOLUTIONS, st.none() | st.integers(1, 3), st.sampled_from([shortest, rewarded]))
def test_expert_is_the_best_of_each_problem(solutions, cap, rule):
    kept = expert(solutions, rule=rule, cap=cap)
    of = defaultdict(list)
    for one in solutions:
        if one.outcome is Outcome.RIGHT and one.tokens not in [other.tokens for other in of[one.problem.id]]:
            of[one.problem.id].append(one)
    expected = {
        name: sorted(alike, key=rule)[: len(alike) if cap is None else cap] for name, alike in of.items() if alike
    }
    found = defaultdict(list)
    for one in kept.rows:
        found[one.problem.id].append(one)
    assert {name: sorted(alike, key=rule) for name, alike in found.items()} == expected
    assert kept.dropped == sum(one.right for one in solutions) - len(kept.rows)


def test_rules_differ():
    long = Solution(
        problem=PROBLEMS[0], tokens=(1, 2, 3), outcome=Outcome.RIGHT, value=1.0, logprobs=(-0.1, -0.1, -0.1)
    )
    short = Solution(problem=PROBLEMS[0], tokens=(4,), outcome=Outcome.RIGHT, value=0.5, logprobs=(-2.0,))
    best = {name: expert([short, long], rule=rule).rows for name, rule in RULES.items()}
    assert best == {"shortest": [short], "rewarded": [long], "likeliest": [long]}


def test_told_tokens_do_not_count_as_likely():
    told = Solution(problem=PROBLEMS[0], tokens=(1, 2), logprobs=(0.0, -3.0), learnt=(False, True))
    assert likeliest(told) == 3.0
    assert likeliest(Solution(problem=PROBLEMS[0], tokens=(1,))) == math.inf


def test_nothing_right_gives_nothing():
    assert expert([]) == ([], 0)
    assert expert([Solution(problem=PROBLEMS[0], tokens=(1,), outcome=Outcome.UNSCORED, value=None)]) == ([], 0)


def test_solutions_of_a_tree(sprout):
    first = sprout.add(0, [1])
    done = sprout.add(first, [2, 0], finish="stop", verdict="right")
    cut = sprout.add(first, [3], finish="length")
    late = sprout.add(0, [4, 0], finish="stop")
    verdict = Verdict(Outcome.WRONG, 0.0, "x")
    origin = Origin(run="runs/a", stage="search", strategy="mcts", tree="0000")
    found = solutions_of_tree(sprout.tree, text=sprout.text, verdicts={late: verdict}, origin=origin)
    assert [one.origin.node for one in found] == [done, late]
    assert cut not in [one.origin.node for one in found]
    assert (found[0].tokens, found[0].text, found[0].logprobs) == ((1, 2, 0), "ab.", (-1.0, -2.0, 0.0))
    assert (found[0].outcome, found[0].value, found[0].learnt) == (Outcome.RIGHT, 1.0, None)
    assert (found[1].outcome, found[1].value, found[1].policy_version) == (Outcome.WRONG, 0.0, "p+1")
    assert found[0].origin == Origin(run="runs/a", stage="search", strategy="mcts", tree="0000", node=done)


def test_a_verdict_of_the_search_is_not_replaced_by_none(sprout):
    sprout.add(0, [1, 0], finish="stop", verdict="unscored")
    (one,) = solutions_of_tree(sprout.tree)
    assert (one.outcome, one.value) == (Outcome.UNSCORED, None)


def test_who_wrote_the_tokens_after_a_hint(sprout):
    draft = sprout.add(0, [1, 0], finish="stop")
    hint = sprout.add(draft, [9, 9], told=True)
    sprout.add(hint, [2, 0], finish="stop")
    found = solutions_of_tree(sprout.tree)
    assert found[1].tokens == (1, 9, 9, 2, 0)
    assert found[1].learnt == (True, False, False, True, True)
    assert found[1].logprobs == (-1.0, 0.0, 0.0, -2.0, 0.0)


def test_a_solution_written_anew_is_all_its_own():
    tree = Tree(PROBLEMS[0])
    from clew.core.types import Completion, FinishReason

    old = Completion((1, 2, 0), (-1.0, -1.0, -1.0), FinishReason.STOP)
    draft = tree.add(0, State(PROBLEMS[0]).extend(old), old)
    new = Completion((3, 0), None, FinishReason.STOP)
    tree.add(draft, State(PROBLEMS[0]).extend(new), new)
    found = solutions_of_tree(tree)
    assert [(one.tokens, one.learnt, one.logprobs) for one in found] == [
        ((1, 2, 0), None, (-1.0, -1.0, -1.0)),
        ((3, 0), None, None),
    ]


ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=12)


@given(ROWS)
def test_duplicates(rows):
    kept = without_duplicates(rows, lambda row: row)
    assert kept.rows == list(dict.fromkeys(rows))
    assert kept.dropped == len(rows) - len(set(rows))


@given(ROWS.map(lambda rows: list(dict.fromkeys(rows))), st.integers(1, 3), st.randoms(use_true_random=False))
def test_a_cap_by_chance_is_the_same_in_any_order(rows, cap, rng):
    def kept(rows):
        return capped(rows, cap, problem=lambda row: row[0], rank=lambda row: by_chance(5, *row))

    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert set(kept(shuffled).rows) == set(kept(rows).rows)
    assert kept(rows).rows == [row for row in rows if row in kept(rows).rows]
    counts = Counter(row[0] for row in rows)
    assert Counter(row[0] for row in kept(rows).rows) == Counter({name: min(n, cap) for name, n in counts.items()})
    assert kept(rows).dropped == len(rows) - len(kept(rows).rows)


def test_chance_is_fair_and_moves_with_the_seed():
    taken = Counter(
        capped(range(4), 1, problem=lambda row: 0, rank=lambda row, seed=seed: by_chance(seed, row)).rows[0]
        for seed in range(400)
    )
    assert min(taken.values()) > 60
    assert len(taken) == 4


def test_a_cap_of_nothing_is_refused():
    with pytest.raises(InvalidValue):
        capped([1], 0, problem=lambda row: 0, rank=lambda row: row)
    assert capped([1, 2], None, problem=lambda row: 0, rank=lambda row: row) == ([1, 2], 0)
