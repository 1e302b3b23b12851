"""REBASE: reward-balanced search, a budget of children shared out by reward (arXiv 2408.00724)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, final

from clew.core.errors import InvalidValue, UnknownName
from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.allocation import nearest_shares, sequential_shares
from clew.search.guidance import Guide
from clew.search.paths import BY_LINE, Choose, Paths, check
from clew.search.record import BudgetExhausted
from clew.search.tree import Tree
from clew.stats.step_scores import Aggregation

Rounding = Literal["sequential", "nearest"]
"""How shares of the budget become numbers of children: so that all of it is spent, as the authors' code does; or each
to the nearest integer, as the paper has it, which spends more or less."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rebase:
    """Of the budget B, n less the paths that are finished, path j gets the share softmax(R_j / T) as next steps.

    Equal paths are kept: the more often a step was sampled, the more children its state gets, as in the paper.
    """

    n: int = 16
    temperature: float = 0.2
    """T: the lower, the more the best paths get."""
    rounding: Rounding = "sequential"
    sampling: Sampling = BY_LINE
    """How the next step is sampled, and where it ends."""
    guide: Guide = "scorer"
    """Who rates the steps. The verifier can only judge finished responses: to it unfinished ones are equals."""
    max_depth: int = 40
    """Steps of a path at most."""
    aggregation: Aggregation = "last"
    """How the scores of a path's steps become its value, while it grows and at the end."""
    choose: Choose = "best"

    def __post_init__(self) -> None:
        check(self, n=self.n)
        if not self.temperature > 0.0:
            raise InvalidValue("temperature", self.temperature, "a positive number", "use 0.2")
        if self.rounding not in ("sequential", "nearest"):
            raise UnknownName("rounding", self.rounding, ("sequential", "nearest"))

    @property
    def name(self) -> str:
        return "rebase"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        paths = Paths(Tree(problem), self)
        with suppress(BudgetExhausted):
            yield from self._grow(paths)
        return (yield from paths.answer())

    def _grow(self, paths: Paths) -> Generator[Request, Any, None]:
        leaves, counts, budget = [0], [self.n], self.n
        for _ in range(self.max_depth):
            children = yield from paths.grow(leaves, counts)
            leaves = paths.unfinished(children)
            budget -= len(children) - len(leaves)
            if not leaves or budget < 1:
                return
            counts = self._share_out([paths.value(leaf) for leaf in leaves], budget)

    def _share_out(self, rewards: list[float], budget: int) -> list[int]:
        if self.rounding == "nearest":
            counts = nearest_shares(rewards, budget, self.temperature)
            # Where every share rounds to nothing the search would die with a budget in hand.
            if any(counts):
                return counts
        return sequential_shares(rewards, budget, self.temperature)
