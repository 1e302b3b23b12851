"""Whole solutions sampled from the root: the first step of every strategy that does not look inside them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any

from clew.core.errors import InvalidValue
from clew.core.protocols import Candidate, Request, Sample
from clew.core.types import Problem, Sampling, State
from clew.search.record import BudgetExhausted


def sample_solutions(
    problem: Problem, n: int, sampling: Sampling, *, per_request: int | None = None
) -> Generator[Request, Any, list[Candidate]]:
    """`n` solutions of `problem`, or as many as the budget allows, asked for `per_request` at a time (None: all)."""
    root = State(problem)
    candidates: list[Candidate] = []
    with suppress(BudgetExhausted):
        while len(candidates) < n:
            num_next = min(per_request or n, n - len(candidates))
            (completions,) = yield Sample((root,), num_next, sampling, first_index=len(candidates))
            candidates += [Candidate(root.extend(completion), completion) for completion in completions]
    return candidates


def check_counts(n: int, per_request: int | None) -> None:
    """Raises `InvalidValue` unless both are positive."""
    if n < 1:
        raise InvalidValue("n", n, "an integer of at least 1", "use 1 for plain sampling")
    if per_request is not None and per_request < 1:
        raise InvalidValue("per_request", per_request, "an integer of at least 1, or none for all at once", "raise it")
