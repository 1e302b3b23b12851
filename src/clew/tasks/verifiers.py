"""Verifiers of answers by name: what a data file may ask for, per file or per row."""

from __future__ import annotations

from typing import Protocol

from clew.core.errors import UnknownName
from clew.core.types import Verdict
from clew.tasks.code_verifiers import FunctionUnderTest, StandardStreams
from clew.tasks.exact_answer import Choice, Exact
from clew.tasks.math_answer import Math
from clew.tasks.number_verifier import Numbers


class AnswerVerifier(Protocol):
    """Judges a response against a reference answer. Never raises for any text, and ends in bounded time."""

    def judge(self, text: str, gold: str, question: str) -> Verdict:
        """The verdict on response `text` to `question`, whose reference answer is `gold`."""
        ...

    def extract(self, text: str) -> str | None:
        """The canonical answer that `text` gives, unjudged; None if it gives none."""
        ...

    def gold_fault(self, gold: str) -> str:
        """Why no answer could be judged against `gold`, in a few words; empty if answers can be."""
        ...


VERIFIERS: dict[str, AnswerVerifier] = {
    "choice": Choice(),
    "exact": Exact(),
    "function": FunctionUnderTest(),
    "math": Math(),
    "numbers": Numbers(),
    "stdio": StandardStreams(),
}


def make_verifier(name: str) -> AnswerVerifier:
    """The verifier called `name`."""
    if name not in VERIFIERS:
        raise UnknownName("verifier", name, VERIFIERS)
    return VERIFIERS[name]
