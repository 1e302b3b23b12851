"""Spearman's rank correlation, ties sharing their mean rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clew.stats.calibration import correlation


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's r of the ranks, equal numbers sharing their mean rank; NaN where one of them does not vary.

    Against numbers that are only 0 or 1, with a share p of ones, even a perfect order of untied numbers reaches no
    more than sqrt(3 p (1 - p)): 0.87 at a half.

    >>> round(spearman([1.0, 2.0, 3.0, 40.0], [0, 0, 1, 1]), 4)
    0.8944
    """
    return correlation(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float]) -> list[float]:
    _, place, count = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    middle: NDArray[np.float64] = np.cumsum(count) - (count - 1) / 2
    return [float(rank) for rank in middle[place]]
