"""Advantages against a baseline that is no sample of the group. Pure functions of rewards [..., G] float.

`valid` [..., G] bool marks what was scored; the rest gets advantage zero, and its reward may be any number, also NaN.
A baseline that this batch's samples do not enter leaves the policy gradient unbiased, however bad it is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def above_moving_average(rewards: Tensor, average: float, valid: Tensor | None = None) -> Tensor:
    """r - average: REINFORCE (Williams 1992) with the `moving_average` of earlier batches. Unbiased."""
    return _above(rewards, torch.as_tensor(average, dtype=rewards.dtype, device=rewards.device), valid)


def moving_average(
    average: float | None, rewards: Tensor, valid: Tensor | None = None, *, decay: float = 0.95
) -> float:
    """decay * average + (1 - decay) * mean(r), the mean alone when there is no average yet; call it after the update.

    A batch without a valid sample leaves the average as it is, 0.0 when there is none yet.
    """
    scored = rewards.flatten() if valid is None else rewards[valid]
    if scored.numel() == 0:
        return 0.0 if average is None else average
    mean = scored.double().mean().item()
    return mean if average is None else decay * average + (1 - decay) * mean


def above_greedy(rewards: Tensor, greedy_rewards: Tensor, valid: Tensor | None = None) -> Tensor:
    """r - r(greedy response): ReMax (Li et al. 2023, arXiv 2310.10505, algorithm 1). Unbiased.

    `greedy_rewards` [...], one a problem. Where the greedy response is unscored (NaN) the group gets zeros.
    """
    scored = ~greedy_rewards.isnan()[..., None].expand_as(rewards)
    return _above(rewards, greedy_rewards[..., None], scored if valid is None else scored & valid)


def _above(rewards: Tensor, baseline: Tensor, valid: Tensor | None) -> Tensor:
    difference = rewards - baseline
    return difference if valid is None else torch.where(valid, difference, 0.0)
