"""V* of a partial Countdown solution, from the exact solver: 1 if its present attempt can still reach the target.

The steps written so far are read off the text (the words of `clew.initialize.countdown_traces`), which says what
numbers are left. Limits: a step counts from its result on, what is half written does not yet; an answer that is being
written counts as the attempt it follows; a way that the text has already tried in vain counts as open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, final

from clew.core.errors import InvalidValue
from clew.core.types import Completion, Problem, State
from clew.search.guides.rules import Verifies
from clew.search.guides.semantic_entropy import Decodes
from clew.tasks.countdown_solver import best_value
from clew.tasks.expression import Operator, apply

_EVENT = re.compile(
    r"\b(?P<cue>try|or) (?P<a>\d+) (?P<op>[-+*/]) (?P<b>\d+) = (?P<result>\d+)\b"
    r"|\bplan (?P<whole>\d+) = (?P<x>\d+) (?P<by>[-+*/]) (?P<y>\d+) need (?P<need>\d+)\b"
    r"|\b(?P<word>no|back|answer)\b"
)


class Attempt(NamedTuple):
    """What there is to make `want` from; `left` is None after a step that is false or uses what is not there."""

    left: tuple[int, ...] | None
    want: int


def attempts(text: str, numbers: Sequence[int], target: int) -> Iterator[Attempt]:
    """The attempt at the start, then after each step, plan, `no` and `back` of `text`; the last is the present one.

    `no` and `or` return to where the first step, or the plan, led; `back` returns to the start.

    >>> [a.left for a in attempts("try 9 - 7 = 2 left 5 3 try 5 * 3 = 15 no", [3, 5, 7, 9], 24)]
    [(3, 5, 7, 9), (3, 5, 2), (2, 15), (3, 5, 2)]
    """
    start = Attempt(tuple(numbers), target)
    idea, now = None, start
    yield now
    for event in _EVENT.finditer(text):
        match event["word"]:
            case "answer":
                return
            case "back":
                idea, now = None, start
            case "no":
                now = idea or start
            case _ if event["need"]:
                idea = now = _planned(start, event)
            case _:
                if event["cue"] == "or":
                    now = idea or start
                now = _stepped(now, event)
                idea = idea or now
        yield now


def _stepped(now: Attempt, step: re.Match[str]) -> Attempt:
    a, b, result = int(step["a"]), int(step["b"]), int(step["result"])
    left = _without(now.left, a, b)
    true = _value(a, step["op"], b) == result
    return Attempt((*left, result) if left is not None and true else None, now.want)


def _planned(start: Attempt, plan: re.Match[str]) -> Attempt:
    whole, x, y, need = (int(plan[name]) for name in ("whole", "x", "y", "need"))
    given = y if x == need else x
    left = _without(start.left, given)
    true = need in (x, y) and whole == start.want and _value(x, plan["by"], y) == whole
    return Attempt(left if true else None, need)


def _without(numbers: tuple[int, ...] | None, *used: int) -> tuple[int, ...] | None:
    """`numbers` without one of each of `used`; None if they are not all there."""
    if numbers is None:
        return None
    rest = list(numbers)
    for number in used:
        if number not in rest:
            return None
        rest.remove(number)
    return tuple(rest)


def _value(a: int, op: str, b: int) -> Fraction | None:
    operators: dict[str, Operator] = {"+": "+", "-": "-", "*": "*", "/": "/"}
    return apply(operators[op], Fraction(a), Fraction(b))


def exact_value(text: str, numbers: Sequence[int], target: int) -> int:
    """V* of the unfinished solution `text`: 1 if what is left of its present attempt can make what it wants, else 0.

    Fractions and negative numbers may come on the way, as the verifier allows.

    >>> exact_value("try 9 - 7 = 2 left 5 3", [3, 5, 7, 9], 30), exact_value("try 9 + 7 = 15", [3, 5, 7, 9], 30)
    (1, 0)
    """
    *_, (left, want) = attempts(text, numbers, target)
    return 0 if left is None or not left else best_value(left, want)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ExactCountdownValue:
    """Scorer: V* of the state, for Countdown only; of a finished state the verdict. Runs no model.

    It is the best that a guide can know of an attempt, the yardstick of learned ones; it is not what the policy will
    make of it.
    """

    task: Verifies
    policy: Decodes

    @property
    def name(self) -> str:
        return "exact-value"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        """Raises `InvalidValue` for a problem that is not of Countdown."""
        return [self._value(state) for state in states]

    def cost_tokens(self, states: Sequence[State]) -> int:
        return 0

    def _value(self, state: State) -> float:
        problem, text = state.problem, self.policy.text(state)
        if state.finished:
            return self.task.verify(problem, text).value or 0.0
        return float(exact_value(text, *_facts(problem)))


def _facts(problem: Problem) -> tuple[list[int], int]:
    if not {"numbers", "target"} <= problem.metadata.keys():
        accepted = "a problem of countdown, whose values a solver knows"
        raise InvalidValue("problem", problem.id, accepted, "use another guide for this task")
    return problem.metadata["numbers"], problem.metadata["target"]
