"""A task whose judgements of equal texts are remembered: verifiers are functions of problem and text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

from clew.core.types import Outcome, Problem, Verdict
from clew.evaluate.unscored import UnscoredGuard
from clew.search.serve import Judge


def numbered(verdict: Verdict) -> Verdict:
    """`verdict`, or unscored where its value is no finite number: that verifier failed, the answer is not wrong.

    >>> numbered(Verdict(Outcome.RIGHT, math.nan)).reason
    'the verifier gave nan'
    """
    if verdict.value is None or math.isfinite(verdict.value):
        return verdict
    return Verdict(Outcome.UNSCORED, None, verdict.answer, f"the verifier gave {verdict.value}")


@final
@dataclass(slots=True)
class MemoJudge:
    """Judges each text of a problem once. The count of verifier calls is the caller's and is not lowered by this.

    Raises `TooManyUnscored` when the verifier fails on more answers than the guard allows.
    """

    task: Judge
    guard: UnscoredGuard = field(default_factory=UnscoredGuard)
    _verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict, init=False, repr=False)
    _answers: dict[str, str | None] = field(default_factory=dict, init=False, repr=False)

    def verify(self, problem: Problem, text: str) -> Verdict:
        key = (problem.id, text)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = numbered(self.task.verify(problem, text))
        return self.guard.see(verdict)

    def extract(self, text: str) -> str | None:
        if text not in self._answers:
            self._answers[text] = self.task.extract(text)
        return self._answers[text]
