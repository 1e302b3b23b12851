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


def vote_weights(scores: Sequence[float], temperature: float | None = None) -> list[float]:
    """What each vote weighs: its score, or exp(score / temperature) up to a common factor, for scores below 0.

    NaN is a vote that nobody could rate and weighs 0; if nobody rated any, all weigh the same. Raises `InvalidValue`
    for a score that cannot be a weight.

    >>> vote_weights([0.5, math.nan, 0.25])
    [0.5, 0.0, 0.25]
    >>> vote_weights([-1.0, -3.0, -1.0], temperature=1.0)[::2]
    [1.0, 1.0]
    """
    rated = [score for score in scores if not math.isnan(score)]
    if not rated:
        return [1.0] * len(scores)
    top = max(rated)
    if temperature is None:
        for score in rated:
            if not 0.0 <= score < math.inf:
                advice = "set a temperature, so that a vote weighs exp(score / temperature), or use another guide"
                raise InvalidValue("score to weigh a vote", score, "a finite number of at least 0", advice)
        return [0.0 if math.isnan(score) else score for score in scores]
    if top == math.inf:
        raise InvalidValue("score to weigh a vote", top, "a number below infinity", "use another guide")
    # Relative to the highest, so that nothing overflows; -inf weighs 0.
    base = 0.0 if top == -math.inf else top
    return [0.0 if math.isnan(score) else math.exp((score - base) / temperature) for score in scores]
