"""Revision with feedback from the environment: Self-Debug (arXiv 2304.05128); sequential revisions (arXiv 2408.03314).

The strategy **looks at the environment**: every attempt is judged, and the policy is told the reason of the verdict (a
failed test, a wrong value). What it is told is the verdict's `reason` and nothing else of the environment.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import rate_nodes, sample_children
from clew.search.record import BudgetExhausted
from clew.search.revision import (
    Exchange,
    best,
    check_at_least,
    conversation,
    fill,
    outcome,
    reason,
    respond,
    written,
)
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Revise:
    """Answer, hear from the environment what is wrong, answer again: up to `rounds` revisions, until one is right."""

    rounds: int = 3
    sampling: Sampling = field(default_factory=Sampling)
    feedback: str = "That is not right: {reason}. Find the mistake, then give the whole answer anew."
    """What the policy is told about an attempt; `{reason}` stands for the verdict's."""
    memory: int = 4
    """How many earlier attempts, with their feedback, the policy sees when it revises."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "rounds")
        check_at_least(self, 1, "memory")

    @property
    def name(self) -> str:
        return "revise"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        attempts: list[int] = []
        history: list[Exchange] = []
        with suppress(BudgetExhausted):
            (attempts,) = yield from sample_children(tree, [0], 1, self.sampling)
            while True:
                last = attempts[-1]
                yield from rate_nodes(tree, [last], "verifier")
                if (last in tree.verdicts and tree.verdicts[last].right) or len(attempts) > self.rounds:
                    break
                (response,) = yield from written(tree, [last])
                history.append(Exchange(response, fill(self.feedback, reason=reason(tree, last))))
                asked = conversation(problem, history[-self.memory :])
                attempts += yield from respond(tree, [last], [asked], self.sampling)
        # Of equals the last: it had the most to go by.
        return outcome(tree, attempts, best(tree, attempts[::-1]))
