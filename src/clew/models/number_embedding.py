"""A start for the embeddings of number tokens: Fourier features of n and of log n.

Adding numbers rotates the features of n (arXiv 2502.09741), multiplying them rotates those of log n, so
a model that starts from them learns arithmetic from far fewer examples than from random rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clew.core.errors import InvalidValue

PERIODS = (2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0, 100.0, 256.0, 512.0)
"""Of n: small ones tell neighbours apart and carry divisibility, large ones carry size."""
LOG_PERIODS = (0.15, 0.3, 0.6, 1.2, 2.5, 5.5, 11.0)
"""Of log n (of log 1/2 for 0): the features of a product are exactly those of its factors turned by each other."""

ROLE = 0.6
"""Root mean square of what tells `+ 8` from `8`, where that of the features is 1."""


def number_features(count: int) -> Tensor:
    """Features of the numbers 0 to `count` - 1, [count, 2 * (periods + log periods)], rows of root mean square 1."""
    n = torch.arange(count, dtype=torch.float64)
    angles = [2 * math.pi * n / period for period in PERIODS]
    angles += [2 * math.pi * n.clamp_min(0.5).log() / period for period in LOG_PERIODS]
    stacked = torch.stack(angles, dim=1)
    return torch.cat([stacked.cos(), stacked.sin()], dim=1).mul(math.sqrt(2.0)).float()


@torch.no_grad()
def place_number_features(embedding: Tensor, families: Sequence[list[int]], scale: float) -> None:
    """Write number features into rows of `embedding` [vocab, width], in place, with root mean square `scale`.

    A family holds the token ids of the numbers 0, 1, 2, ... in one role. All families share the directions of the
    features, a random orthonormal map over all of the width; each but the first adds a random vector of its role.
    """
    features = number_features(max(map(len, families)))
    width = embedding.shape[1]
    if features.shape[1] > width:
        accepted = f"at least {features.shape[1]}, the number features that number tokens start from"
        raise InvalidValue("model width", width, accepted, "choose a wider model")
    basis = torch.linalg.qr(torch.randn(width, features.shape[1])).Q
    rows = features @ basis.T * math.sqrt(width / features.shape[1])
    for role, ids in enumerate(families):
        mark = ROLE * torch.randn(width) if role else torch.zeros(width)
        marked = rows[: len(ids)] + mark
        embedding[ids] = marked * (scale / marked.square().mean().sqrt())
