"""The solver against an independent slow search."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations_with_replacement

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_countdown import slow_results, slow_values

from clew.tasks.countdown_solver import (
    best_value,
    find_solution,
    moves,
    reachable,
    reachable_integers,
    solutions,
    solvable,
    steps,
)
from clew.tasks.expression import canonical, evaluate, leaves, parse

RATIONALS = st.fractions(-8, 8, max_denominator=6)
ALL_MULTISETS = list(combinations_with_replacement(range(1, 10), 4))


@pytest.mark.parametrize("numbers", [m for size in (1, 2, 3) for m in combinations_with_replacement(range(1, 8), size)])
def test_reachable_values_of_small_multisets(numbers: tuple[int, ...]) -> None:
    assert reachable(numbers) == slow_values(numbers)


@pytest.mark.parametrize(
    "numbers", [*ALL_MULTISETS[::60], (1, 1, 1, 1), (9, 9, 9, 9), (3, 3, 8, 8), (1, 5, 5, 5), (2, 3, 5, 12)]
)
def test_every_target_of_four_numbers(numbers: tuple[int, ...]) -> None:
    values = slow_values(numbers)
    assert reachable(numbers) == values
    assert reachable_integers(numbers) == {int(value) for value in values if value.denominator == 1}
    assert [t for t in range(-50, 201) if solvable(numbers, t)] == [t for t in range(-50, 201) if t in values]


def test_fractional_detours_are_found() -> None:
    assert solutions([3, 3, 8, 8], 24) == ["8 / (3 - 8 / 3)"]
    assert solutions([1, 5, 5, 5], 24) == ["5 * (5 - 1 / 5)"]


@given(st.lists(RATIONALS, min_size=1, max_size=3), RATIONALS)
@settings(deadline=None)
def test_partial_states_of_rationals(numbers: list[Fraction], target: Fraction) -> None:
    values = slow_values(numbers)
    assert reachable(numbers) == values
    assert best_value(numbers, target) == int(target in values)
    assert all(best_value(numbers, value) == 1 for value in values)


@given(st.lists(st.integers(1, 9), min_size=3, max_size=4), st.integers(-20, 120))
@settings(deadline=None, max_examples=30)
def test_best_value_is_the_maximum_over_moves(numbers: list[int], target: int) -> None:
    """The Bellman equation of a deterministic environment: V*(s) = max over moves of V*(next state)."""
    assert best_value(numbers, target) == max(best_value(rest, target) for _, rest in moves(numbers))


def test_moves_are_exact_and_complete() -> None:
    listed = {
        (float(s.left), s.op, float(s.right), float(s.result), tuple(map(float, rest))) for s, rest in moves([6, 0, 4])
    }
    assert (6, "/", 4, 1.5, (0, 1.5)) in listed
    assert (4, "-", 6, -2, (0, -2)) in listed
    assert (0, "/", 4, 0, (6, 0)) in listed
    assert not any(op == "/" and right == 0 for _, op, right, _, _ in listed)
    assert len(listed) == 6 * 4 - 2


@pytest.mark.parametrize(
    "numbers", [(4,), (2, 2), (3, 5, 7), (1, 1, 2), (2, 2, 4, 4), (1, 2, 3, 4), (3, 3, 8, 8), (1, 1, 1, 1)]
)
def test_solutions_are_all_canonical_forms_and_no_others(numbers: tuple[int, ...]) -> None:
    by_target: dict[Fraction, set[str]] = {}
    for value, text in slow_results([(Fraction(number), str(number)) for number in numbers]):
        by_target.setdefault(value, set()).add(canonical(parse(text)))
    for target in range(-5, 40):
        found = solutions(numbers, target)
        assert len(set(found)) == len(found)
        assert set(found) == by_target.get(Fraction(target), set())


@pytest.mark.parametrize("numbers", ALL_MULTISETS)
def test_solutions_exist_exactly_if_solvable(numbers: tuple[int, ...]) -> None:
    for target in (-3, 0, 1, 7, 24, 36, 61, 100):
        found = solutions(numbers, target)
        assert bool(found) == solvable(numbers, target)
        for text in found:
            assert (evaluate(parse(text)), sorted(leaves(parse(text)))) == (target, list(numbers))


def test_order_of_numbers_does_not_matter() -> None:
    assert solutions([8, 3, 8, 3], 24) == solutions([3, 3, 8, 8], 24)
    assert reachable([5, 2, 9]) == reachable([9, 5, 2])
    assert best_value([Fraction(1, 2), 7], 14) == best_value([7, Fraction(1, 2)], 14) == 1


@pytest.mark.parametrize("numbers", [(1, 2, 3, 4, 5), (1, 1, 1, 1, 1), (2, 2, 5, 5, 9)])
def test_search_for_one_target_agrees_with_the_table_for_five_numbers(numbers: tuple[int, ...]) -> None:
    values = reachable_integers(numbers)
    for target in range(-20, 260, 3):
        assert solvable(numbers, target) == (target in values)


@pytest.mark.parametrize(
    ("numbers", "target"), [((25, 50, 75, 100, 3, 6), 952), ((2, 3, 7, 8, 9, 50, 75), 812), ((5, 5), 0), ((1, 1, 1), 0)]
)
def test_find_solution(numbers: tuple[int, ...], target: int) -> None:
    text = find_solution(numbers, target)
    assert text is not None
    assert (evaluate(parse(text)), sorted(leaves(parse(text)))) == (target, sorted(numbers))


def test_find_solution_knows_when_there_is_none() -> None:
    assert find_solution([1] * 6, 5000) is None
    assert find_solution([2], 3) is None


def test_steps_of_an_expression() -> None:
    assert [(str(s.left), s.op, str(s.right), str(s.result)) for s in steps(parse("8 / (3 - 8 / 3)"))] == [
        ("8", "/", "3", "8/3"),
        ("3", "-", "8/3", "1/3"),
        ("8", "/", "1/3", "24"),
    ]
    assert steps(parse("4")) == []
    with pytest.raises(ValueError, match="divides by zero"):
        steps(parse("4 / (3 - 3)"))
