"""Advantages of a group of samples of one problem. Pure functions of rewards [..., G] float (any leading axes).

All take `valid` [..., G] bool: samples that are not valid (unscored) enter no baseline and get advantage zero, so
their reward may be any number, also NaN. Groups whose rewards are all equal, and groups with fewer than two valid
samples, get exact zeros: there is nothing to compare with. (Some libraries hand a group of one its raw reward.)

`group_centred` of rewards 1 1 0 0 0 0 0 0 is 0.75 and -0.25, `leave_one_out` 0.8571 and -0.2857,
`group_normalised` 1.6198 and -0.5399.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class _Centred(NamedTuple):
    values: Tensor
    """Reward minus the mean of the valid ones; zero where not valid."""
    size: Tensor
    """Valid samples, [..., 1], at least 1."""


def group_centred(rewards: Tensor, valid: Tensor | None = None) -> Tensor:
    """r - mean(r): the advantage of Dr. GRPO (Liu et al. 2025, arXiv 2503.20783).

    Its expected gradient is (G - 1) / G times the true policy gradient, because a sample is part of its own baseline.
    """
    return _centre(rewards, valid).values


def group_normalised(rewards: Tensor, valid: Tensor | None = None, *, eps: float = 1e-4) -> Tensor:
    """(r - mean(r)) / (std(r) + eps), sample standard deviation: GRPO (Shao et al. 2024, arXiv 2402.03300), as in TRL.

    Dividing by the deviation weights very easy and very hard problems up (arXiv 2503.20783, section 3.1).
    """
    centred = _centre(rewards, valid)
    variance = centred.values.square().sum(-1, keepdim=True) / (centred.size - 1).clamp(min=1)
    scaled = centred.values / (variance.sqrt() + eps)
    return torch.where(centred.values == 0, 0.0, scaled)


def leave_one_out(rewards: Tensor, valid: Tensor | None = None) -> Tensor:
    """r minus the mean of the others: RLOO (Ahmadian et al. 2024, arXiv 2402.14740). Unbiased."""
    centred = _centre(rewards, valid)
    return centred.values * centred.size / (centred.size - 1).clamp(min=1)


def informative(rewards: Tensor, valid: Tensor | None = None) -> Tensor:
    """Which groups have two valid samples with different rewards, [...] bool; the others give no gradient.

    Dropping them is the dynamic sampling of DAPO (Yu et al. 2025, arXiv 2503.14476, section 3.2).
    """
    return (_from_first(rewards, _all_valid(rewards, valid)) != 0).any(-1)


def _centre(rewards: Tensor, valid: Tensor | None) -> _Centred:
    valid = _all_valid(rewards, valid)
    # Equal rewards are exactly zero from their first, while (a + a + a) / 3 need not be a in floating point.
    relative = _from_first(rewards, valid)
    count = valid.sum(-1, keepdim=True).clamp(min=1)
    mean = relative.sum(-1, keepdim=True) / count
    return _Centred(torch.where(valid, relative - mean, 0.0), count)


def _from_first(rewards: Tensor, valid: Tensor) -> Tensor:
    """Reward minus the group's first valid reward; zero where not valid."""
    if rewards.shape[-1] == 0:
        return rewards
    first = rewards.gather(-1, valid.int().argmax(-1, keepdim=True))
    return torch.where(valid, rewards - first, 0.0)


def _all_valid(rewards: Tensor, valid: Tensor | None) -> Tensor:
    return torch.ones_like(rewards, dtype=torch.bool) if valid is None else valid
