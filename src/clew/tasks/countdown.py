"""Countdown: make a target from given numbers with + - * / and brackets, each number exactly once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from math import comb
from typing import ClassVar, NamedTuple

from clew.core.errors import InvalidValue, UnknownName
from clew.core.seeds import derive_seed
from clew.core.task import Split, split_of
from clew.core.types import Message, Outcome, Problem, Verdict
from clew.tasks.answer import extract_answer
from clew.tasks.countdown_solver import find_solution, reachable_integers, reachable_whole, solutions
from clew.tasks.drawing import draw_distinct, too_few
from clew.tasks.expression import Reading, read

INSTRUCTIONS = (
    "Combine all the given numbers, each exactly once, with + - * / and brackets so that they make the target. "
    "Results on the way may be negative or fractions. You may think first. End with the word answer and then only "
    "the expression, for example: answer (3 + 5) * 2"
)
MAX_NUMBER = 9999
MAX_COUNT = 8
_MAX_RATED = 5
"""Solutions are counted up to so many numbers; beyond, counting them takes seconds a problem."""
_MAX_LISTED = 2000
"""Settings with at most so many multisets of numbers are listed in full; others are drawn from."""
_BINS = ((0, "0 solutions"), (1, "1 solution"), (3, "2-3 solutions"), (7, "4-7 solutions"))


class Question(NamedTuple):
    """The canonical problem: numbers in ascending order, and the target."""

    numbers: tuple[int, ...]
    target: int

    @property
    def id(self) -> str:
        return f"countdown:{'-'.join(map(str, self.numbers))}={self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Countdown:
    """The task at one difficulty. The settings choose which problems are made, not which can be judged."""

    name: ClassVar[str] = "countdown"

    count: int = 4
    """How many numbers, 2 to 6."""
    low: int = 1
    """Smallest number."""
    high: int = 9
    """Largest number."""
    target_low: int = 1
    """Smallest target."""
    target_high: int = 50
    """Largest target."""
    whole: bool = True
    """Make only problems that whole numbers of at least 0 on the way can solve, as in the television game; what is
    judged may use fractions and negative numbers all the same."""

    def __post_init__(self) -> None:
        if not 2 <= self.count <= 6:
            raise InvalidValue("countdown count", self.count, "2 to 6 numbers", "choose a count in that range")
        if not 1 <= self.low <= self.high <= MAX_NUMBER:
            given, accepted = (self.low, self.high), f"1 <= low <= high <= {MAX_NUMBER}"
            raise InvalidValue("countdown (low, high)", given, accepted, "change low or high")
        if not -MAX_NUMBER <= self.target_low <= self.target_high <= MAX_NUMBER:
            given, accepted = (self.target_low, self.target_high), f"-{MAX_NUMBER} to {MAX_NUMBER}, low <= high"
            raise InvalidValue("countdown (target_low, target_high)", given, accepted, "change one of the two")

    def problems(self, split: Split, n: int, seed: int) -> list[Problem]:
        """`n` different solvable problems of `split`; those for a smaller `n` are the first of those for a larger."""
        questions = self._questions(split, n, random.Random(derive_seed(seed, self.name, split, "questions")))
        rng = random.Random(derive_seed(seed, self.name, split, "orders"))
        made = []
        for numbers, target in questions:
            shuffled = list(numbers)
            rng.shuffle(shuffled)
            made.append(_problem(shuffled, target))
        return made

    def _questions(self, split: Split, n: int, rng: random.Random) -> list[Question]:
        if not self._listed:
            return draw_distinct(lambda rng: _draw(self, rng), split, n, rng=rng, task=self)
        questions = list(_listing(self)[split])
        if not 0 <= n <= len(questions):
            raise too_few(n, len(questions), split, self)
        rng.shuffle(questions)
        return questions[:n]

    @property
    def _listed(self) -> bool:
        return self.count <= 4 and comb(self.high - self.low + self.count, self.count) <= _MAX_LISTED

    def count_problems(self, split: Split) -> int | None:
        """How many different solvable problems `split` has; None where there are too many to list."""
        return len(_listing(self)[split]) if self._listed else None

    def problem(self, metadata: dict[str, object]) -> Problem:
        """The problem of `{"numbers": [...], "target": t}`: 2 to 8 numbers of 1 to 9999, whatever the settings."""
        for key in metadata:
            if key not in ("numbers", "target"):
                raise UnknownName("countdown problem key", str(key), ("numbers", "target"))
        advice = 'give for example {"numbers": [3, 5, 7, 11], "target": 24}'
        numbers, target = metadata.get("numbers"), metadata.get("target")
        if not isinstance(numbers, list | tuple) or not 2 <= len(numbers) <= MAX_COUNT:
            raise InvalidValue("countdown numbers", numbers, f"a list of 2 to {MAX_COUNT} integers", advice)
        for number in numbers:
            if type(number) is not int or not 1 <= number <= MAX_NUMBER:
                raise InvalidValue("a countdown number", number, f"an integer from 1 to {MAX_NUMBER}", advice)
        if type(target) is not int or not -MAX_NUMBER <= target <= MAX_NUMBER:
            raise InvalidValue("countdown target", target, f"an integer from -{MAX_NUMBER} to {MAX_NUMBER}", advice)
        return _problem(list(numbers), target)

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Right only for an expression over exactly the given numbers whose exact value is the target."""
        reading, target = read(extract_answer(text)), problem.metadata["target"]
        if isinstance(reading, str):
            return Verdict(Outcome.WRONG, 0.0, None, f"not an expression: {reading}")
        if fault := _fault(reading, problem.metadata["numbers"], target):
            return Verdict(Outcome.WRONG, 0.0, reading.canonical, fault)
        return Verdict(Outcome.RIGHT, 1.0, reading.canonical, f"equals {target}")

    def extract(self, text: str) -> str | None:
        """The expression that `text` answers with, in canonical form, unjudged."""
        reading = read(extract_answer(text))
        return None if isinstance(reading, str) else reading.canonical

    def gold(self, problem: Problem) -> str:
        """A right answer, the shortest for up to five numbers; raises `InvalidValue` if the problem has none."""
        question = _question(problem)
        rated = len(question.numbers) <= _MAX_RATED
        found = next(iter(solutions(*question)), None) if rated else find_solution(*question)
        if found is None:
            raise InvalidValue("problem", question.id, "a solvable problem", "choose another target or other numbers")
        return found

    def difficulty(self, problem: Problem) -> str:
        """Bin by the number of solutions that differ in canonical form: the fewer, the harder."""
        numbers, target = _question(problem)
        if len(numbers) > _MAX_RATED:
            return f"more than {_MAX_RATED} numbers"
        found = len(solutions(numbers, target))
        return next((name for limit, name in _BINS if found <= limit), "8+ solutions")


