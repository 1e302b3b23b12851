"""What a task is: a stream of problems, split by a hash of the canonical problem, and their verifier."""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol

from clew.core.types import Problem, Verdict

Split = Literal["train", "validation", "test"]


def split_of(problem_id: str) -> Split:
    """The one split a problem belongs to, for ever: 80 % train, 5 % validation, 15 % test, by hash of its id."""
    bucket = int.from_bytes(hashlib.blake2b(problem_id.encode(), digest_size=4).digest(), "big") % 100
    if bucket < 80:
        return "train"
    return "validation" if bucket < 85 else "test"


class Task(Protocol):
    """Problems of one kind and their verifier. Implementations are frozen dataclasses of difficulty settings."""

    @property
    def name(self) -> str: ...

    def problems(self, split: Split, n: int, seed: int) -> list[Problem]:
        """`n` different problems of `split`, in an order that derives from `seed`."""
        ...

    def problem(self, metadata: dict[str, object]) -> Problem:
        """The problem with these public facts; raises `InvalidValue` if they are not acceptable."""
        ...

    def verify(self, problem: Problem, text: str) -> Verdict: ...

    def extract(self, text: str) -> str | None:
        """The canonical answer that `text` gives, without judging it; None if it gives none."""
        ...

    def difficulty(self, problem: Problem) -> str:
        """The name of the problem's difficulty bin, for reports."""
        ...
