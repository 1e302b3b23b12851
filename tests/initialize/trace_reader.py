"""An independent reader of traces: follows every word with exact arithmetic and refuses whatever is not so."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from clew.initialize.vocabulary import LARGEST_NUMBER

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
STATEMENT = re.compile(r"(?<!= )\b(\d+) ([-+*/]) (\d+) = (\d+)")
REVERSED = re.compile(r"plan (\d+) = (\d+) ([-+*/]) (\d+)")


def all_values(numbers: Sequence[int | Fraction]) -> set[Fraction]:
    """Whatever exact arithmetic makes of all `numbers`, negative results and fractions included."""
    values = [Fraction(n) for n in numbers]
    if len(values) == 1:
        return set(values)
    found: set[Fraction] = set()
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            if i != j:
                rest = [v for k, v in enumerate(values) if k not in (i, j)]
                for result in [a + b, a - b, a * b, *([a / b] if b else [])]:
                    found |= all_values([*rest, result])
    return found


def world_values(numbers: Sequence[int], largest: int = LARGEST_NUMBER) -> set[int]:
    """The same with whole numbers from 0 to `largest` only."""
    if len(numbers) == 1:
        return set(numbers)
    found: set[int] = set()
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i != j:
                rest = [v for k, v in enumerate(numbers) if k not in (i, j)]
                results = [a + b, a - b, a * b, *([a // b] if b and a % b == 0 else [])]
                for result in results:
                    if 0 <= result <= largest:
                        found |= world_values([*rest, result], largest)
    return found


def statements(text: str) -> Iterator[bool]:
    """Whether each arithmetic statement of `text` is true."""
    for a, op, b, c in STATEMENT.findall(text):
        yield OPERATIONS[op](Fraction(a), Fraction(b)) == int(c)
    for c, a, op, b in REVERSED.findall(text):
        yield OPERATIONS[op](Fraction(a), Fraction(b)) == int(c)


@dataclass
class Trace:
    """What was read."""

    answer: str = ""
    attempts: list[list[str]] = field(default_factory=list)
    """For each idea the first step of each attempt."""
    plans: int = 0
    num_no: int = 0
    num_back: int = 0


class Reader:
    """Reads `words` of a trace on `numbers`, asserting that each of them is true where it stands."""

    def __init__(self, words: Sequence[str], numbers: Sequence[int], target: int) -> None:
        self.words, self.at = list(words), 0
        self.numbers, self.target = sorted(numbers, reverse=True), target
        self.trace = Trace()

    def read(self) -> Trace:
        self.expect("have", *map(str, self.numbers))
        while not self.idea():
            self.expect("back")
            self.trace.num_back += 1
        self.expect("answer")
        self.trace.answer = " ".join(self.words[self.at :])
        return self.trace

    def idea(self) -> bool:
        """One first step or plan and the attempts that follow it; whether the last of them succeeded."""
        self.trace.attempts.append([])
        if self.peek() == "plan":
            want, left = self.plan()
        else:
            want, left = self.target, self.step("try", self.numbers)
        if self.peek() in ("yes", "no"):
            return self.judgement(left, want)
        for cue in ["try", *["or"] * len(self.words)]:
            if self.attempt(cue, left, want):
                return True
            if self.peek() == "back":
                return False
        raise AssertionError("unreachable")

    def plan(self) -> tuple[int, list[int]]:
        self.trace.plans += 1
        self.expect("plan", str(self.target), "=")
        first, op, second = self.take(), self.take(), self.take()
        assert OPERATIONS[op](Fraction(first), Fraction(second)) == self.target
        self.expect("need")
        need = self.take()
        given = first if need == second else second
        assert need in (first, second)
        # Both orders are told apart by what is said to be left.
        rest = self.left()
        options = [without(self.numbers, int(g)) for g in {given, first, second} if int(g) in self.numbers]
        assert rest in options
        return int(need), rest

    def attempt(self, cue: str, left: list[int], want: int) -> bool:
        start = self.at + 1
        pool = self.step(cue, left)
        said = " ".join(self.words[start : start + 5])
        assert said not in self.trace.attempts[-1], f"repeats {said}"
        self.trace.attempts[-1].append(said)
        while self.peek() == "try":
            pool = self.step("try", pool)
        return self.judgement(pool, want)

    def step(self, cue: str, pool: list[int]) -> list[int]:
        """What is left after a step on `pool`, in descending order."""
        self.expect(cue)
        a, op, b = self.take(), self.take(), self.take()
        self.expect("=")
        result = self.take()
        assert OPERATIONS[op](Fraction(a), Fraction(b)) == int(result)
        untouched = without(without(pool, int(a)), int(b))
        if len(untouched) > 1:
            assert self.left() == untouched
        else:
            assert self.peek() != "left"
        return sorted([*untouched, int(result)], reverse=True)

    def left(self) -> list[int]:
        self.expect("left")
        rest = []
        while self.peek().isdigit():
            rest.append(int(self.take()))
        return rest

    def judgement(self, pool: list[int], want: int) -> bool:
        if self.take() == "yes":
            assert self.words[self.at - 1] == "yes" and pool == [want]
            return True
        assert self.words[self.at - 1] == "no"
        self.trace.num_no += 1
        # Of two numbers a trace sees the whole truth; of more, what its own whole numbers can make.
        assert want not in (all_values(pool) if len(pool) <= 2 else world_values(pool))
        return False

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self) -> str:
        self.at += 1
        return self.words[self.at - 1]

    def expect(self, *words: str) -> None:
        for word in words:
            assert self.take() == word, (word, " ".join(self.words[: self.at]))


def without(pool: Sequence[int], number: int) -> list[int]:
    rest = list(pool)
    rest.remove(number)
    return rest
