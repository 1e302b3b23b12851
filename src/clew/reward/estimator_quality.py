"""How good step labels are: their error, order and calibration against known values, and what one of them costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.stats.calibration import CalibrationBin, calibration_bins, calibration_error
from clew.stats.rank_correlation import spearman


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What N labels are compared with."""

    values: tuple[float, ...]
    """[N] from 0 to 1."""
    rollouts: int | None = None
    """Roll-outs behind each value; None: they are exact. The variance that they leave is taken out of the RMSE."""

    def __post_init__(self) -> None:
        if self.rollouts is not None and self.rollouts < 2:
            raise InvalidValue("roll-outs of a reference", self.rollouts, "at least 2, or none: exact", "use 64")

    @property
    def noise(self) -> float:
        """Mean variance of the values around the true ones: unbiased, p (1 - p) / (n - 1)."""
        if self.rollouts is None:
            return 0.0
        values = np.asarray(self.values)
        return float((values * (1.0 - values)).mean()) / (self.rollouts - 1)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorQuality:
    """Measures of N labels against a reference."""

    n: int
    mean_absolute_error: float
    rmse: float
    """Against the true values: the reference's own noise is taken out."""
    bias: float
    """Mean of label minus reference."""
    spearman: float
    calibration_error: float
    """Expected calibration error over ten bins of the label."""
    calibration: tuple[CalibrationBin, ...]
    rollouts_per_label: float
    tokens_per_label: float


def estimator_quality(labels: Sequence[float], reference: Reference, cost: Cost) -> EstimatorQuality:
    """How good `labels` [N] are, which consumed `cost` together. Raises `InvalidValue` for other numbers of values."""
    bins = calibration_bins(labels, reference.values)
    error = np.asarray(labels, dtype=np.float64) - np.asarray(reference.values, dtype=np.float64)
    squared = float((error * error).mean())
    return EstimatorQuality(
        n=len(labels),
        mean_absolute_error=float(np.abs(error).mean()),
        rmse=math.sqrt(max(0.0, squared - reference.noise)),
        bias=float(error.mean()),
        spearman=spearman(labels, reference.values),
        calibration_error=calibration_error(bins),
        calibration=tuple(bins),
        rollouts_per_label=cost.model_calls / len(labels),
        tokens_per_label=cost.tokens / len(labels),
    )


def place_agreement(labels: Sequence[float], reference: Sequence[float]) -> float:
    """Share of the steps of one solution that two rows of hard labels agree on.

    >>> place_agreement([1, 1, 0, 0], [1, 0, 0, 0])
    0.75
    """
    if len(labels) != len(reference) or not labels:
        given = f"{len(labels)} and {len(reference)}"
        raise InvalidValue("numbers of labels", given, "equally many, at least one", "label the same steps")
    return sum(a == b for a, b in zip(labels, reference, strict=True)) / len(labels)
