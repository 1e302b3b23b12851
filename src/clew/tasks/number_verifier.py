"""Answers that are one number, with or without a unit: nothing is computed, and the one tolerance is stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from clew.core.types import Outcome, Verdict
from clew.tasks.final_answer import final_answer
from clew.tasks.math_text import normalised
from clew.tasks.number_answer import Number, read_number, same_number
from clew.tasks.units import Measured, measured, unit_fits


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    r"""Right only for the reference number, written as a number (see `clew.tasks.number_answer`).

    A unit may follow if it is that of the reference answer, or one that the question names where the reference has
    none.

    >>> [Numbers().judge(text, "0.5", "").outcome.value for text in (r"\boxed{\frac12}", "1/2", "2/4", "0.25 + 0.25")]
    ['right', 'right', 'right', 'wrong']
    """

    def judge(self, text: str, gold: str, question: str) -> Verdict:
        expected = measured_number(normalised(gold))
        if expected is None:
            return Verdict(Outcome.UNSCORED, None, self.extract(text), "the reference answer is not a number")
        answer = final_answer(text)
        return judge_number(normalised(answer or ""), expected, question)

    def extract(self, text: str) -> str | None:
        answer = final_answer(text)
        number = None if answer is None else measured_number(normalised(answer))
        return None if number is None else str(number[0])

    def gold_fault(self, gold: str) -> str:
        return "" if measured_number(normalised(gold)) else "not a number"


def measured_number(text: str) -> tuple[Number, str] | None:
    """The number that normalised `text` is, and its unit; None if it is none."""
    for value, unit in (Measured(text, ""), measured(text)):
        number = read_number(value)
        if number is not None:
            return number, unit
    return None


def judge_number(answer: str, gold: tuple[Number, str], question: str) -> Verdict:
    """The verdict on normalised `answer` where the reference is a number with a unit, perhaps an empty one."""
    read = measured_number(answer)
    if read is None:
        return Verdict(Outcome.WRONG, 0.0, None, "not a number" if answer else "no answer")
    number, unit = read
    if not unit_fits(unit, gold[1], question):
        return Verdict(Outcome.WRONG, 0.0, str(number), f"a unit that was not asked for: {unit[:20]}")
    right = same_number(gold[0], number)
    return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), str(number), "" if right else "differs")
