"""How good predicted probabilities are: do they order (AUC), are they true (calibration), do they go along (r)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clew.core.errors import InvalidValue

# Legend: N predictions.


class CalibrationBin(NamedTuple):
    """The predictions from `low` up to `high`: their mean, how often what they predict came true, how many they are."""

    low: float
    high: float
    predicted: float
    observed: float
    n: int


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Probability that a right one scores higher than a wrong one, ties half (area under the ROC curve).

    NaN unless there are both. The Mann-Whitney statistic, from ranks.

    >>> auc([0.9, 0.4, 0.4, 0.1], [True, True, False, False])
    0.875
    """
    _check(scores, right)
    right_N = np.asarray(right, dtype=bool)
    positives = int(right_N.sum())
    if positives in (0, len(right_N)):
        return math.nan
    _, place_N, count = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True, return_counts=True)
    rank_N = (np.cumsum(count) - (count - 1) / 2)[place_N]
    pairs = positives * (len(right_N) - positives)
    return float((rank_N[right_N].sum() - positives * (positives + 1) / 2) / pairs)


def calibration_bins(probs: Sequence[float], outcomes: Sequence[float], bins: int = 10) -> list[CalibrationBin]:
    """Predictions in `bins` intervals of equal width; empty ones are left out. Outcomes are from 0 to 1.

    >>> calibration_bins([0.1, 0.2, 0.9], [0, 1, 1], bins=2)[0]
    CalibrationBin(low=0.0, high=0.5, predicted=0.15000000000000002, observed=0.5, n=2)
    """
    _check(probs, outcomes)
    if bins < 1:
        raise InvalidValue("bins", bins, "an integer of at least 1", "use 10")
    probs_N, outcomes_N = np.asarray(probs, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    bin_N = np.minimum((probs_N * bins).astype(int), bins - 1)
    return [
        CalibrationBin(
            b / bins, (b + 1) / bins, float(probs_N[inside].mean()), float(outcomes_N[inside].mean()), int(inside.sum())
        )
        for b in range(bins)
        if (inside := bin_N == b).any()
    ]


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Expected calibration error: mean over predictions of the gap between predicted and observed of their bin."""
    return sum(b.n * abs(b.predicted - b.observed) for b in bins) / sum(b.n for b in bins)


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's r; NaN where one of them does not vary."""
    _check(first, second)
    a_N, b_N = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
    spread = math.sqrt(float(a_N @ a_N) * float(b_N @ b_N))
    return float(a_N @ b_N) / spread if spread > 0.0 else math.nan


def _check(first: Sequence[object], second: Sequence[object]) -> None:
    if len(first) != len(second) or not len(first):
        given = f"{len(first)} and {len(second)}"
        raise InvalidValue("numbers of predictions and outcomes", given, "equally many, at least one", "pair them")
