"""Returns and generalised advantages over time. Rewards, values and mask are [..., T]; time is the last axis.

Entries outside `mask` (bool) are skipped: they may be NaN, are zero in the answer, and neither discount nor cut what
stands on both sides of them. So padding changes nothing, and an observation amid a response passes value and
advantage through unchanged.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def at_last_token(outcomes: Tensor, mask: Tensor) -> Tensor:
    """Rewards [..., T] that are the outcome [...] at the last unmasked token and zero elsewhere."""
    count = mask.cumsum(-1)
    last = mask & (count == count[..., -1:])
    return torch.where(last, outcomes[..., None], 0.0)


def discounted_returns(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """G_t = r_t + gamma G_{t+1} (arXiv 2412.14135, equation 2): the weight of log pi(a_t) in REINFORCE."""
    rewards = torch.where(mask, rewards, 0.0)
    following = torch.zeros_like(rewards[..., 0]) if rewards.shape[-1] else rewards.sum(-1)
    columns = []
    for time in reversed(range(rewards.shape[-1])):
        here = mask[..., time]
        following = torch.where(here, rewards[..., time] + gamma * following, following)
        columns.append(torch.where(here, following, 0.0))
    return torch.stack(columns[::-1], dim=-1) if columns else rewards


class Gae(NamedTuple):
    """Advantages, not whitened, and the returns a value model learns, both [..., T]."""

    advantages: Tensor
    returns: Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float = 1.0,
    lam: float | Tensor = 0.95,
    last_values: Tensor | None = None,
) -> Gae:
    """A_t = d_t + gamma lam A_{t+1}, d_t = r_t + gamma V_{t+1} - V_t (Schulman et al. 2015, arXiv 1506.02438).

    lam 1 is the Monte Carlo return minus V, unbiased for any V; lam 0 the temporal difference, unbiased for the
    policy's own V alone. `lam` may be a tensor [...]: 1 - 1 / (alpha L) is VAPO's (arXiv 2504.05118). `last_values`
    [...] is V after the last token, zero by default: give it where a response was cut and goes on.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    next_value = torch.zeros_like(values.sum(-1)) if last_values is None else last_values
    next_advantage = torch.zeros_like(next_value)
    columns = []
    for time in reversed(range(values.shape[-1])):
        here, value = mask[..., time], values[..., time]
        advantage = rewards[..., time] + gamma * next_value - value + gamma * lam * next_advantage
        next_advantage = torch.where(here, advantage, next_advantage)
        next_value = torch.where(here, value, next_value)
        columns.append(torch.where(here, advantage, 0.0))
    advantages = torch.stack(columns[::-1], dim=-1) if columns else values
    return Gae(advantages, torch.where(mask, advantages + values, 0.0))