def _problem(numbers: list[int], target: int) -> Problem:
    return Problem(
        id=Question(tuple(sorted(numbers)), target).id,
        task=Countdown.name,
        prompt=(
            Message("system", INSTRUCTIONS),
            Message("user", f"make {target} from {' '.join(map(str, numbers))}"),
        ),
        metadata={"numbers": numbers, "target": target},
    )


def _question(problem: Problem) -> Question:
    return Question(tuple(sorted(problem.metadata["numbers"])), problem.metadata["target"])


def _fault(reading: Reading, numbers: list[int], target: int) -> str:
    """Why the expression is not a solution, in a few words; empty if it is one."""
    if sorted(reading.numbers) != sorted(numbers):
        return _misuse(reading.numbers, numbers)
    if reading.value is None:
        return "divides by zero"
    return "" if reading.value == target else f"equals {reading.value}, not {target}"


def _misuse(numbers: Sequence[int], allowed: Sequence[int]) -> str:
    """Which of the numbers used is not given, used too often or too rarely, in a few words."""
    used, given = Counter(numbers), Counter(allowed)
    for number, times in used.items():
        if number not in given:
            return f"uses {_clip(number)}, which is not given"
        if times > given[number]:
            return f"uses {number} {_times(times)}" + (f", not {_times(given[number])}" if given[number] > 1 else "")
    for number, times in given.items():
        if not used[number]:
            return f"does not use {number}"
        if used[number] < times:
            return f"uses {number} {_times(used[number])}, not {_times(times)}"
    raise AssertionError("the numbers differ")


def _times(times: int) -> str:
    return {1: "once", 2: "twice"}.get(times, f"{times} times")


def _clip(number: int) -> str:
    text = str(number)
    return text if len(text) <= 12 else text[:9] + "..."


@lru_cache(maxsize=8)
def _listing(task: Countdown) -> dict[Split, tuple[Question, ...]]:
    """Every solvable problem of the settings, by split."""
    found: dict[Split, list[Question]] = {"train": [], "validation": [], "test": []}
    for numbers in combinations_with_replacement(range(task.low, task.high + 1), task.count):
        for target in sorted(reachable_whole(numbers) if task.whole else reachable_integers(numbers)):
            if task.target_low <= target <= task.target_high:
                question = Question(numbers, target)
                found[split_of(question.id)].append(question)
    return {split: tuple(questions) for split, questions in found.items()}


def _draw(task: Countdown, rng: random.Random) -> Question | None:
    """A problem made by combining random numbers in random order, so that it is solvable."""
    numbers = tuple(sorted(rng.randint(task.low, task.high) for _ in range(task.count)))
    target = _random_result(list(numbers), rng, negative=not task.whole)
    if target is None or not task.target_low <= target <= task.target_high:
        return None
    return Question(numbers, target)


def _random_result(values: list[int], rng: random.Random, *, negative: bool) -> int | None:
    """The result of random exact operations on all of `values`; None if one is not exact, or below 0 unasked."""
    while len(values) > 1:
        a = values.pop(rng.randrange(len(values)))
        b = values.pop(rng.randrange(len(values)))
        op = rng.choice("+-*/")
        if op == "/" and (b == 0 or a % b):
            return None
        if op == "-" and a < b and not negative:
            return None
        values.append({"+": a + b, "-": a - b, "*": a * b}[op] if op != "/" else a // b)
    return values[0]
