"""The world of moves against brute force."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from trace_reader import OPERATIONS, world_values

from clew.initialize.countdown_world import Move, Plan, choices, distinct_moves, moves, outcomes, plans, reachable
from clew.initialize.vocabulary import LARGEST_NUMBER

small = st.integers(0, 12)
number = st.one_of(
    small, st.sampled_from([0, 1, 2, 15, 16, 17, 51, *(LARGEST_NUMBER // k for k in (1, 2, 3)), LARGEST_NUMBER - 1])
)


def pools(most: int) -> st.SearchStrategy:
    mixed = st.lists(number, min_size=1, max_size=most)
    ties = st.builds(lambda n, k: [n] * k, number, st.integers(1, most))
    return st.one_of(mixed, ties).map(lambda ns: tuple(sorted(ns, reverse=True)))


def slow_moves(numbers):
    """Every (a, op, b) of whole numbers from 0 to the largest with a >= b, except division by one."""
    found = set()
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i == j or a < b:
                continue
            for op, apply in OPERATIONS.items():
                if op == "/" and b < 2:
                    continue
                result = apply(a, b)
                if result == int(result) and 0 <= result <= LARGEST_NUMBER:
                    rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
                    found.add(Move(a, op, b, int(result), tuple(sorted([*rest, int(result)], reverse=True))))
    return found


@given(pools(5))
def test_moves_are_all_and_only_the_legal_ones(numbers):
    found = moves(numbers)
    assert Counter(found) == Counter(slow_moves(numbers))


@given(number, number)
def test_outcomes_put_the_larger_first_and_are_true(a, b):
    for x, op, y, result in outcomes(a, b):
        assert (x, y) == (max(a, b), min(a, b))
        assert OPERATIONS[op](x, y) == result <= LARGEST_NUMBER


@given(pools(3))
def test_reachable_is_what_brute_force_reaches(numbers):
    assert reachable(numbers) == world_values(numbers)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=4))
def test_reachable_from_four(numbers):
    assert reachable(tuple(sorted(numbers, reverse=True))) == world_values(numbers)


def test_reachable_by_hand():
    assert reachable((5, 2)) == {7, 3, 10}
    assert reachable((6, 2)) == {8, 4, 12, 3}
    assert reachable((1, 1, 1)) == {3, 1, 2, 0}
    assert reachable((LARGEST_NUMBER, 1)) == {LARGEST_NUMBER - 1, LARGEST_NUMBER}


@given(pools(4), st.integers(0, 100))
def test_choices_part_the_moves_by_whether_the_target_stays_in_reach(numbers, target):
    split = choices(numbers, target)
    assert Counter(split.good + split.bad) == Counter(moves(numbers))
    for move in split.good:
        assert target in world_values(move.left)
    for move in split.bad:
        assert target not in world_values(move.left)
    if len(numbers) > 1:
        assert bool(split.good) == (target in world_values(numbers))


@given(pools(4), st.integers(0, 100))
def test_plans_are_all_last_steps_by_one_of_the_numbers(numbers, target):
    slow = set()
    for at, given_number in enumerate(numbers):
        left = numbers[:at] + numbers[at + 1 :]
        for need in range(LARGEST_NUMBER + 1):
            if need + given_number == target:
                slow.add(Plan(need, "+", given_number, False, left))
            if need - given_number == target:
                slow.add(Plan(need, "-", given_number, False, left))
            if given_number - need == target:
                slow.add(Plan(need, "-", given_number, True, left))
            if given_number > 1 and need * given_number == target:
                slow.add(Plan(need, "*", given_number, False, left))
            if given_number > 1 and need == target * given_number:
                slow.add(Plan(need, "/", given_number, False, left))
    assert Counter(plans(numbers, target)) == Counter(slow)


@given(st.lists(small, min_size=2, max_size=4))
def test_distinct_moves_are_the_first_that_leave_what_they_leave(numbers):
    seen, expected = set(), []
    for move in moves(tuple(sorted(numbers, reverse=True))):
        if move.left not in seen:
            seen.add(move.left)
            expected.append(move)
    assert list(distinct_moves(tuple(sorted(numbers, reverse=True)))) == expected


def test_of_sum_and_difference_with_nothing_the_sum_is_tried():
    assert [f"{m.a} {m.op} {m.b}" for m in distinct_moves((5, 0))] == ["5 + 0", "5 * 0"]
