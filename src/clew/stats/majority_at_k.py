"""The accuracy to expect of a majority vote of k samples, from n samples that were judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clew.core.errors import InvalidValue

# Legend: D draws of a subset, K votes in it, A different answers.


def majority_at_k(
    answers: Sequence[str | None], right: Sequence[bool], k: int, *, draws: int = 100, seed: int = 0
) -> float:
    """Expected accuracy of a majority vote of `k` of these samples, estimated from `draws` random subsets.

    Subsets are drawn without replacement and in random order, so ties fall fairly. The winner is as right as
    the first sample that gave it; a vote in which all abstain is wrong. k = 1 is exact. Raises `InvalidValue`
    unless 1 <= k <= number of samples.

    >>> majority_at_k(["a", "a", "b"], [True, True, False], k=3)
    1.0
    """
    if len(answers) != len(right) or not 1 <= k <= len(answers):
        accepted = f"an integer from 1 to {len(answers)}, the number of samples, each judged"
        raise InvalidValue("k of majority@k", k, accepted, "lower k or draw more samples a problem")
    code_of = {answer: code for code, answer in enumerate(dict.fromkeys(a for a in answers if a is not None))}
    codes = np.array([code_of.get(answer, -1) if answer is not None else -1 for answer in answers])
    right_ = np.array(right, dtype=bool) & (codes >= 0)
    if k == 1 or right_.all() or not right_.any():
        return float(right_.mean())
    order_DK = np.random.default_rng(seed).random((draws, len(answers))).argsort(axis=1)[:, :k]
    codes_DK = codes[order_DK]
    rows_D, places_K = np.arange(draws), np.arange(k)
    voted_DK = codes_DK >= 0
    voter = (np.broadcast_to(rows_D[:, None], codes_DK.shape)[voted_DK], codes_DK[voted_DK])
    votes_DA = np.zeros((draws, len(code_of)), dtype=np.int64)
    np.add.at(votes_DA, voter, 1)
    first_DA = np.full_like(votes_DA, k)
    np.minimum.at(first_DA, voter, np.broadcast_to(places_K, codes_DK.shape)[voted_DK])
    winner_D = (votes_DA * (k + 1) - first_DA).argmax(axis=1)
    place_D = first_DA[rows_D, winner_D]
    won_D = place_D < k
    return float((won_D & right_[order_DK[rows_D, np.minimum(place_D, k - 1)]]).mean())
