"""Lookahead search: a beam whose steps are worth what they lead to (arXiv 2408.03314, section 5.2)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.beam import grow_beam
from clew.search.grow import sample_children
from clew.search.guidance import Guide
from clew.search.paths import BY_LINE, Choose, Paths, check
from clew.search.record import BudgetExhausted
from clew.search.tree import Tree
from clew.stats.step_scores import Aggregation


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Lookahead:
    """As `Beam`, with the score of a step taken at the end of `k` more steps that are rolled out greedily from it.

    Equal steps are rolled out once. What was rolled out stays in the tree below the step, but is no path of the beam:
    it answers only if no path is finished.
    """

    n: int = 16
    m: int = 4
    k: int = 3
    """Steps to look ahead; 0 is `Beam`."""
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
        if self.k < 0:
            raise InvalidValue("k", self.k, "an integer of at least 0", "use 0 for a beam that does not look ahead")

    @property
    def name(self) -> str:
        return "lookahead"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        paths = Paths(Tree(problem), self)
        steps: list[int] = []

        def rate(nodes: Sequence[int]) -> Generator[Request, Any, None]:
            steps.extend(nodes)
            yield from self._rate(paths, nodes)

        with suppress(BudgetExhausted):
            yield from grow_beam(paths, self.n, self.m, rate)
        return (yield from paths.answer([node for node in steps if paths.tree.states[node].finished]))

    def _rate(self, paths: Paths, nodes: Sequence[int]) -> Generator[Request, Any, None]:
        tree, greedy = paths.tree, replace(self.sampling, temperature=0.0)
        ends = paths.distinct(nodes)
        for _ in range(self.k):
            going = {
                tokens: node
                for tokens, node in ends.items()
                if not tree.states[node].finished and tree.depth[node] < self.max_depth
            }
            rows = yield from sample_children(tree, list(going.values()), 1, greedy)
            ends.update((tokens, end) for tokens, (end,) in zip(going, rows, strict=True))
        yield from paths.rate(list(ends.values()))
        for node in nodes:
            tree.score[node] = tree.score[ends[tree.states[node].tokens]]
