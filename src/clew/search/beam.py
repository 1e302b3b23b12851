"""Beam search over steps, guided by a process reward (arXiv 2408.03314, section 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.allocation import even_shares
from clew.search.guidance import Guide
from clew.search.paths import BY_LINE, Choose, Paths, check
from clew.search.record import BudgetExhausted
from clew.search.tree import Tree
from clew.stats.step_scores import Aggregation

Rate = Callable[[Sequence[int]], Generator[Request, Any, None]]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """`n` paths at a time: the n/m best are kept, and m next steps sampled for each.

    A path that finishes is set apart as a candidate and takes its place with it. Equal paths are kept once; the places
    are shared evenly by the paths that are kept.
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

    @property
    def name(self) -> str:
        return "beam"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        paths = Paths(Tree(problem), self)
        with suppress(BudgetExhausted):
            yield from grow_beam(paths, self.n, self.m, paths.rate)
        return (yield from paths.answer())


def grow_beam(paths: Paths, n: int, m: int, rate: Rate) -> Generator[Request, Any, None]:
    """Steps 1 to 4 of the paper's list, until every path is finished or at its greatest depth."""
    beam, width = [0], n
    for _ in range(paths.settings.max_depth):
        children = yield from paths.sample(beam, even_shares(width, len(beam)))
        yield from rate(children)
        unfinished = paths.unfinished(children)
        width = len(unfinished)
        if width == 0:
            return
        beam = paths.best(unfinished, -(-width // m))
