"""Best-of-N with a verifier that looks while it samples: as good, and cheaper by what it need not sample any more."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import result, sample_children
from clew.search.record import BudgetExhausted
from clew.search.solutions import best_node, check_counts, rate_solutions
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRight:
    """The first of up to `n` sampled solutions that the verifier accepts; asked for in waves that double their sum."""

    n: int = 64
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        check_counts(self.n, None)

    @property
    def name(self) -> str:
        return "first-right"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        solutions: list[int] = []
        with suppress(BudgetExhausted):
            while len(solutions) < self.n and not any(tree.score[node] == 1.0 for node in solutions):
                num_next = min(max(1, len(solutions)), self.n - len(solutions))
                (wave,) = yield from sample_children(tree, [0], num_next, self.sampling)
                solutions += wave
                yield from rate_solutions(tree, wave, "verifier")
        return result(tree, best_node(tree, solutions))
