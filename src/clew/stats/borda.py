"""Borda votes: the better a candidate's rank, the more its vote counts (arXiv 2502.18581)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clew.core.errors import InvalidValue

MAX_POWER = 64.0
"""Beyond it the best candidate decides alone, and votes of many candidates leave the range of a float."""


def borda_votes(scores: Sequence[float], power: float) -> list[float]:
    """(N - r + 1)^power votes for the candidate of rank r among N, rank 1 for the highest score; one number a score.

    Equal scores share the votes of their ranks evenly, so that order says nothing. Power 0 is one vote for each; the
    larger the power, the more the first ranks decide. Raises `InvalidValue` for a power outside [0, 64] or a NaN.

    >>> borda_votes([0.5, 0.9, 0.1], power=2.0)
    [4.0, 9.0, 1.0]
    >>> borda_votes([0.5, 0.5, 0.1], power=1.0)
    [2.5, 2.5, 1.0]
    """
    check_power(power)
    if any(math.isnan(score) for score in scores):
        raise InvalidValue("score to rank by", math.nan, "numbers that can be ordered", "mend what gave it")
    num_with: dict[float, int] = {}
    for score in scores:
        num_with[score] = num_with.get(score, 0) + 1
    votes_of: dict[float, float] = {}
    num_below = 0
    for score in sorted(num_with):
        places = range(num_below + 1, num_below + num_with[score] + 1)
        votes_of[score] = math.fsum(float(place) ** power for place in places) / len(places)
        num_below = places[-1]
    return [votes_of[score] for score in scores]


def check_power(power: float) -> None:
    if not 0.0 <= power <= MAX_POWER:
        raise InvalidValue("power", power, f"a number from 0 to {MAX_POWER:g}", "use 0.5; 0 is a majority vote")
