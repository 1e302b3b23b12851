"""Which of several reward models to train with next, learnt from what each pick gained: bandits as pure functions.

After LASER (arXiv 2410.01735), which picks one reward model a batch. The gain is whatever is held out and cheap: the
rise of validation accuracy, say. `Exp3` promises its regret whatever the gains do, as they may when the policy moves;
`LinUcb` uses what is known of the batch.
"""

# Legend: K reward models, D features of a batch.

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from clew.core.errors import InvalidValue

Floats = NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Exp3:
    """Exponential weights over estimated gains (Auer et al. 2002), explored by a uniform share.

    Its regret against the best single model over T picks is at most 2 sqrt(e - 1) sqrt(g K ln K), g >= the best
    model's total gain, for `explore` = min(1, sqrt(K ln K / ((e - 1) g))) (their corollary 3.2): see `exploration`.
    """

    explore: float
    """Share of picks made at random, above 0 up to 1."""
    estimates_K: tuple[float, ...]
    """Sum of gain / probability over the picks of each model."""

    def __post_init__(self) -> None:
        if not 0.0 < self.explore <= 1.0:
            raise InvalidValue("explore", self.explore, "a share above 0 up to 1", "use clew.reward.bandit.exploration")

    @classmethod
    def over(cls, models: int, picks: int) -> Self:
        """Nothing known of `models` models, set for `picks` picks."""
        if models < 1:
            raise InvalidValue("models", models, "at least one reward model", "add one")
        return cls(explore=exploration(models, picks), estimates_K=(0.0,) * models)

    @property
    def probabilities_K(self) -> Floats:
        """Of picking each model; at least explore / K."""
        models = len(self.estimates_K)
        logits_K = np.array(self.estimates_K) * (self.explore / models)
        weights_K = np.exp(logits_K - logits_K.max())
        return (1 - self.explore) * weights_K / weights_K.sum() + self.explore / models

    def pick(self, rng: np.random.Generator) -> int:
        """A model drawn by `probabilities_K`."""
        return int(rng.choice(len(self.estimates_K), p=self.probabilities_K))

    def learn(self, model: int, gain: float) -> Exp3:
        """What is known after `model` was picked and gained `gain`, in [0, 1]: see `as_gain`."""
        if not 0.0 <= gain <= 1.0:
            raise InvalidValue("gain", gain, "a number from 0 to 1", "scale it with as_gain")
        grown = self.estimates_K[model] + gain / float(self.probabilities_K[model])
        return replace(self, estimates_K=(*self.estimates_K[:model], grown, *self.estimates_K[model + 1 :]))


def exploration(models: int, picks: int) -> float:
    """The share to explore by, for gains of at most 1 a pick (Auer et al. 2002, corollary 3.2).

    >>> round(exploration(3, 300), 4)
    0.08
    """
    return min(1.0, math.sqrt(models * math.log(models) / ((math.e - 1) * max(picks, 1)))) or 1.0


def as_gain(change: float, largest: float) -> float:
    """A change between -`largest` and `largest`, such as that of a validation rate, as a gain in [0, 1]; clipped.

    >>> as_gain(0.01, 0.02)
    0.75
    """
    return min(1.0, max(0.0, 0.5 + change / (2 * largest)))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinUcb:
    """One ridge regression a model from features of the batch to the gain, taken at its upper bound (LinUCB,
    arXiv 1003.0146, algorithm 1).
    """

    precision_KDD: Floats
    moment_KD: Floats
    width: float = 1.0
    """How many standard errors above its estimate a model is taken at."""

    @classmethod
    def over(cls, models: int, features: int, *, width: float = 1.0) -> Self:
        """Nothing known of `models` models."""
        if models < 1 or features < 1:
            raise InvalidValue("(models, features)", (models, features), "at least one of each", "add one")
        precision = np.broadcast_to(np.eye(features), (models, features, features)).copy()
        return cls(precision_KDD=precision, moment_KD=np.zeros((models, features)), width=width)

    def bounds_K(self, context_D: Floats) -> Floats:
        """The upper bound of each model's gain on a batch of these features."""
        covariance_KDD = np.linalg.inv(self.precision_KDD)
        mean_K = np.einsum("d,kde,ke->k", context_D, covariance_KDD, self.moment_KD)
        return mean_K + self.width * np.sqrt(np.einsum("d,kde,e->k", context_D, covariance_KDD, context_D))

    def pick(self, context_D: Floats) -> int:
        """The model of the highest bound, the first of equals."""
        return int(self.bounds_K(context_D).argmax())

    def learn(self, model: int, context_D: Floats, gain: float) -> LinUcb:
        """What is known after `model` was picked for a batch of these features and gained `gain`."""
        precision, moment = self.precision_KDD.copy(), self.moment_KD.copy()
        precision[model] += np.outer(context_D, context_D)
        moment[model] += gain * context_D
        return replace(self, precision_KDD=precision, moment_KD=moment)
