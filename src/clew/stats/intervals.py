"""Rates with their 95 % interval. The problem is the unit: samples of one problem are not independent.

Empty input is an error, never 0.0; callers leave unscored answers out before they come here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from clew.core.errors import InvalidValue

_UPPER = 0.975
Z = NormalDist().inv_cdf(_UPPER)


@dataclass(frozen=True, slots=True)
class Rate:
    """A mean between 0 and 1 with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int
    """Problems behind it."""

    def as_dict(self) -> dict[str, float | int]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


def wilson(num_right: int, n: int) -> Rate:
    """Wilson's score interval for `n` independent outcomes of 0 or 1 (Wilson 1927).

    >>> rate = wilson(8, 10)
    >>> round(rate.low, 4), round(rate.high, 4)
    (0.4902, 0.9433)
    """
    if n < 1:
        raise InvalidValue("number of outcomes", n, "at least one outcome", "evaluate some problems first")
    if not 0 <= num_right <= n:
        raise InvalidValue("number right", num_right, f"an integer from 0 to {n}", "count both over the same problems")
    return _score_interval(num_right / n, effective=n, quantile=Z, n=n)


def clustered(values_P: Sequence[float], *, draws_per_problem: int = 1) -> Rate:
    """The mean of one value in [0, 1] a problem, each an average over several samples of that problem.

    Wilson's interval at the effective number of outcomes that the spread between problems implies (Dean and
    Pagano 2015, modified Wilson), with Student's quantile because that spread is estimated. The design effect
    is held between 1 and `draws_per_problem`: values that happen to be all equal do not give an interval of
    width zero. With one draw a problem this is exactly `wilson`.
    """
    values = np.asarray(values_P, dtype=np.float64)
    n = values.size
    if n == 0:
        raise InvalidValue("number of problems", 0, "at least one problem", "evaluate some problems first")
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise InvalidValue("values", [float(values.min()), float(values.max())], "numbers from 0 to 1", "pass rates")
    if draws_per_problem < 1:
        raise InvalidValue("draws per problem", draws_per_problem, "at least 1", "pass the samples of each problem")
    mean = float(min(max(values.mean(), 0.0), 1.0))
    if draws_per_problem == 1 or n == 1:
        return _score_interval(mean, effective=n, quantile=Z, n=n)
    # Imported here: scipy would triple the start-up time of commands that compute no interval.
    from scipy.special import stdtrit

    spread = mean * (1.0 - mean)
    variance = float(values.var(ddof=1)) / n
    most = n * draws_per_problem
    effective = float(n) if spread == 0.0 else min(max(spread / variance if variance else most, n), most)
    return _score_interval(mean, effective=effective, quantile=float(stdtrit(n - 1, _UPPER)), n=n)


def disjoint(a: Rate, b: Rate) -> bool:
    """Whether the two intervals have no point in common."""
    return a.high < b.low or b.high < a.low


def _score_interval(mean: float, *, effective: float, quantile: float, n: int) -> Rate:
    squared = quantile * quantile
    scale = 1.0 + squared / effective
    centre = (mean + squared / (2 * effective)) / scale
    half = quantile / scale * math.sqrt(mean * (1 - mean) / effective + squared / (4 * effective * effective))
    # At 0 and 1 the bound equals the mean; rounding must not push it past.
    return Rate(mean=mean, low=min(max(centre - half, 0.0), mean), high=max(min(centre + half, 1.0), mean), n=n)
