"""Advantages normalised over the whole batch of responses: REINFORCE++ and its variant with a group baseline.

The whole batch means all micro-batches and ranks: whiten before you divide it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clew.learn.advantages import group_centred
from clew.learn.returns import discounted_returns


def whitened(values: Tensor, mask: Tensor, *, eps: float = 1e-8) -> Tensor:
    """(x - mean) / (std + eps) over all unmasked entries, sample standard deviation; zero where masked. Any shape.

    Entries that are all equal, and a single one, give exact zeros.
    """
    if not bool(mask.any()):
        return torch.zeros_like(values)
    count = mask.sum()
    # Equal entries are exactly zero from the first, so eps never magnifies rounding.
    relative = torch.where(mask, values - values[mask][0], 0.0)
    centred = torch.where(mask, relative - relative.sum() / count, 0.0)
    deviation = (centred.square().sum() / (count - 1).clamp(min=1)).sqrt()
    return centred / (deviation + eps)


def reinforce_plus_plus(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Whitened returns of token rewards [batch, time]: REINFORCE++ (Hu et al. 2025, arXiv 2501.03262).

    Its rewards are the outcome at the last token minus beta * k1 at every token (`clew.learn.kl`). Dividing by the
    deviation scales the gradient of the whole batch, not that of one problem against another.
    """
    return whitened(discounted_returns(rewards, mask, gamma=gamma), mask)


def reinforce_plus_plus_baseline(rewards: Tensor, mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """Rewards [..., G] minus the group's mean, then whitened over all tokens of `mask` [..., G, time].

    REINFORCE++-baseline (arXiv 2501.03262). Tokens of samples that are not `valid` [..., G] enter nothing.
    """
    scored = mask if valid is None else mask & valid[..., None]
    return whitened(group_centred(rewards, valid)[..., None].expand(mask.shape), scored)
