"""Best-first and A* search over steps: always go on from the state that promises most (roadmap section 5.3)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Literal, final

from clew.core.errors import InvalidValue, UnknownName
from clew.core.protocols import Request, SearchResult
from clew.core.types import Completion, Problem, Sampling
from clew.search.guidance import Guide
from clew.search.paths import BY_LINE, Choose, Paths, check
from clew.search.record import BudgetExhausted
from clew.search.tree import Tree
from clew.stats.step_scores import Aggregation

PathReward = Literal["none", "logprob"]
"""g of a state: 0, or the sum of the log-probs of its tokens."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BestFirst:
    """Expand the state with the largest f = g + w h, until `n` finished ones were the largest; h is the guide's value.

    With g and an h that never promises less than is to be had, the first finished one is the best there is (A*); the
    tree is that of the m samples a state. A state is expanded once, and an equal one never.
    """

    n: int = 1
    """Finished responses to find; of equal f the one that was sampled first is taken first."""
    m: int = 4
    """Next steps sampled of the state that is expanded."""
    expansions: int = 64
    """States expanded at most."""
    g: PathReward = "none"
    weight: float = 1.0
    """w: above 1 the search trusts the guide more than what a path has cost so far."""
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
        check(self, n=self.n, m=self.m, expansions=self.expansions)
        if not self.weight >= 0.0:
            raise InvalidValue("weight", self.weight, "a number of at least 0", "use 1")
        if self.g not in ("none", "logprob"):
            raise UnknownName("g", self.g, ("none", "logprob"))

    @property
    def name(self) -> str:
        return "best-first"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        paths = Paths(Tree(problem), self)
        found: list[int] = []
        with suppress(BudgetExhausted):
            yield from self._grow(paths, found)
        return (yield from paths.answer(found))

    def _grow(self, paths: Paths, found: list[int]) -> Generator[Request, Any, None]:
        tree, left = paths.tree, self.expansions
        frontier, g, seen = [(0.0, 0)], {0: 0.0}, set[tuple[int, ...]]()
        while frontier and len(found) < self.n:
            _, node = heappop(frontier)
            if tree.states[node].finished:
                found.append(node)
            elif left == 0:
                return
            elif tree.depth[node] < self.max_depth:
                left -= 1
                for child in (yield from paths.grow([node], [self.m])):
                    tokens = tree.states[child].tokens
                    if tokens not in seen:
                        seen.add(tokens)
                        g[child] = g[node] + (_logprob(tree.completions[child]) if self.g == "logprob" else 0.0)
                        heappush(frontier, (-(g[child] + self.weight * paths.value(child)), child))


def _logprob(completion: Completion | None) -> float:
    if completion is None or completion.logprobs is None:
        accepted = "completions that carry the log-prob of each token"
        raise InvalidValue("log-probs of the policy's completion", None, accepted, 'use g="none"')
    return sum(completion.logprobs)
