"""Best-of-N: sample N solutions, keep the one the guide likes best (roadmap section 5.2; arXiv 2110.14168)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import result
from clew.search.guidance import Guide
from clew.search.record import BudgetExhausted
from clew.search.solutions import best_node, check_counts, rate_solutions, sample_solutions
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfN:
    """Of `n` sampled solutions the one with the highest score; of equals the first."""

    n: int = 16
    sampling: Sampling = field(default_factory=Sampling)
    guide: Guide = "verifier"
    per_request: int | None = None
    """Solutions asked for at a time; a smaller number lets a budget bite earlier. None asks for all at once."""

    def __post_init__(self) -> None:
        check_counts(self.n, self.per_request)

    @property
    def name(self) -> str:
        return "best-of-n"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        solutions = yield from sample_solutions(tree, self.n, self.sampling, per_request=self.per_request)
        # Unrated solutions are equals: the first is what plain sampling would have answered.
        with suppress(BudgetExhausted):
            yield from rate_solutions(tree, solutions, self.guide)
        return result(tree, best_node(tree, solutions))
