"""From the scores of a solution's steps to the score of the solution. Pure functions of S scores in order of the steps.

`last`, `minimum` and `mean` take scores on any scale. `product` takes probabilities only: put logits through a sigmoid,
or exponentiate log-probs, before they are multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from clew.core.errors import InvalidValue, UnknownName

Aggregation = Literal["last", "min", "mean", "product"]
"""How the scores of the steps become the score of the solution."""


def last(scores: Sequence[float]) -> float:
    """The score of the last step, which saw all of the solution (Snell, arXiv 2408.03314, found it best). [S]"""
    return scores[-1]


def minimum(scores: Sequence[float]) -> float:
    """A solution is as good as its worst step (Math-Shepherd, arXiv 2312.08935). [S]"""
    return min(scores)


def mean(scores: Sequence[float]) -> float:
    """The average step. [S]"""
    return math.fsum(scores) / len(scores)


def product(scores: Sequence[float]) -> float:
    """The probability that every step is right, from that of each (Lightman, arXiv 2305.20050). [S]

    Raises `InvalidValue` for a score outside [0, 1]: two wrong steps with negative scores would make a good solution.

    >>> product([0.5, 0.5, 1.0])
    0.25
    """
    for score in scores:
        if not 0.0 <= score <= 1.0:
            accepted = "a probability from 0 to 1, to be multiplied"
            raise InvalidValue(
                "score of a step", score, accepted, "aggregate by last, min or mean, or rescale the scorer"
            )
    return math.prod(scores)


AGGREGATIONS: Mapping[Aggregation, Callable[[Sequence[float]], float]] = MappingProxyType(
    {"last": last, "min": minimum, "mean": mean, "product": product}
)


def aggregate(scores: Sequence[float], how: Aggregation) -> float:
    """The score of a solution whose steps have these, at least one. [S]

    >>> aggregate([0.9, 0.4, 0.8], "min")
    0.4
    """
    if not scores:
        raise InvalidValue("number of step scores", 0, "at least one", "score the steps first")
    if how not in AGGREGATIONS:
        raise UnknownName("aggregation", how, AGGREGATIONS)
    return AGGREGATIONS[how](scores)
