"""Where samples begin to compute: those whose tokens are held by the prefix cache walk along it first.

The distribution after a token that is held follows from its hidden state, so that a sample goes on without the model
for as long as the tokens it draws are held. It leaves where one is not: that token is the first that it computes. The
last token of a context, if it is the only one not held, is computed in the same way, and not read before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clew.models.branches import Branches, Keeper, Places
from clew.models.incremental import RowCache
from clew.models.prefix_cache import NOT_HELD, PrefixCache, last
from clew.models.reading import Context, Reader, ranges
from clew.models.written import Written


@dataclass(frozen=True, slots=True)
class _Read:
    """Contexts that were read because more than their last token was not held."""

    which: list[int]
    cache: RowCache
    width: int
    """Columns of `cache`."""
    hidden: Tensor
    """After each of them."""


@dataclass(slots=True)
class _Front:
    """Where the samples of a batch stand."""

    owners: Places
    """[samples]: the context of each."""
    slots: Places
    """[samples]: in the prefix cache; `NOT_HELD` where there was no room for the context."""
    tokens: Places
    """[samples]: what each computes next."""
    under_way: NDArray[np.bool_]
    """[samples]: whether there is anything to compute."""


def begin(
    reader: Reader, prefixes: PrefixCache, contexts: Sequence[Context], owners: Places, written: Written
) -> tuple[Branches, Keeper]:
    """Branches of the samples of `contexts`, `owners` [samples], as they are once no token that is held is left.

    Contexts must be distinct. A token of theirs that is still to be computed counts as read.
    """
    read = _read(reader, prefixes, contexts)
    slots = np.array([last(context.path) for context in contexts])
    missing = np.array([len(context.tokens) - len(context.path) for context in contexts])
    lost = np.array([context.read > 0 for context in contexts]) & (missing > 0)
    slots[lost] = NOT_HELD
    for index in np.flatnonzero((missing > 0) & ~lost).tolist():
        context = contexts[index]
        context.read = context.awaits = 1
        context.reread = prefixes.num_lost(context.path, context.tokens[-1:])
    final = np.array([context.tokens[-1] for context in contexts])
    front = _Front(owners, slots[owners], final[owners], np.ones(len(owners), np.bool_))
    if read is not None and lost.any():
        rows = np.full(len(contexts), -1)
        rows[read.which] = np.arange(len(read.which))
        _draw(front, np.flatnonzero(lost[owners]), rows[owners], read.hidden @ reader.forward.unembedding, written)
    _walk(front, np.flatnonzero((missing == 0)[owners]), reader.forward.unembedding, prefixes, written)
    return _branches(front, contexts, read, reader, prefixes, written)


def _read(reader: Reader, prefixes: PrefixCache, contexts: Sequence[Context]) -> _Read | None:
    for context in contexts:
        context.path = prefixes.find(context.tokens)
    which = [i for i, context in enumerate(contexts) if len(context.tokens) - len(context.path) > 1]
    if not which:
        return None
    lengths = np.array([len(contexts[index].tokens) for index in which])
    width = int(lengths.max())
    cache = reader.forward.new_cache(width - lengths, width)
    hidden = reader.read([contexts[index] for index in which], cache)
    for index in set(range(len(contexts))).difference(which):
        contexts[index].path = prefixes.find(contexts[index].tokens)
    return _Read(which, cache, width, hidden)


def _draw(front: _Front, samples: Places, rows: Places, logits: Tensor, written: Written) -> Places:
    """Let `samples` draw, each from its one of `rows` [all samples] of `logits`; those that go on."""
    drawn, go_on = written.draw(samples, rows[samples], logits)
    front.tokens[samples], front.under_way[samples] = drawn, go_on
    return samples[go_on]


def _walk(front: _Front, samples: Places, unembedding: Tensor, prefixes: PrefixCache, written: Written) -> None:
    """Let `samples`, whose contexts are held, draw until they reach what is not."""
    rows = np.empty(len(front.slots), np.int64)
    while len(samples):
        stops, rows[samples] = np.unique(front.slots[samples], return_inverse=True)
        samples = _draw(front, samples, rows, torch.from_numpy(prefixes.hidden[stops]) @ unembedding, written)
        children = prefixes.children(front.slots[samples], front.tokens[samples])
        samples, children = samples[children != NOT_HELD], children[children != NOT_HELD]
        front.slots[samples] = children


def _branches(
    front: _Front,
    contexts: Sequence[Context],
    read: _Read | None,
    reader: Reader,
    prefixes: PrefixCache,
    written: Written,
) -> tuple[Branches, Keeper]:
    forward = reader.forward
    samples = np.flatnonzero(front.under_way)
    slots, owners, tokens = front.slots[samples], front.owners[samples], front.tokens[samples]
    # A context that is not held is a place of its own, behind all slots.
    places = np.where(slots == NOT_HELD, prefixes.capacity + 1 + owners, slots)
    _, first, inverse = np.unique(places * forward.shape.vocabulary + tokens, return_index=True, return_inverse=True)
    order = inverse.argsort(kind="stable")
    slots, owners = slots[first], owners[first]
    held = slots != NOT_HELD
    lengths = np.array([len(contexts[owner].tokens) for owner in owners.tolist()], dtype=np.int64)
    lengths[held] = prefixes.lengths(slots[held])
    width = int(lengths.max(initial=0))
    more = written.sampling.max_tokens - written.counts[samples].min(initial=written.sampling.max_tokens)
    cache = forward.new_cache(width - lengths, int(width + more), len(samples))
    rows = np.flatnonzero(held)
    cache.load(
        prefixes,
        prefixes.paths(slots[held]),
        np.repeat(rows, lengths[held]),
        ranges(cache.padding[rows], lengths[held]),
    )
    digests = prefixes.digests(slots)
    if read is not None and not held.all():
        place = {index: row for row, index in enumerate(read.which)}
        rows = np.flatnonzero(~held)
        from_rows = np.array([place[owner] for owner in owners[rows].tolist()])
        read.cache.copy(from_rows, read.width, cache, rows, width)
        for row, owner in zip(rows.tolist(), owners[rows].tolist(), strict=True):
            digests[row] = prefixes.digest(contexts[owner].path, contexts[owner].tokens[len(contexts[owner].path) :])
    branches = Branches(cache, width, samples[order], inverse[order], forward.shape.vocabulary)
    branches.tokens = tokens[first]
    return branches, Keeper(prefixes, slots, digests)
