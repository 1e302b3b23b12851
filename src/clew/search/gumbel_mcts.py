"""Gumbel MCTS: Sequential Halving over the first steps, a deterministic improved policy below (Danihelka 2022; mctx).

The actions of a language model cannot be listed: the first steps considered are samples of the policy, and noise,
logits and values then decide among them as in algorithm 2 of the paper.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, final

from clew.core.protocols import Request, SearchResult
from clew.core.seeds import derive_seed
from clew.core.types import Problem, Sampling
from clew.search.guidance import Guide
from clew.search.leaves import Choose, Evaluate, Evaluation, Growth, answer, check_positive, most_visited_line
from clew.search.record import BudgetExhausted
from clew.search.rules import gumbel_sigma, pick_improved
from clew.search.selection import gumbels, halving_schedule, log
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GumbelMcts:
    """Halves the first steps by g + logit + sigma(completed Q), so that few simulations still find the better step."""

    iterations: int = 64
    """Simulations; a finished response that is met again costs nothing."""
    considered: int = 16
    """First steps sampled; equal ones are one."""
    width: int = 4
    """Steps sampled where another node is expanded."""
    max_depth: int = 16
    """Steps from the root beyond which no node is expanded."""
    evaluate: Evaluate = "rollout"
    guide: Guide = "verifier"
    leaves_in_flight: int = 1
    """Leaves evaluated together, each below another first step; 1 is the sequential search of the paper."""
    sampling: Sampling = field(default_factory=Sampling)
    rollout: Sampling = field(default_factory=Sampling)
    """How a leaf is continued to the end of its response."""
    choose: Choose = "value"
    seed: int = 0
    """Gumbel noise derives from it."""

    def __post_init__(self) -> None:
        check_positive(iterations=self.iterations, considered=self.considered, width=self.width)
        check_positive(leaves_in_flight=self.leaves_in_flight)
        self._evaluation()

    @property
    def name(self) -> str:
        return "gumbel-mcts"

    def _evaluation(self) -> Evaluation:
        return Evaluation(by=self.evaluate, guide=self.guide, rollout=self.rollout, max_depth=self.max_depth)

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        growth = Growth(tree=Tree(problem), sampling=self.sampling, evaluation=self._evaluation())
        noise = gumbels(self.considered, random.Random(derive_seed(self.seed, problem.id, "gumbel")))
        with suppress(BudgetExhausted):
            yield from growth.expand([0], self.considered)
            schedule = halving_schedule(len(growth.branches[0]), self.iterations)
            while schedule:
                block = list(takewhile(lambda visits: visits == schedule[0], schedule[: self.leaves_in_flight]))
                del schedule[: len(block)]
                first = _ranked(growth, noise, block[0])[: len(block)]
                leaves = [_descend(growth, node) for node in first]
                yield from growth.simulate([n for n in leaves if not growth.meet(n)], self.width, pick_improved)
        return (yield from answer(growth, self.choose, self._line(growth, noise)))

    def _line(self, growth: Growth, noise: list[float]) -> list[int]:
        """The first step that the halving left over, and the most visited steps after it."""
        steps = growth.branches.get(0, [])
        if not steps:
            return [0]
        most = max(growth.tree.visits[node] for node in steps)
        return [0, *most_visited_line(growth, _ranked(growth, noise, most)[0])]


def _ranked(growth: Growth, noise: list[float], visits: int) -> list[int]:
    """First steps visited `visits` times, the one with the largest g + logit + sigma(completed Q) before all others."""
    tree, steps = growth.tree, growth.branches[0]
    scores = {n: g + log(tree.prior[n]) + s for n, g, s in zip(steps, noise, gumbel_sigma(growth, 0), strict=False)}
    return sorted((n for n in steps if tree.visits[n] == visits), key=lambda n: -scores[n])


def _descend(growth: Growth, node: int) -> int:
    while node in growth.branches:
        node = pick_improved(growth, node)
    return node
