"""Diverse verifier tree search: many narrow trees instead of one beam (Beeching et al. 2024, search-and-learn)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.guidance import Guide
from clew.search.paths import BY_LINE, Choose, Paths, check
from clew.search.record import BudgetExhausted
from clew.search.tree import Tree
from clew.stats.step_scores import Aggregation


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dvts:
    """n/m trees that know nothing of each other: each samples m next steps and goes on from the best.

    A tree ends when its best step finishes the response. Finished steps that were not the best are candidates too.
    Trees that come to hold equal states go on with samples of their own.
    """

    n: int = 16
    m: int = 4
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
        check(self, n=self.n, m=self.m)
        if self.n % self.m:
            raise InvalidValue("n", self.n, f"a multiple of m, {self.m}", "n/m is the number of trees: change either")

    @property
    def name(self) -> str:
        return "dvts"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        paths = Paths(Tree(problem), self)
        with suppress(BudgetExhausted):
            yield from self._grow(paths)
        return (yield from paths.answer())

    def _grow(self, paths: Paths) -> Generator[Request, Any, None]:
        m, ends = self.m, [0] * (self.n // self.m)
        for _ in range(self.max_depth):
            children = yield from paths.grow(ends, [m] * len(ends))
            trees = [children[start : start + m] for start in range(0, len(children), m)]
            ends = paths.unfinished(paths.best(steps, 1)[0] for steps in trees)
            if not ends:
                return
