"""Countdown's problems: splits, prompts, ids, difficulty and bad input."""

from __future__ import annotations

import time
from itertools import combinations_with_replacement, permutations, product
from typing import get_args

import pytest
from slow_countdown import slow_values

from clew.core.errors import InvalidValue, UnknownName
from clew.core.task import Split, split_of
from clew.tasks.countdown import Countdown
from clew.tasks.countdown_solver import reachable_integers, reachable_whole, solutions

TASK = Countdown()
SPLITS: tuple[Split, ...] = get_args(Split)


@pytest.mark.parametrize("whole", [True, False])
def test_no_training_problem_is_in_another_split_in_any_order_of_its_numbers(whole: bool) -> None:
    """All problems of the default settings, and all orders of their numbers."""
    task, reachable = Countdown(whole=whole), reachable_whole if whole else reachable_integers
    orders: dict[Split, set[tuple[int, ...]]] = {}
    for split in SPLITS:
        problems = task.problems(split, task.count_problems(split) or 0, seed=3)
        assert all(split_of(problem.id) == split for problem in problems)
        orders[split] = {
            (problem.metadata["target"], *order)
            for problem in problems
            for order in permutations(problem.metadata["numbers"])
        }
    assert not orders["train"] & orders["test"]
    assert not orders["train"] & orders["validation"]
    assert not orders["validation"] & orders["test"]
    # Every list of four numbers with every target that it can make is in some split.
    makes = {
        numbers: sum(1 <= target <= 50 for target in reachable(numbers))
        for numbers in combinations_with_replacement(range(1, 10), 4)
    }
    assert sum(map(len, orders.values())) == sum(
        makes[tuple(sorted(numbers))] for numbers in product(range(1, 10), repeat=4)
    )


def test_any_order_is_the_same_problem() -> None:
    ids = {TASK.problem({"numbers": list(order), "target": 24}).id for order in permutations([11, 3, 7, 5])}
    assert ids == {"countdown:3-5-7-11=24"}


def test_the_splits_hold_every_solvable_problem_exactly_once() -> None:
    task = Countdown(count=3, low=1, high=6, target_low=-5, target_high=30, whole=False)
    listed = [p.id for split in SPLITS for p in task.problems(split, task.count_problems(split) or 0, seed=0)]
    expected = {
        f"countdown:{'-'.join(map(str, numbers))}={target}"
        for numbers in combinations_with_replacement(range(1, 7), 3)
        for target in slow_values(numbers)
        if target.denominator == 1 and -5 <= target <= 30
    }
    assert len(set(listed)) == len(listed)
    assert set(listed) == expected


def test_prompt() -> None:
    problem = TASK.problem({"numbers": [11, 3, 7, 5], "target": 24})
    assert [m.role for m in problem.prompt] == ["system", "user"]
    assert problem.prompt[1].content == "make 24 from 11 3 7 5"
    assert problem.metadata == {"numbers": [11, 3, 7, 5], "target": 24}
    assert problem.task == "countdown"


def test_the_numbers_come_in_shuffled_order() -> None:
    problems = TASK.problems("train", 300, seed=0)
    in_order = sum(p.metadata["numbers"] == sorted(p.metadata["numbers"]) for p in problems)
    assert 0 < in_order < 60


def test_fewer_problems_are_a_prefix_of_more() -> None:
    for task in (TASK, Countdown(count=5, high=20)):
        assert task.problems("train", 50, seed=1)[:20] == task.problems("train", 20, seed=1)
        assert task.problems("train", 20, seed=1) != task.problems("train", 20, seed=2)


def test_drawing_is_fast() -> None:
    TASK.problems("train", 1, seed=0)
    start = time.process_time()
    TASK.problems("train", 5000, seed=0)
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize("count", [5, 6])
def test_larger_settings_are_solvable_too(count: int) -> None:
    task = Countdown(count=count, low=2, high=15, target_low=10, target_high=99)
    problems = task.problems("test", 10, seed=0)
    for problem in problems:
        assert len(problem.metadata["numbers"]) == count
        assert all(2 <= number <= 15 for number in problem.metadata["numbers"])
        assert 10 <= problem.metadata["target"] <= 99
        if count == 6:
            assert task.verify(problem, task.gold(problem)).right
    assert task.count_problems("test") is None


