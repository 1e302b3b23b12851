"""Tree of thoughts, breadth first and depth first (arXiv 2305.10601, algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.guidance import Guide
from clew.search.paths import BY_LINE, Choose, Paths, check
from clew.search.record import BudgetExhausted
from clew.search.tree import Tree
from clew.stats.step_scores import Aggregation


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TreeOfThoughtsBfs:
    """Each level samples m thoughts of each of its `b` states and keeps the b best.

    Finished states compete too, and stay as they are. Equal states are kept once.
    """

    b: int = 5
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
        check(self, b=self.b, m=self.m)

    @property
    def name(self) -> str:
        return "tot-bfs"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        paths = Paths(Tree(problem), self)
        with suppress(BudgetExhausted):
            yield from self._grow(paths)
        return (yield from paths.answer())

    def _grow(self, paths: Paths) -> Generator[Request, Any, None]:
        states = [0]
        for _ in range(self.max_depth):
            going = paths.unfinished(states)
            if not going:
                return
            thoughts = yield from paths.grow(going, [self.m] * len(going))
            ended = [state for state in states if state not in going]
            states = paths.best([*ended, *thoughts], self.b)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TreeOfThoughtsDfs:
    """Follow the most promising thought first; prune those not above the threshold, and track back when none is left.

    Ends with the `n`th finished response above the threshold. Equal thoughts are followed once. The verifier as guide
    prunes finished responses only.
    """

    n: int = 1
    m: int = 4
    threshold: float = 0.5
    """v_th, on the scale of the guide's scores."""
    max_nodes: int = 128
    """Thoughts sampled at most."""
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
        check(self, n=self.n, m=self.m, max_nodes=self.max_nodes)

    @property
    def name(self) -> str:
        return "tot-dfs"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        paths = Paths(Tree(problem), self)
        found: list[int] = []
        with suppress(BudgetExhausted):
            yield from self._grow(paths, found)
        return (yield from paths.answer(found))

    def _grow(self, paths: Paths, found: list[int]) -> Generator[Request, Any, None]:
        tree, stack = paths.tree, [0]
        while stack and len(found) < self.n:
            state, left = stack.pop(), self.max_nodes + 1 - len(tree)
            if tree.states[state].finished:
                found.append(state)
            elif tree.depth[state] < self.max_depth and left > 0:
                thoughts = yield from paths.grow([state], [min(self.m, left)])
                ranked = paths.best(thoughts, self.m)
                stack += reversed([thought for thought in ranked if self._promising(paths, thought)])

    def _promising(self, paths: Paths, thought: int) -> bool:
        unjudged = self.guide == "verifier" and not paths.tree.states[thought].finished
        return unjudged or paths.value(thought) > self.threshold
