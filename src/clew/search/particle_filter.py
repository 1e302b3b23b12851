"""Particle filtering: paths are resampled in proportion to their reward's odds (arXiv 2502.01618, algorithm 1)."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, final

from clew.core.errors import UnknownName
from clew.core.protocols import Request, SearchResult
from clew.core.seeds import derive_seed
from clew.core.types import Problem, Sampling
from clew.search.allocation import logit, multinomial, softmax, systematic
from clew.search.guidance import Guide
from clew.search.paths import BY_LINE, Choose, Paths, check
from clew.search.record import BudgetExhausted
from clew.search.tree import Tree
from clew.stats.step_scores import Aggregation

Resampling = Literal["systematic", "multinomial"]
"""Particles at even distances along the weights, which adds the least noise; or each drawn on its own (its_hub)."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ParticleFilter:
    """`n` particles take a step each, are weighted by softmax(logit(value)), and are drawn anew by these weights.

    Finished particles stay in the population with their last weight, and may crowd others out. Values are to be
    probabilities; those below 0 or above 1 count as 0 or 1. Equal particles are kept: their number is their weight.
    """

    n: int = 16
    resampling: Resampling = "systematic"
    seed: int = 0
    """The draws derive from it, the problem and the step."""
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
        check(self, n=self.n)
        if self.resampling not in ("systematic", "multinomial"):
            raise UnknownName("resampling", self.resampling, ("systematic", "multinomial"))

    @property
    def name(self) -> str:
        return "particle-filter"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        paths = Paths(Tree(problem), self)
        with suppress(BudgetExhausted):
            yield from self._grow(paths)
        return (yield from paths.answer())

    def _grow(self, paths: Paths) -> Generator[Request, Any, None]:
        particles = [0] * self.n
        draw = systematic if self.resampling == "systematic" else multinomial
        for step in range(self.max_depth):
            going = paths.unfinished(particles)
            moved = iter((yield from paths.grow(going, [1] * len(going))))
            particles = [p if paths.tree.states[p].finished else next(moved) for p in particles]
            if not paths.unfinished(particles):
                return
            weights = softmax([logit(paths.value(particle)) for particle in particles])
            stream = random.Random(derive_seed(self.seed, paths.tree.problem.id, "resample", step))
            particles = [particles[place] for place in draw(weights, self.n, stream)]
