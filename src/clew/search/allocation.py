"""How many children each state of a level gets. Pure functions of L scores or weights, in the order of the states."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

CLIP = 1e-7
"""Scores are kept this far from 0 and 1, where their logit is infinite (its_hub)."""
_SLACK = 1e-9
"""A share that rounding errors put this little above an integer is that integer."""


def even_shares(total: int, num: int) -> list[int]:
    """`total` in `num` parts that differ by at most one, larger ones first.

    >>> even_shares(13, 4)
    [4, 3, 3, 3]
    """
    share, rest = divmod(total, num)
    return [share + (place < rest) for place in range(num)]


def softmax(scores: Sequence[float], temperature: float = 1.0) -> list[float]:
    """exp(R_j / T) over their sum; of infinite scores the largest share everything. [L]"""
    top = max(scores)
    if math.isinf(top):
        weights = [float(score == top) for score in scores]
    else:
        weights = [math.exp((score - top) / temperature) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def nearest_shares(scores: Sequence[float], budget: int, temperature: float) -> list[int]:
    """W_j = round(B softmax(R_j / T)) (REBASE, arXiv 2408.00724). Their sum may miss the budget. [L]

    >>> nearest_shares([0.9, 0.8, 0.5, 0.1], 16, 0.2)
    [9, 6, 1, 0]
    """
    return [round(budget * share) for share in softmax(scores, temperature)]


def sequential_shares(scores: Sequence[float], budget: int, temperature: float) -> list[int]:
    """From the best state on, each gets its share of what is left of the budget, rounded up: all of it is spent. [L]

    REBASE as its authors' code has it. Of equal scores the first comes first.

    >>> sequential_shares([0.9, 0.8, 0.5, 0.1], 16, 0.2)
    [10, 5, 1, 0]
    """
    weights = softmax(scores, temperature)
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    # Summed from the smallest up, so that the last state that weighs anything has all that is left.
    tails = list(accumulate(weights[place] for place in reversed(order)))[::-1]
    shares, left = [0] * len(scores), budget
    for place, tail in zip(order, tails, strict=True):
        if left == 0:
            break
        shares[place] = math.ceil(left * (weights[place] / tail) - _SLACK)
        left -= shares[place]
    return shares


def logit(score: float) -> float:
    """ln(s / (1 - s)) of a score in [0, 1]; one beyond its ends, or close to them, counts as `CLIP` away from them."""
    score = min(max(score, CLIP), 1.0 - CLIP)
    return math.log(score / (1.0 - score))


def multinomial(weights: Sequence[float], num: int, stream: random.Random) -> list[int]:
    """`num` places, each drawn by the weights on its own. [num]"""
    return stream.choices(range(len(weights)), weights=weights, k=num)


def systematic(weights: Sequence[float], num: int, stream: random.Random) -> list[int]:
    """`num` places at even distances along the weights, from one random start (Carpenter et al. 1999). [num]

    Place j occurs floor or ceil of its share of `num` times, and on average exactly its share.
    """
    ends = list(accumulate(weights))
    # Above 0 and up to 1: a point of 0 would draw a first place that weighs nothing.
    start = 1.0 - stream.random()
    return [bisect_left(ends, (start + place) / num * ends[-1]) for place in range(num)]
