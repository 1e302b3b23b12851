"""Problems of whole numbers on the way, against a slow search over pairs of numbers."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import pytest

from clew.tasks.countdown import Countdown
from clew.tasks.countdown_solver import reachable_integers, reachable_whole


def slow_whole(numbers: tuple[int, ...]) -> set[int]:
    """Combine any two numbers, larger first, until one is left."""
    if len(numbers) == 1:
        return set(numbers)
    found: set[int] = set()
    for i, j in combinations(range(len(numbers)), 2):
        a, b = max(numbers[i], numbers[j]), min(numbers[i], numbers[j])
        rest = tuple(n for at, n in enumerate(numbers) if at not in (i, j))
        results = [a + b, a - b, a * b]
        if b and a % b == 0:
            results.append(a // b)
        if b == 0 and a:
            results.append(0)
        for result in results:
            found |= slow_whole((*rest, result))
    return found


@pytest.mark.parametrize("numbers", list(combinations_with_replacement(range(1, 8), 3)))
def test_three_numbers_equal_the_slow_search(numbers: tuple[int, ...]) -> None:
    assert reachable_whole(numbers) == slow_whole(numbers)


@pytest.mark.parametrize(
    "numbers", [(1, 1, 1, 1), (3, 3, 8, 8), (2, 4, 6, 8), (9, 9, 9, 9), (1, 5, 5, 5), (6, 7, 8, 9)]
)
def test_four_numbers_equal_the_slow_search(numbers: tuple[int, ...]) -> None:
    assert reachable_whole(numbers) == slow_whole(numbers)


def test_what_needs_fractions_is_made_only_on_request() -> None:
    # 8 / (3 - 8 / 3) = 24 and 5 * (5 - 1 / 5) = 24 have no other solution.
    for numbers in ((3, 3, 8, 8), (1, 5, 5, 5)):
        assert 24 in reachable_integers(numbers)
        assert 24 not in reachable_whole(numbers)
    whole = {p.id for s in ("train", "validation", "test") for p in _all(Countdown(), s)}
    every = {p.id for s in ("train", "validation", "test") for p in _all(Countdown(whole=False), s)}
    assert whole < every
    assert "countdown:1-5-5-5=24" in every - whole


def _all(task: Countdown, split: str) -> list:  # type: ignore[type-arg]
    return task.problems(split, task.count_problems(split), 0)  # type: ignore[arg-type]


def test_the_verifier_accepts_fractions_whatever_the_setting() -> None:
    task = Countdown()
    problem = task.problem({"numbers": [3, 3, 8, 8], "target": 24})
    assert task.verify(problem, "answer 8 / (3 - 8 / 3)").right
