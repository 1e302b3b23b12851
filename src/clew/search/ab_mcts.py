"""AB-MCTS-A: at each node Thompson sampling decides between a new child and going on below (arXiv 2503.04412).

The arms and the prior of their rewards are in `thompson.py`.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.protocols import Request, SearchResult
from clew.core.seeds import derive_seed
from clew.core.types import Problem, Sampling
from clew.search.guidance import Guide
from clew.search.leaves import Choose, Evaluate, Evaluation, Growth, answer, check_positive, most_visited_line
from clew.search.record import BudgetExhausted
from clew.search.thompson import Arms, Gaussian, Posterior
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AbMcts:
    """Each iteration samples one step where Thompson sampling leads: wider where new steps are good, else deeper."""

    posterior: Posterior = field(default_factory=Gaussian)
    iterations: int = 64
    """Steps sampled."""
    max_depth: int = 16
    """Steps from the root beyond which no node gets children."""
    evaluate: Evaluate = "rollout"
    guide: Guide = "verifier"
    leaves_in_flight: int = 1
    """Steps sampled and rated in one request; the draws that place them see the same rewards."""
    sampling: Sampling = field(default_factory=Sampling)
    rollout: Sampling = field(default_factory=Sampling)
    """How a step is continued to the end of its response."""
    choose: Choose = "value"
    seed: int = 0
    """Thompson draws derive from it."""

    def __post_init__(self) -> None:
        check_positive(iterations=self.iterations, leaves_in_flight=self.leaves_in_flight)
        self._evaluation()

    @property
    def name(self) -> str:
        return "ab-mcts"

    def _evaluation(self) -> Evaluation:
        return Evaluation(by=self.evaluate, guide=self.guide, rollout=self.rollout, max_depth=self.max_depth)

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        growth = Growth(tree=Tree(problem), sampling=self.sampling, evaluation=self._evaluation())
        arms = Arms(self.posterior, random.Random(derive_seed(self.seed, problem.id, "thompson")))
        with suppress(BudgetExhausted):
            for done in range(0, self.iterations, self.leaves_in_flight):
                num = min(self.leaves_in_flight, self.iterations - done)
                yield from self._sample(growth, arms, [arms.place() for _ in range(num)])
        return (yield from answer(growth, self.choose, most_visited_line(growth)))

    def _sample(self, growth: Growth, arms: Arms, parents: Sequence[int]) -> Generator[Request, Any, None]:
        children = [child for (child,) in (yield from growth.expand(parents, 1))]
        # A step that was sampled before has its value already, unless another rollout could tell more.
        unknown = [child for child in dict.fromkeys(children) if growth.known(child) is None]
        evaluated = dict(zip(unknown, (yield from growth.evaluate(unknown)), strict=True))
        for child in children:
            place, value = evaluated.get(child, (child, growth.values[child]))
            growth.backup(place, value)
            arms.observe(growth, child, value)
