"""Step labels by Monte Carlo roll-outs from every step (Math-Shepherd, arXiv 2312.08935, section 3.3)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, SearchResult
from clew.core.types import Outcome, Problem
from clew.reward.label_tree import LabelTree, Solutions
from clew.search.record import BudgetExhausted


def soft_label(outcomes: Sequence[Outcome]) -> float | None:
    """Share of the roll-outs that are right, of those that could be judged; None if none could (equation 4).

    >>> soft_label([Outcome.RIGHT, Outcome.WRONG, Outcome.UNSCORED])
    0.5
    """
    scored = [outcome for outcome in outcomes if outcome is not Outcome.UNSCORED]
    return sum(outcome is Outcome.RIGHT for outcome in scored) / len(scored) if scored else None


def hard_label(outcomes: Sequence[Outcome]) -> float | None:
    """1 if any roll-out is right, else 0; None if none could be judged (equation 3)."""
    share = soft_label(outcomes)
    return None if share is None else float(share > 0.0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MonteCarlo:
    """Rolls every solution out `k` times from each of its steps: a search whose tree holds the labels.

    Steps that several solutions of a problem share are rolled out once. All steps of all problems that are searched
    together, and have about as much room left, are one batch.
    """

    k: int = 8
    """Roll-outs a step."""
    solutions: Solutions = field(default_factory=Solutions)

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InvalidValue("k", self.k, "an integer of at least 1", "use 8, as Math-Shepherd does")

    @property
    def name(self) -> str:
        return "monte-carlo"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        labelled = LabelTree.of(problem, self.solutions)
        with suppress(BudgetExhausted):
            rollouts = yield from labelled.begin()
            paths = yield from labelled.grow(rollouts)
            yield from labelled.measure([node for path in paths for node in path], self.k)
        return labelled.result()
