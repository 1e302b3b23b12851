"""Thompson sampling in a tree: arms, and what each is worth, drawn from the posterior of its mean reward."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import final

from clew.core.errors import InvalidValue
from clew.search.leaves import Growth
from clew.search.tree import ROOT


@final
@dataclass(slots=True)
class Arm:
    """Rewards seen so far, by their sufficient statistics."""

    count: int = 0
    mean: float = 0.0
    spread: float = 0.0
    """Sum of squared differences from the mean, kept up by Welford's update: no cancellation for far-off rewards."""

    def observe(self, reward: float) -> None:
        self.count += 1
        off = reward - self.mean
        self.mean += off / self.count
        self.spread += off * (reward - self.mean)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """Normal rewards of unknown mean and variance under a Normal-inverse-chi-squared prior (Murphy 2023, 3.4.3.3)."""

    mean: float = 0.0
    kappa: float = 1.0
    """How many rewards the prior mean is worth."""
    nu: float = 1.0
    """How many rewards the prior variance is worth."""
    variance: float = 0.1

    def __post_init__(self) -> None:
        for name in ("kappa", "nu", "variance"):
            if not getattr(self, name) > 0.0:
                raise InvalidValue(name, getattr(self, name), "a positive number", "raise it")

    def draw(self, arm: Arm, stream: random.Random) -> float:
        """A mean reward drawn from its posterior."""
        n, kappa, nu = arm.count, self.kappa + arm.count, self.nu + arm.count
        mean = (self.kappa * self.mean + n * arm.mean) / kappa
        scaled = self.nu * self.variance + arm.spread + n * self.kappa * (self.mean - arm.mean) ** 2 / kappa
        chi_squared = 2.0 * stream.gammavariate(nu / 2.0, 1.0)
        return stream.gauss(mean, math.sqrt(scaled / (max(chi_squared, 1e-300) * kappa)))

    def check(self, reward: float) -> None:
        """Any number is a reward."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Beta:
    """Rewards from 0 to 1 as shares of successes; the default is Jeffreys' prior."""

    a: float = 0.5
    b: float = 0.5

    def __post_init__(self) -> None:
        for name in ("a", "b"):
            if not getattr(self, name) > 0.0:
                raise InvalidValue(name, getattr(self, name), "a positive number", "raise it")

    def draw(self, arm: Arm, stream: random.Random) -> float:
        """A rate of success drawn from its posterior."""
        successes = arm.count * arm.mean
        return stream.betavariate(self.a + successes, self.b + max(0.0, arm.count - successes))

    def check(self, reward: float) -> None:
        """Raises `InvalidValue` for a reward outside 0 to 1."""
        if not 0.0 <= reward <= 1.0:
            advice = "guide by the verifier, or use the Gaussian posterior"
            raise InvalidValue("a reward", reward, "a number from 0 to 1 under a Beta posterior", advice)


Posterior = Gaussian | Beta


@final
@dataclass(slots=True)
class Arms:
    """The arms of every node of a growing tree: sample a new child there, or go on below, and at which child."""

    posterior: Posterior
    stream: random.Random
    new: dict[int, Arm] = field(default_factory=lambda: defaultdict(Arm))
    """Rewards of the children sampled at each node."""
    below: dict[int, Arm] = field(default_factory=lambda: defaultdict(Arm))
    """Rewards of everything deeper than that."""
    through: dict[int, Arm] = field(default_factory=lambda: defaultdict(Arm))
    """Rewards of each node itself and of everything below it."""
    alive: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Children that may have children, of each node."""

    def place(self) -> int:
        """The node that the next step is sampled after."""
        node, draw = ROOT, self.posterior.draw
        while self.alive[node] and draw(self.new[node], self.stream) < draw(self.below[node], self.stream):
            node = max(self.alive[node], key=lambda child: draw(self.through[child], self.stream))
        return node

    def observe(self, growth: Growth, child: int, reward: float) -> None:
        self.posterior.check(reward)
        parent = growth.tree.parent
        node = parent[child]
        if child not in self.through and not growth.ended(child):
            self.alive[node].append(child)
        self.new[node].observe(reward)
        self.through[child].observe(reward)
        while node != ROOT:
            self.through[node].observe(reward)
            self.below[parent[node]].observe(reward)
            node = parent[node]
