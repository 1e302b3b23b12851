"""Best-of-N with a guide that looks while it samples: as good, and cheaper by what it need not sample any more."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import result, sample_children
from clew.search.guidance import Guide
from clew.search.record import BudgetExhausted
from clew.search.solutions import best_node, check_counts, rate_solutions
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRight:
    """The first of up to `n` sampled solutions that the guide accepts; asked for in waves that double their sum.

    The verifier accepts what is right. A scorer accepts what it rates at least `accept`: best-of-n with a learned guide
    that stops once it is sure. If nothing is accepted, the best-rated solution is the answer.
    """

    n: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    guide: Guide = "verifier"
    accept: float = 1.0
    """Lowest rating that is accepted."""

    def __post_init__(self) -> None:
        check_counts(self.n, None)

    @property
    def name(self) -> str:
        return "first-right"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        solutions: list[int] = []
        with suppress(BudgetExhausted):
            while len(solutions) < self.n and not any(tree.score[node] >= self.accept for node in solutions):
                num_next = min(max(1, len(solutions)), self.n - len(solutions))
                (wave,) = yield from sample_children(tree, [0], num_next, self.sampling)
                solutions += wave
                yield from rate_solutions(tree, wave, self.guide)
        return result(tree, best_node(tree, solutions))
