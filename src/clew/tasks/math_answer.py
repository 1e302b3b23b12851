r"""Mathematical answers: numbers, expressions, sets, intervals, equations, matrices, letters, words; LaTeX or not.

The answer is found (`final_answer`), spelled one way and checked for what may not stand in it (`math_text`). Numbers
are compared here; all else in a process that can be killed, by math-verify's parser and sympy (`math_worker`).
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import final

from clew.core.errors import MissingExtra
from clew.core.types import Outcome, Verdict
from clew.tasks.final_answer import final_answer, unwrapped
from clew.tasks.killable import CallFailed, Killable
from clew.tasks.math_text import fault, normalised, plain_words, repeats
from clew.tasks.number_verifier import judge_number, measured_number
from clew.tasks.units import measured, unit_fits

CPU_SECONDS = 4.0
"""Of computing that one comparison may take; what takes longer is unscored."""
SECONDS = 30.0
"""On the clock, for a machine that is busy with other things."""
_WARM_UP = ("\\sqrt{2}x", "2^{1/2}x")
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.)]?")
_ASSIGNED = re.compile(r"[A-Za-z](?:_\{?[A-Za-z0-9]{1,3}\}?)?=(?=[^=]+$)")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Math:
    r"""Right only for an answer that is one mathematical object and the same as the reference.

    Unscored is an answer whose comparison fails or takes over four seconds, and every answer to a reference that
    cannot be read. See docs/reference/verifiers.md for what is accepted and refused.

    >>> Math().judge(r"thus \boxed{\frac12}", "0.5", "").outcome.value
    'right'
    """

    def judge(self, text: str, gold: str, question: str) -> Verdict:
        found = final_answer(text)
        if found is None:
            return _wrong(None, "no answer")
        answer, expected = normalised(found), normalised(unwrapped(gold))
        if answer == expected and expected:
            return Verdict(Outcome.RIGHT, 1.0, self.extract(text))
        number = measured_number(expected) or measured_number(_without_name(expected))
        if number is not None:
            return judge_number(_without_name(answer), number, question)
        if verdict := _as_words(answer, expected):
            return verdict
        (answer, unit), (expected, gold_unit) = measured(answer), measured(expected)
        if not unit_fits(unit, gold_unit, question):
            return _wrong(answer, f"a unit that was not asked for: {unit[:20]}")
        return _compared(answer, expected, question)

    def extract(self, text: str) -> str | None:
        found = final_answer(text)
        if found is None:
            return None
        answer = _without_name(normalised(found))
        number = measured_number(answer)
        return str(number[0]) if number else answer or None

    def gold_fault(self, gold: str) -> str:
        return "" if normalised(unwrapped(gold)) else "an empty answer"


def _without_name(answer: str) -> str:
    """`answer` without the `x =` in front of it."""
    return _ASSIGNED.sub("", answer, count=1) if _ASSIGNED.match(answer) else answer


def _as_words(answer: str, gold: str) -> Verdict | None:
    """The verdict where the reference is a letter or words; None where it is mathematics."""
    letter = _LETTER.fullmatch(_bare(gold))
    if letter is not None:
        given = _LETTER.fullmatch(_bare(_without_name(answer)))
        right = given is not None and given[1] == letter[1]
    elif measured(gold).unit or not (re.fullmatch(r"[A-Za-z ]{2,}", gold) or fault(_listed(gold))):
        return None
    else:
        right = plain_words(answer) == plain_words(gold)
    if right:
        return Verdict(Outcome.RIGHT, 1.0, answer)
    return _wrong(answer, "differs")


def _bare(text: str) -> str:
    return re.sub(r"\\text\{\s*([^{}]*?)\s*\}", r"\1", text)


def _compared(answer: str, gold: str, question: str) -> Verdict:
    if reason := fault(_listed(answer)):
        return _wrong(answer, f"not mathematics: {reason}")
    if repeats(answer, question, gold):
        return _wrong(answer, "repeats the question")
    try:
        outcome, reason = _reply(gold, answer)
    except CallFailed as error:
        return Verdict(Outcome.UNSCORED, None, answer, error.given)
    match outcome:
        case "right":
            return Verdict(Outcome.RIGHT, 1.0, answer)
        case "gold":
            return Verdict(Outcome.UNSCORED, None, answer, f"the reference answer is not readable: {reason}")
        case "answer":
            return _wrong(answer, f"not mathematics: {reason}")
        case _:
            return _wrong(answer, "differs")


@lru_cache(maxsize=1 << 14)
def _reply(gold: str, answer: str) -> tuple[str, str]:
    """What the worker says; remembered, because policies repeat themselves."""
    outcome, reason = worker().call(gold, answer)
    return outcome, reason


def _listed(text: str) -> str:
    """`text` with the `and` and `or` of a list as commas."""
    return re.sub(r"(?<![A-Za-z\\]),? ?(?:and|or)(?![A-Za-z])", ",", text)


def _wrong(answer: str | None, reason: str) -> Verdict:
    return Verdict(Outcome.WRONG, 0.0, answer, reason)


@cache
def worker() -> Killable:
    """The process that compares expressions, started at the first call."""
    from clew.tasks import math_worker

    if importlib.util.find_spec("math_verify") is None:
        given, accepted = "math-verify is not installed", "mathematical answers with it"
        raise MissingExtra(given, accepted, "python -m pip install 'clew[math]'")
    return Killable(math_worker.judge, seconds=SECONDS, cpu_seconds=CPU_SECONDS, memory_mib=2048, warm_up=_WARM_UP)
