"""Paths of steps: what every tree search without visits does at each level, and how it answers at the end.

Steps that turn out the same are nodes of their own, because each was sampled and paid for, but their state is rated
once. A strategy that keeps the best paths keeps equal ones once; one that samples in proportion to scores keeps all.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Literal, Protocol, final, get_args

from clew.core.errors import InvalidValue, UnknownName
from clew.core.protocols import Request, SearchResult
from clew.core.types import Sampling
from clew.search.grow import extract_nodes, rate_nodes, result, sample_children
from clew.search.guidance import Guide
from clew.search.record import BudgetExhausted
from clew.search.tree import Tree
from clew.stats.step_scores import AGGREGATIONS, Aggregation, aggregate
from clew.stats.vote import weighted_vote

Choose = Literal["best", "vote"]
"""The answer is the finished path of the highest value; or the best of those that give the answer whose paths have the
greatest sum of values, which then must not be negative (weighted best-of-N)."""

BY_LINE = Sampling(step_ends=("\n",))
"""A step is a line."""


class PathSettings(Protocol):
    """Settings that all these strategies have."""

    @property
    def sampling(self) -> Sampling: ...
    @property
    def guide(self) -> Guide: ...
    @property
    def max_depth(self) -> int: ...
    @property
    def aggregation(self) -> Aggregation: ...
    @property
    def choose(self) -> Choose: ...


@final
@dataclass(frozen=True, slots=True)
class Paths:
    """The tree of one search; a path is named by its last node."""

    tree: Tree
    settings: PathSettings

    def grow(self, nodes: Sequence[int], counts: Iterable[int]) -> Generator[Request, Any, list[int]]:
        """That many next steps of each of `nodes`, rated; in order."""
        children = yield from self.sample(nodes, counts)
        yield from self.rate(children)
        return children

    def sample(self, nodes: Sequence[int], counts: Iterable[int]) -> Generator[Request, Any, list[int]]:
        """As `grow`, unrated."""
        repeated = list(chain.from_iterable(map(repeat, nodes, counts)))
        rows = yield from sample_children(self.tree, repeated, 1, self.settings.sampling)
        return [child for (child,) in rows]

    def rate(self, nodes: Sequence[int]) -> Generator[Request, Any, None]:
        """The guide's score of each of `nodes`; of equal states only the first is shown to it."""
        states, score, first = self.tree.states, self.tree.score, self.distinct(nodes)
        yield from rate_nodes(self.tree, list(first.values()), self.settings.guide)
        for node in nodes:
            score[node] = score[first[states[node].tokens]]

    def value(self, node: int) -> float:
        """The score of the path: its steps' scores together. The environment's verdict is on all of it already."""
        score = self.tree.score[node]
        if math.isnan(score):
            return -math.inf
        if self.settings.aggregation == "last" or self.settings.guide == "verifier":
            return score
        return aggregate(self.tree.scores_on(node), self.settings.aggregation)

    def distinct(self, nodes: Iterable[int]) -> dict[tuple[int, ...], int]:
        """The first of `nodes` for each different state, by its tokens."""
        first: dict[tuple[int, ...], int] = {}
        for node in nodes:
            first.setdefault(self.tree.states[node].tokens, node)
        return first

    def unfinished(self, nodes: Iterable[int]) -> list[int]:
        return [node for node in nodes if not self.tree.states[node].finished]

    def best(self, nodes: Iterable[int], num: int) -> list[int]:
        """The `num` of `nodes` with the highest values, best first; equal states count once, of equal values the first
        is taken."""
        return sorted(self.distinct(nodes).values(), key=self.value, reverse=True)[:num]

    def answer(self, among: Sequence[int] = ()) -> Generator[Request, Any, SearchResult]:
        """The path that `choose` picks `among` these; without any, of all finished ones; without any, of those that
        were cut off at `max_depth`."""
        tree, depth = self.tree, self.settings.max_depth
        paths = list(among or tree.finished()) or [node for node in tree.leaves() if tree.depth[node] == depth]
        with suppress(BudgetExhausted):
            yield from self.rate([node for node in paths if math.isnan(tree.score[node])])
        if self.settings.choose == "vote":
            answers = yield from extract_nodes(tree, paths)
            weights = [0.0 if math.isnan(tree.score[node]) else self.value(node) for node in paths]
            winner = weighted_vote(answers, weights)
            paths = [node for node in paths if tree.answers[node] == winner]
        return result(tree, max(paths, key=self.value, default=None))


def check(settings: PathSettings, **counts: int) -> None:
    """Raises `InvalidValue` unless all counts are positive, `UnknownName` for a choice that does not exist."""
    for name, value in (*counts.items(), ("max_depth", settings.max_depth)):
        if value < 1:
            raise InvalidValue(name, value, "an integer of at least 1", "raise it")
    for name, known in (("guide", get_args(Guide)), ("choose", get_args(Choose)), ("aggregation", AGGREGATIONS)):
        if getattr(settings, name) not in known:
            raise UnknownName(name, getattr(settings, name), known)
