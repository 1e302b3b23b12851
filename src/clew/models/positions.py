"""Which positions of a batch a causal model has to compute: equal beginnings of rows once, what no target needs never.

The samples of a group begin with the same prompt, whose hidden states depend on nothing that comes later. So what
stands between the attentions is computed for distinct positions alone, and handed to every row that begins alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

WORTHWHILE = 0.95
"""Share of the positions that may be left before the rest is not worth the copies."""


class Positions(NamedTuple):
    """Those of `computed` stand for all positions of a batch."""

    computed: Tensor
    """[tokens] long: flat indices into [batch, time]."""
    places: Tensor
    """[batch * time] long: which of `computed` holds the value of each position; 0 where no target needs it."""


def distinct_positions(input_ids: Tensor, target_mask: Tensor) -> Positions | None:
    """The positions of `input_ids` [batch, time] that targets in `target_mask` [batch, time] need, equal ones once.

    Two positions are equal if their rows are, up to and with them. None if there is little or nothing to leave out.

    >>> ids, mask = torch.tensor([[5, 6, 7], [5, 6, 8]]), torch.tensor([[False, True, True], [False, True, False]])
    >>> distinct_positions(ids, mask)
    Positions(computed=tensor([0, 1, 2]), places=tensor([0, 1, 2, 0, 1, 0]))
    """
    ids, mask = input_ids.numpy(), target_mask.numpy()
    batch, time = ids.shape
    # Sorted rows that begin alike are neighbours: each position then belongs to the last row before that differs there.
    order = np.array(sorted(range(batch), key=lambda row: ids[row].tobytes()))
    new = np.ones((batch, time), np.bool_)
    new[1:] = np.logical_or.accumulate(ids[order[1:]] != ids[order[:-1]], axis=1)
    owner = np.maximum.accumulate(np.where(new, np.arange(batch)[:, None], 0), axis=0)
    needed = np.logical_or.accumulate(mask[order, ::-1], axis=1)[:, ::-1]
    times = np.broadcast_to(np.arange(time), ids.shape)
    computed = np.zeros((batch, time), np.bool_)
    computed[owner[needed], times[needed]] = True
    count = int(computed.sum())
    if not 0 < count <= WORTHWHILE * batch * time:
        return None
    number = np.where(computed, np.cumsum(computed).reshape(batch, time) - 1, 0)
    places = np.empty((batch, time), np.int64)
    places[order] = number[owner, times]
    flat = order[:, None] * time + times
    return Positions(torch.from_numpy(flat[computed]), torch.from_numpy(places.reshape(-1)))
