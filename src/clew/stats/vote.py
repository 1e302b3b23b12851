"""Votes over canonical answers: self-consistency (arXiv 2203.11171) and its weighted form.

One rule everywhere, `clew.stats.majority_at_k` included: None abstains, and of tied answers
the one that occurred first wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from clew.core.errors import InvalidValue


def majority_vote(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer; None if all abstain. Ties go to the answer that occurred first.

    >>> majority_vote(["7", None, "5", "5", "7"])
    '7'
    """
    votes: dict[str, int] = {}
    for answer in answers:
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
    return max(votes, key=votes.__getitem__, default=None)


def weighted_vote(answers: Sequence[str | None], weights: Sequence[float]) -> str | None:
    """The answer with the greatest sum of weights; None if all abstain. Ties go to the first occurrence.

    >>> weighted_vote(["a", "b", "b"], [0.9, 0.3, 0.4])
    'a'
    """
    if len(answers) != len(weights):
        given = f"{len(weights)} for {len(answers)} answers"
        raise InvalidValue("number of weights", given, "one weight an answer", "pass both from the same candidates")
    parts: dict[str, list[float]] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if not 0.0 <= weight < math.inf:
            raise InvalidValue("weight of a vote", weight, "a finite number of at least 0", "exponentiate log-scores")
        if answer is not None:
            parts.setdefault(answer, []).append(weight)
    totals = {answer: math.fsum(weights) for answer, weights in parts.items()}
    return max(totals, key=totals.__getitem__, default=None)
