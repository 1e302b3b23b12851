"""Which difficulty to pose next, where the policy learns most: a bandit over settings of a task.

An arm is a setting; its gain is the learning signal p (1 - p) of problems posed with it, which moves as the policy
learns. Thompson sampling on discounted means: each problem draws a plausible signal for every arm and takes the
highest, so arms share a round by how likely each is the best, and an arm that was too hard is tried again in time.
(Discounted Thompson sampling: Raj and Kalyani 2017, arXiv 1707.09727; p (1 - p) as the signal: e.g. arXiv 2504.03380.)
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self, final

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed

LARGEST_SIGNAL = 0.25
"""p (1 - p) at p = 1/2."""
SPREAD = 0.15
"""Standard deviation that one problem's estimated signal is taken to have."""


class Arm(NamedTuple):
    """What is known of one setting: discounted sum and number of the signals seen."""

    total: float = 0.0
    seen: float = 0.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The bandit as a value: `shares` says what to pose, `after_round` gives the next one."""

    arms: tuple[Arm, ...]
    discount: float = 0.7
    """Share of what is known that counts after another round; 1 for a policy that stands still."""
    prior: float = 1.0
    """Problems that the prior counts as; it expects the largest signal, so that every arm is tried."""

    def __post_init__(self) -> None:
        if not self.arms:
            raise InvalidValue("settings to choose from", 0, "at least one", "name some")
        if not 0.0 < self.discount <= 1.0:
            raise InvalidValue("discount", self.discount, "a share above 0 up to 1", "use 1 to forget nothing")
        if not 0.0 < self.prior < math.inf:
            raise InvalidValue("prior", self.prior, "a positive number of problems", "use 1")

    @classmethod
    def over(cls, arms: int, **settings: float) -> Self:
        """Nothing known of so many arms."""
        return cls(arms=(Arm(),) * arms, **settings)

    def mean(self, arm: int) -> float:
        """Expected signal of an arm: the largest there is, until it was tried."""
        total, seen = self.arms[arm]
        return (total + self.prior * LARGEST_SIGNAL) / (seen + self.prior)

    def shares(self, n: int, *, seed: int) -> list[int]:
        """How many of `n` problems to pose with each arm; the same seed gives the same shares."""
        if n < 0:
            raise InvalidValue("number of problems", n, "an integer of at least 0", "raise it")
        rng = random.Random(derive_seed(seed, "frontier"))
        deviations = [SPREAD / math.sqrt(seen + self.prior) for _, seen in self.arms]
        means = [self.mean(arm) for arm in range(len(self.arms))]
        counts = [0] * len(self.arms)
        for _ in range(n):
            drawn = [rng.gauss(mean, deviation) for mean, deviation in zip(means, deviations, strict=True)]
            counts[drawn.index(max(drawn))] += 1
        return counts

    def after_round(self, seen: Iterable[tuple[int, float]]) -> Frontier:
        """What is known after a round with these (arm, `clew.scale.curriculum.sampled_signal`) pairs, one a problem."""
        arms = [Arm(self.discount * arm.total, self.discount * arm.seen) for arm in self.arms]
        for place, signal in seen:
            if not math.isfinite(signal):
                raise InvalidValue("learning signal", signal, "a finite number", "leave out problems without one")
            arms[place] = Arm(arms[place].total + signal, arms[place].seen + 1.0)
        return replace(self, arms=tuple(arms))
