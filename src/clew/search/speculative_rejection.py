"""Speculative rejection: best-of-N that gives up on what looks bad half-way (arXiv 2410.20290)."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import rate_nodes, result, sample_children
from clew.search.guidance import Guide
from clew.search.record import BudgetExhausted
from clew.search.solutions import best_node, check_counts
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculativeRejection:
    """`n` responses written burst by burst; after each the share `alpha` of them with the lowest scores is dropped.

    Finished responses are ranked among the others. They need no more tokens, and so all of them, dropped or not, can be
    the answer: that of the highest score. Without any, the best of those that were cut off at `max_depth`. Of equal
    scores the earlier sampled stays. A round that would drop nobody asks for no scores.
    """

    n: int = 16
    alpha: float = 0.5
    """Share of the responses that a round drops, rounded down; 0 is best-of-N."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=48))
    """How a burst is sampled; its `max_tokens` are the length of one (the paper's: as many as fit into memory)."""
    max_depth: int = 16
    """Bursts of a response at most."""
    guide: Guide = "scorer"
    """Who rates. The verifier can only judge finished responses: to it unfinished ones are equals."""

    def __post_init__(self) -> None:
        check_counts(self.n, None)
        if not 0.0 <= self.alpha < 1.0:
            raise InvalidValue("alpha", self.alpha, "a share of at least 0 and below 1", "use 0.5 to halve each time")
        if self.max_depth < 1:
            raise InvalidValue("max_depth", self.max_depth, "an integer of at least 1", "raise it")

    @property
    def name(self) -> str:
        return "speculative-rejection"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        race = [0] * self.n
        with suppress(BudgetExhausted):
            for _ in range(self.max_depth):
                race = yield from self._burst(tree, race)
                if all(tree.states[node].finished for node in race):
                    break
                race = yield from self._survivors(tree, race)
        ended = list(tree.finished()) or [node for node in race if node != 0]
        with suppress(BudgetExhausted):
            yield from self._rate(tree, ended)
        return result(tree, best_node(tree, ended))

    def _burst(self, tree: Tree, race: Sequence[int]) -> Generator[Request, Any, list[int]]:
        """The race after one more burst of everyone who has not finished, in the same order."""
        going = [node for node in race if not tree.states[node].finished]
        rows = yield from sample_children(tree, going, 1, self.sampling)
        further = iter(rows)
        return [node if tree.states[node].finished else next(further)[0] for node in race]

    def _survivors(self, tree: Tree, race: Sequence[int]) -> Generator[Request, Any, list[int]]:
        # A share that decimals cannot say exactly must not lose one: 0.29 of 100 is 29.
        num_dropped = math.floor(self.alpha * len(race) + 1e-9)
        if num_dropped == 0:
            return list(race)
        yield from self._rate(tree, race)
        ranked = sorted(race, key=lambda node: tree.score[node], reverse=True)
        kept = set(ranked[: len(race) - num_dropped])
        return [node for node in race if node in kept]

    def _rate(self, tree: Tree, nodes: Iterable[int]) -> Generator[Request, Any, None]:
        yield from rate_nodes(tree, [node for node in nodes if math.isnan(tree.score[node])], self.guide)
