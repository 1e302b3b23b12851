"""Arithmetic: compute a chain of operations whose answer is an integer."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import ClassVar

from clew.core.errors import InvalidValue, UnknownName
from clew.core.seeds import derive_seed
from clew.core.task import Split
from clew.core.types import Message, Outcome, Problem, Verdict
from clew.tasks.answer import extract_answer
from clew.tasks.drawing import draw_distinct
from clew.tasks.expression import NotAnExpression, canonical, evaluate, leaves, parse, tokenize

INSTRUCTIONS = (
    "Compute the value; * and / come before + and -. You may think first. "
    "End with the word answer and then only the integer, for example: answer -12"
)
MAX_NUMBER = 9999
MAX_OPERATIONS = 9
MAX_ANSWER = 64
"""Characters of an answer; the largest product of ten numbers has 40."""

_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """The task at one difficulty. The settings choose which problems are made, not which can be judged."""

    name: ClassVar[str] = "arithmetic"

    operations: int = 3
    """How many operations, 1 to 9; each is one of + - *."""
    low: int = 1
    """Smallest number."""
    high: int = 20
    """Largest number."""

    def __post_init__(self) -> None:
        if not 1 <= self.operations <= MAX_OPERATIONS:
            accepted = f"1 to {MAX_OPERATIONS} operations"
            raise InvalidValue("arithmetic operations", self.operations, accepted, "choose a number in that range")
        if not 0 <= self.low <= self.high <= MAX_NUMBER:
            given, accepted = (self.low, self.high), f"0 <= low <= high <= {MAX_NUMBER}"
            raise InvalidValue("arithmetic (low, high)", given, accepted, "change low or high")

    def problems(self, split: Split, n: int, seed: int) -> list[Problem]:
        """`n` different problems of `split`; those for a smaller `n` are the first of those for a larger."""
        rng = random.Random(derive_seed(seed, self.name, split))
        return draw_distinct(self._draw, split, n, rng=rng, task=self)

    def _draw(self, rng: random.Random) -> Problem:
        terms = [str(rng.randint(self.low, self.high))]
        for _ in range(self.operations):
            terms += [rng.choice("+-*"), str(rng.randint(self.low, self.high))]
        return _problem(" ".join(terms))

    def problem(self, metadata: dict[str, object]) -> Problem:
        """The problem of `{"expression": "3 + 5 * 7 - 2"}`: up to 9 operations, brackets allowed, integer value."""
        for key in metadata:
            if key != "expression":
                raise UnknownName("arithmetic problem key", str(key), ("expression",))
        advice = 'give for example {"expression": "3 + 5 * 7 - 2"}'
        text = metadata.get("expression")
        if not isinstance(text, str):
            raise InvalidValue("arithmetic expression", text, "a text", advice)
        try:
            node = parse(text)
        except NotAnExpression as error:
            accepted = f"an expression of integers, + - * / and brackets ({error})"
            raise InvalidValue("arithmetic expression", text[:80], accepted, advice) from error
        numbers, value = leaves(node), evaluate(node)
        if not 2 <= len(numbers) <= MAX_OPERATIONS + 1 or max(numbers) > MAX_NUMBER:
            accepted = f"1 to {MAX_OPERATIONS} operations on numbers up to {MAX_NUMBER}"
            raise InvalidValue("arithmetic expression", text, accepted, advice)
        if value is None or value.denominator != 1:
            raise InvalidValue("arithmetic expression", text, "an expression whose value is an integer", advice)
        return _problem(" ".join(tokenize(text)))

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Right only for the integer in plain ASCII digits, with a leading minus if negative, and nothing else."""
        answer, expected = self.extract(text), self.gold(problem)
        if answer is None:
            return Verdict(Outcome.WRONG, 0.0, None, "not an integer")
        if answer != expected:
            return Verdict(Outcome.WRONG, 0.0, answer, f"is not {answer}")
        return Verdict(Outcome.RIGHT, 1.0, answer, f"is {expected}")

    def extract(self, text: str) -> str | None:
        """The integer that `text` answers with, unjudged."""
        answer = extract_answer(text)
        return answer if len(answer) <= MAX_ANSWER and _INTEGER.fullmatch(answer) else None

    def gold(self, problem: Problem) -> str:
        """The right answer."""
        return str(evaluate(parse(problem.metadata["expression"])))

    def difficulty(self, problem: Problem) -> str:
        """Bin by the number of operations."""
        operations = len(leaves(parse(problem.metadata["expression"]))) - 1
        return "1 operation" if operations == 1 else f"{operations} operations"


def _problem(expression: str) -> Problem:
    """The id is of the canonical form, so that reordered operands are the same problem in the same split."""
    return Problem(
        id="arithmetic:" + canonical(parse(expression)).replace(" ", ""),
        task=Arithmetic.name,
        prompt=(Message("system", INSTRUCTIONS), Message("user", f"compute {expression}")),
        metadata={"expression": expression},
    )
