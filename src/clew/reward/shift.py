"""A detector of distribution shift for a learned scorer: do its present inputs look like those it was trained on?

Inputs are given as features: hidden states at the last token, or any numbers that describe what is scored. Two exact
tests by permutation: of the energy distance, for a sample; and of the Mahalanobis distance, for a single input.
"""

# Legend: N and M inputs, D features.

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray

from clew.core.errors import InvalidValue

Floats = NDArray[np.float64]


def energy_distance(first_ND: Floats, second_MD: Floats) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|: 0 only for equal distributions (Szekely and Rizzo 2004)."""
    pooled = np.concatenate([first_ND, second_MD])
    return _energy(_distances(pooled), np.arange(len(pooled)) < len(first_ND))


class ShiftTest(NamedTuple):
    """The energy distance of two samples and how often chance alone gives as much."""

    distance: float
    p_value: float


def shift_test(
    trained_ND: Floats, present_MD: Floats, rng: np.random.Generator, *, permutations: int = 199
) -> ShiftTest:
    """Whether both samples come from one distribution, by permuting which is which.

    `p_value <= a` rings falsely with probability at most `a`, whatever the distribution and the sizes. Features are
    divided by their pooled standard deviation, so that none counts more for its unit. Takes O((N + M)^2) memory.
    """
    _check(trained_ND, present_MD)
    pooled = np.concatenate([trained_ND, present_MD])
    distances = _distances(_standardised(pooled, pooled))
    is_first = np.arange(len(pooled)) < len(trained_ND)
    found = _energy(distances, is_first)
    by_chance = [_energy(distances, rng.permutation(is_first)) for _ in range(permutations)]
    # What rounding makes of equal distances must not count as less.
    as_much = sum(chance >= found - 1e-12 * abs(found) for chance in by_chance)
    return ShiftTest(found, (1 + as_much) / (1 + permutations))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Familiar:
    """Where the training inputs of a scorer lie: says of one input how strange it is (arXiv 1807.03888)."""

    mean_D: Floats
    whitening_DD: Floats
    calibration_M: Floats
    """Ascending distances of training inputs that `mean_D` and `whitening_DD` were not estimated from."""

    @classmethod
    def of(cls, trained_ND: Floats, rng: np.random.Generator, *, ridge: float = 1e-3) -> Self:
        """Mean and covariance from a random half of the training inputs, its distances from the other half.

        `ridge` of the mean variance is added to each variance, so that features that hang together can be inverted.
        """
        if trained_ND.ndim != 2 or len(trained_ND) < 4:
            raise InvalidValue("training inputs", trained_ND.shape, "at least 4 rows of features", "give more of them")
        half, rest = np.array_split(rng.permutation(trained_ND), 2)
        covariance = np.atleast_2d(np.cov(half, rowvar=False))
        covariance += np.eye(len(covariance)) * (ridge * covariance.trace() / len(covariance) + np.finfo(float).tiny)
        whitening = np.linalg.cholesky(np.linalg.inv(covariance))
        mean = half.mean(axis=0)
        return cls(mean_D=mean, whitening_DD=whitening, calibration_M=np.sort(_lengths((rest - mean) @ whitening)))

    def distances(self, present_MD: Floats) -> Floats:
        """Mahalanobis distance [M] of each input from the training inputs."""
        return _lengths((present_MD - self.mean_D) @ self.whitening_DD)

    def p_values(self, present_MD: Floats) -> Floats:
        """How often a training input lies as far out, [M]; `<= a` rings for at most a share `a` of familiar inputs.

        A conformal p-value: exact for inputs that are exchangeable with the training ones, whatever their distribution.
        """
        below = np.searchsorted(self.calibration_M, self.distances(present_MD), side="left")
        return (1 + len(self.calibration_M) - below) / (1 + len(self.calibration_M))


def _energy(distances: Floats, is_first: NDArray[np.bool_]) -> float:
    a, b = is_first.astype(np.float64), (~is_first).astype(np.float64)
    a, b = a / a.sum(), b / b.sum()
    to_b = distances @ b
    return float(2 * a @ to_b - a @ (distances @ a) - b @ to_b)


def _distances(pooled_ND: Floats) -> Floats:
    squares = (pooled_ND**2).sum(-1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * pooled_ND @ pooled_ND.T, 0.0))


def _standardised(values_ND: Floats, by_MD: Floats) -> Floats:
    spread_D = by_MD.std(axis=0)
    return (values_ND - by_MD.mean(axis=0)) / np.where(spread_D > 0.0, spread_D, 1.0)


def _lengths(values_ND: Floats) -> Floats:
    return np.sqrt((values_ND**2).sum(-1))


def _check(first_ND: Floats, second_MD: Floats) -> None:
    shapes = first_ND.shape, second_MD.shape
    if first_ND.ndim != 2 or second_MD.ndim != 2 or shapes[0][1] != shapes[1][1] or min(shapes[0][0], shapes[1][0]) < 2:
        accepted = "two samples [inputs, features] of at least 2 inputs and equally many features"
        raise InvalidValue("shapes of the samples", shapes, accepted, "take the features of both from the same model")
