"""Several arms measured on the same seeds: how far apart two means must be before seeds alone do not explain it.

A seed is a block: it has its own problems and samples, so its level is taken out before arms are compared. What is left
is one deviation for all arms, from many more degrees of freedom than the few seeds of a single arm give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from clew.core.errors import InvalidValue

LEVEL = 0.95


@final
@dataclass(frozen=True, slots=True)
class Blocks:
    """What arms [A] by seeds [S] vary by once the means of both are taken out."""

    deviation: float
    """Square root of the residual mean square."""
    df: int
    """(A - 1) (S - 1)."""
    arms: int
    seeds: int

    @property
    def half_width(self) -> float:
        """Of the 95 % interval of one arm's mean, the level of the seeds aside (Loftus and Masson 1994)."""
        from scipy.special import stdtrit

        return float(stdtrit(self.df, 1 - (1 - LEVEL) / 2)) * self.deviation / math.sqrt(self.seeds)

    @property
    def least_difference(self) -> float:
        """Of two means that differ when all pairs are looked at: Tukey's honest difference at 95 %."""
        from scipy.stats import studentized_range

        quantile = float(studentized_range.ppf(LEVEL, self.arms, self.df))
        return quantile * self.deviation / math.sqrt(self.seeds)


def blocks(values_AS: Sequence[Sequence[float]]) -> Blocks:
    """The residual deviation of `values_AS`, a row an arm and a column a seed.

    Raises `InvalidValue` for fewer than two arms or seeds, and for rows of unequal length.

    >>> blocks([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    Blocks(deviation=0.0, df=2, arms=3, seeds=2)
    """
    lengths = {len(row) for row in values_AS}
    if len(values_AS) < 2 or len(lengths) != 1 or min(lengths) < 2:
        given = f"{len(values_AS)} arms with {sorted(lengths)} values"
        raise InvalidValue("arms by seeds", given, "at least 2 arms, each with the same 2 or more seeds", "add seeds")
    values = np.asarray(values_AS, dtype=np.float64)
    arms, seeds = values.shape
    left = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + values.mean()
    df = (arms - 1) * (seeds - 1)
    return Blocks(math.sqrt(float(np.square(left).sum()) / df), df, arms, seeds)
