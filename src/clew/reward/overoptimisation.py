"""The over-optimisation watch: a proxy reward against the true one while a policy moves away from where it began.

Under optimisation a proxy keeps rising while the truth turns (Gao, Schulman and Hilton 2022, arXiv 2210.10760). Each
look measures both on the same held-out problems, so that two looks can be compared problem by problem.
"""

# Legend: P held-out problems, L looks.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clew.core.errors import InvalidValue

CONFIDENCE = 0.975
"""One-sided: of looks between which nothing changed, 2.5 % show a fall of the truth, as many a rise of the proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at the held-out problems saw."""

    step: int
    kl: float
    """Of the policy from its start, nats a response."""
    proxy_P: tuple[float, ...]
    """What is optimised, mean of the scored samples of each problem; NaN for a problem without any."""
    true_P: tuple[float, ...]
    """What is wanted, of the same samples."""

    def __post_init__(self) -> None:
        if not len(self.proxy_P) == len(self.true_P) > 1:
            given = f"{len(self.proxy_P)} and {len(self.true_P)}"
            accepted = "as many proxy as true rewards, of two problems or more"
            raise InvalidValue("numbers of rewards of a look", given, accepted, "rate the same problems with both")

    @property
    def distance(self) -> float:
        """sqrt(KL), the axis of the laws of over-optimisation; 0 where the estimate of the KL fell below 0."""
        return math.sqrt(max(self.kl, 0.0))

    @property
    def proxy(self) -> float:
        """Mean over problems."""
        return float(np.nanmean(self.proxy_P))

    @property
    def true(self) -> float:
        """Mean over problems."""
        return float(np.nanmean(self.true_P))


class Change(NamedTuple):
    """A mean of paired differences with its 95 % interval."""

    mean: float
    low: float
    high: float


class Parting(NamedTuple):
    """How proxy and truth changed between two looks, and whether they parted."""

    proxy: Change
    true: Change

    @property
    def alarm(self) -> bool:
        """The proxy rose and the truth fell, each by more than its interval."""
        return self.proxy.low > 0.0 and self.true.high < 0.0


def paired_change(before_P: Sequence[float], after_P: Sequence[float]) -> Change:
    """Mean of `after_P - before_P` over the same problems, with Student's 95 % interval; NaN unless two have both.

    >>> paired_change([0.0, 0.5, 1.0], [0.5, 1.0, 1.5])
    Change(mean=0.5, low=0.5, high=0.5)
    """
    from scipy.special import stdtrit

    differences_P = np.asarray(after_P, dtype=np.float64) - np.asarray(before_P, dtype=np.float64)
    differences_P = differences_P[~np.isnan(differences_P)]
    n = differences_P.size
    if n < 2:
        return Change(math.nan, math.nan, math.nan)
    mean = float(differences_P.mean())
    half = float(stdtrit(n - 1, CONFIDENCE)) * float(differences_P.std(ddof=1)) / math.sqrt(n)
    return Change(mean, mean - half, mean + half)


def parting(looks_L: Sequence[Look], window: int) -> Parting | None:
    """How the last look differs from the one `window` looks before it; None while there are not so many.

    Its alarm is rung falsely, where the truth did not fall, in at most 2.5 % of looks, and where neither changed in at
    most 2.5 % x 2.5 % of them, if the two rewards err independently.
    """
    if window < 1:
        raise InvalidValue("window", window, "at least 1 look", "use 3")
    if len(looks_L) <= window:
        return None
    before, now = looks_L[-1 - window], looks_L[-1]
    return Parting(paired_change(before.proxy_P, now.proxy_P), paired_change(before.true_P, now.true_P))


class Law(NamedTuple):
    """R(d) = d (alpha - beta ln d), d = sqrt(KL): the true reward gained by reinforcement learning on a proxy."""

    alpha: float
    beta: float

    def gain(self, distance: float) -> float:
        """True reward above that of the start."""
        return distance * (self.alpha - self.beta * math.log(distance)) if distance > 0.0 else 0.0

    @property
    def peak(self) -> float:
        """The distance of the largest gain; infinite if the law has none."""
        return math.exp(self.alpha / self.beta - 1.0) if self.beta > 0.0 else math.inf


def fit_law(distances_L: Sequence[float], gains_L: Sequence[float]) -> Law:
    """Least squares for alpha and beta (arXiv 2210.10760, equation for RL) over looks away from the start.

    Raises `InvalidValue` unless two looks are at different distances above 0.
    """
    d = np.asarray(distances_L, dtype=np.float64)
    gains = np.asarray(gains_L, dtype=np.float64)[d > 0.0]
    d = d[d > 0.0]
    if len(np.unique(d)) < 2:
        accepted = "at least two different distances above 0"
        raise InvalidValue("distances", list(distances_L), accepted, "look again after more updates")
    alpha, beta = np.linalg.lstsq(np.stack([d, -d * np.log(d)], axis=1), gains, rcond=None)[0]
    return Law(float(alpha), float(beta))
