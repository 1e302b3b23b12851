"""Self-certainty: how far a policy's distributions are from knowing nothing (arXiv 2502.18581)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from clew.core.errors import InvalidValue

# Legend: T tokens of a response, V vocabulary.


def self_certainty(probs_TV: ArrayLike) -> float:
    """Mean over T positions of KL(uniform || p), p of shape [T, V] or [V], in nats; 0 for uniform, inf if any p is 0.

    -1/(T V) sum_t sum_v ln(V p_tv). Raises `InvalidValue` if there is no position, or if rows are no distributions.

    >>> round(self_certainty([0.97, 0.01, 0.01, 0.01]), 6)
    2.075198
    """
    p_TV = np.atleast_2d(np.asarray(probs_TV, dtype=np.float64))
    if p_TV.size == 0:
        raise InvalidValue("distributions", p_TV.tolist(), "at least one position", "sample at least one token")
    if not ((p_TV >= 0.0).all() and np.allclose(p_TV.sum(axis=1), 1.0, rtol=0.0, atol=1e-6)):
        accepted = "rows of probabilities that sum to 1"
        raise InvalidValue("distributions", p_TV.tolist(), accepted, "take the softmax of the logits")
    with np.errstate(divide="ignore"):
        # A uniform row may come out a rounding error below 0, which no divergence is.
        kl_T = np.maximum(-np.log(p_TV * p_TV.shape[1]).mean(axis=1), 0.0)
    return float(kl_T.mean())


def mean_certainty(certainties: Sequence[float]) -> float:
    """Self-certainty of a response from that of each of its tokens (`Completion.certainties`).

    >>> mean_certainty([1.0, 3.0])
    2.0
    """
    if not certainties:
        raise InvalidValue("certainties", certainties, "one number a token", "sample at least one token")
    return math.fsum(certainties) / len(certainties)
