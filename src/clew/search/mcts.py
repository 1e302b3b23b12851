"""Monte Carlo tree search: select, expand, evaluate, back up (arXiv 2309.15028; RAP, arXiv 2305.14992; roadmap 5.3.1).

One search for tokens, steps and whole solutions: `sampling` says what a step is.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.protocols import Request, SearchResult
from clew.core.seeds import derive_seed
from clew.core.types import Problem, Sampling
from clew.search.guidance import Guide
from clew.search.leaves import Choose, Evaluate, Evaluation, Growth, answer, check_positive, most_visited_line
from clew.search.record import BudgetExhausted
from clew.search.rules import Puct, Rule, Uct
from clew.search.selection import with_noise
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mcts:
    """Each iteration evaluates the leaf that `rule` leads to, or a first child of it if it was evaluated before."""

    rule: Rule = field(default_factory=Uct)
    iterations: int = 64
    """Evaluations that are backed up; a finished response that is met again costs nothing."""
    width: int = 4
    """Steps sampled where a node is expanded; equal ones are one child."""
    max_depth: int = 16
    """Steps from the root beyond which no node is expanded."""
    evaluate: Evaluate = "rollout"
    guide: Guide = "verifier"
    leaves_in_flight: int = 1
    """Leaves selected before any of them is evaluated: all are sampled, and then all are rated, in one request."""
    sampling: Sampling = field(default_factory=Sampling)
    rollout: Sampling = field(default_factory=Sampling)
    """How a leaf is continued to the end of its response."""
    choose: Choose = "value"
    seed: int = 0
    """Noise derives from it."""

    def __post_init__(self) -> None:
        check_positive(iterations=self.iterations, width=self.width, leaves_in_flight=self.leaves_in_flight)
        self._evaluation()

    @property
    def name(self) -> str:
        return f"mcts-{self.rule.name}"

    def _evaluation(self) -> Evaluation:
        return Evaluation(by=self.evaluate, guide=self.guide, rollout=self.rollout, max_depth=self.max_depth)

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        growth = Growth(tree=Tree(problem), sampling=self.sampling, evaluation=self._evaluation())
        with suppress(BudgetExhausted):
            yield from growth.expand([0], self.width)
            self._add_noise(growth)
            done = 0
            while done < self.iterations:
                leaves, met = self._select(growth, self.iterations - done)
                try:
                    yield from growth.simulate(leaves, self.width, self.rule.pick)
                finally:
                    for node in leaves:
                        growth.tree.hold(node, -1)
                done += len(leaves) + met
        return (yield from answer(growth, self.choose, most_visited_line(growth)))

    def _select(self, growth: Growth, iterations: int) -> tuple[list[int], int]:
        """Leaves to evaluate together, each held; and how many were met on the way whose value was there."""
        leaves: list[int] = []
        met = 0
        while len(leaves) < self.leaves_in_flight and len(leaves) + met < iterations:
            node = 0
            while node in growth.branches:
                node = self.rule.pick(growth, node)
            if growth.meet(node):
                met += 1
            elif node in leaves:
                break  # Everything leads to a leaf that is under way: its value is needed to go on.
            else:
                growth.tree.hold(node)
                leaves.append(node)
        return leaves, met

    def _add_noise(self, growth: Growth) -> None:
        if isinstance(self.rule, Puct) and self.rule.noise:
            tree, steps = growth.tree, growth.branches[0]
            stream = random.Random(derive_seed(self.seed, tree.problem.id, "root noise"))
            noisy = with_noise([tree.prior[node] for node in steps], self.rule.noise, self.rule.alpha, stream)
            for node, prior in zip(steps, noisy, strict=True):
                tree.prior[node] = prior