@pytest.mark.parametrize("task", [TASK, Countdown(count=2, high=3), Countdown(count=6, low=1, high=1)])
def test_too_many_problems_is_an_error_of_three_parts(task: Countdown) -> None:
    with pytest.raises(InvalidValue) as caught:
        task.problems("validation", 5000, seed=0)
    assert "5000" in caught.value.given
    assert "'validation'" in caught.value.accepted
    assert "widen" in caught.value.advice


@pytest.mark.parametrize("split", SPLITS)
def test_all_problems_of_a_split_can_be_asked_for(split: Split) -> None:
    available = TASK.count_problems(split) or 0
    assert len(TASK.problems(split, available, seed=0)) == available > 500
    assert TASK.problems(split, 0, seed=0) == []
    for n in (available + 1, -1):
        with pytest.raises(InvalidValue):
            TASK.problems(split, n, seed=0)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"numbers": [1, 2]},
        {"target": 3},
        {"numbers": [1], "target": 1},
        {"numbers": [1] * 9, "target": 1},
        {"numbers": "12", "target": 3},
        {"numbers": 12, "target": 3},
        {"numbers": [1, 2.0], "target": 3},
        {"numbers": [1, "2"], "target": 3},
        {"numbers": [True, 2], "target": 3},
        {"numbers": [0, 2], "target": 3},
        {"numbers": [-1, 2], "target": 3},
        {"numbers": [1, 10000], "target": 3},
        {"numbers": [1, 2], "target": True},
        {"numbers": [1, 2], "target": 3.0},
        {"numbers": [1, 2], "target": "3"},
        {"numbers": [1, 2], "target": None},
        {"numbers": [1, 2], "target": 10000},
        {"numbers": [1, 2], "target": -10000},
    ],
)
def test_bad_facts_are_errors_of_three_parts(metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidValue) as caught:
        TASK.problem(metadata)
    assert caught.value.given and caught.value.accepted and caught.value.advice


def test_an_unknown_fact_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'numbers'"):
        TASK.problem({"number": [1, 2], "target": 3})


def test_problems_beyond_the_settings_can_be_judged() -> None:
    problem = TASK.problem({"numbers": [100, 25], "target": -75})
    assert TASK.verify(problem, "answer 25 - 100").right


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 1},
        {"count": 7},
        {"low": 0},
        {"low": 5, "high": 4},
        {"high": 10000},
        {"target_low": 5, "target_high": 4},
        {"target_high": 10000},
        {"target_low": -10000},
    ],
)
def test_bad_settings(settings: dict[str, int]) -> None:
    with pytest.raises(InvalidValue):
        Countdown(**settings)


@pytest.mark.parametrize(
    ("numbers", "target", "name"),
    [
        ([3, 3, 8, 8], 24, "1 solution"),
        ([1, 1], 7, "0 solutions"),
        ([1, 2, 3, 4, 5, 6], 24, "more than 5 numbers"),
    ],
)
def test_difficulty_examples(numbers: list[int], target: int, name: str) -> None:
    assert TASK.difficulty(TASK.problem({"numbers": numbers, "target": target})) == name


def test_difficulty_bins_follow_the_number_of_solutions() -> None:
    bins = {range(1, 2): "1 solution", range(2, 4): "2-3 solutions", range(4, 8): "4-7 solutions"}
    problems = TASK.problems("test", 200, seed=0)
    for problem in problems:
        found = len(solutions(problem.metadata["numbers"], problem.metadata["target"]))
        assert TASK.difficulty(problem) == next((name for r, name in bins.items() if found in r), "8+ solutions")
    names = {TASK.difficulty(problem) for problem in problems}
    assert sorted(names) == ["1 solution", "2-3 solutions", "4-7 solutions", "8+ solutions"]


def test_gold_of_an_unsolvable_problem() -> None:
    with pytest.raises(InvalidValue, match="countdown:1-1=7"):
        TASK.gold(TASK.problem({"numbers": [1, 1], "target": 7}))
