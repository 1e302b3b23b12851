"""Reading contexts into the cache of the rows that continue them: each token is computed once, if it was not before.

Contexts are cut where the prefix cache ends; the tokens left, however many of each, go through the model packed
together, without padding. Those that begin alike take turns, so that the later finds what the earlier has read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clew.models.incremental import IncrementalForward, RowCache
from clew.models.prefix_cache import NOWHERE, PrefixCache, Slots, last

TOKENS_AT_ONCE = 1024
"""Tokens of one pass; beyond them its memory leaves the processor's cache."""


@dataclass(slots=True)
class Context:
    """The tokens in front of a completion and what reading them took."""

    tokens: tuple[int, ...]
    path: Slots = field(default_factory=lambda: NOWHERE)
    """Where the prefix cache holds them, or the beginning of them."""
    read: int = 0
    reread: int = 0
    awaits: int = 0
    """Of those read, tokens that are not computed before what is drawn first, but with it."""


class Reader:
    """Reads contexts through `forward`, with what `prefixes` holds if there is such a cache."""

    def __init__(self, forward: IncrementalForward, prefixes: PrefixCache | None) -> None:
        self.forward, self.prefixes = forward, prefixes

    def read(self, contexts: Sequence[Context], cache: RowCache, states: list[Tensor] | None = None) -> Tensor:
        """Fill row i of `cache` with context i up to the column where all end; the hidden states after the contexts.

        They are [contexts, width]. The hidden states of all tokens of a context go to `states` if it is given.
        """
        hidden = torch.empty(len(contexts), self.forward.shape.width)
        if states is not None:
            states += [torch.empty(len(context.tokens), hidden.shape[1]) for context in contexts]
        pending = list(range(len(contexts)))
        in_turns = self.prefixes is not None
        while pending:
            chunk, pending = self._next_chunk(contexts, pending, in_turns=in_turns)
            in_turns = self._read_chunk(contexts, np.array(chunk), cache, hidden, states)
        return hidden

    def _next_chunk(
        self, contexts: Sequence[Context], pending: list[int], *, in_turns: bool
    ) -> tuple[list[int], list[int]]:
        """What to read next, and what later. Those that take turns do not share a token that is not held."""
        chunk: list[int] = []
        later: list[int] = []
        begun: set[tuple[int, int]] = set()
        total = 0
        for place, index in enumerate(pending):
            context = contexts[index]
            if self.prefixes is not None:
                context.path = self.prefixes.find(context.tokens)
            unread = context.tokens[len(context.path) :]
            if chunk and total + len(unread) > TOKENS_AT_ONCE:
                return chunk, [*later, *pending[place:]]
            edge = (last(context.path), unread[0]) if unread else None
            if in_turns and edge is not None and edge in begun:
                later.append(index)
                continue
            if edge is not None:
                begun.add(edge)
            chunk.append(index)
            total += len(unread)
        return chunk, later

    def _read_chunk(
        self,
        contexts: Sequence[Context],
        chunk: NDArray[np.int64],
        cache: RowCache,
        hidden: Tensor,
        states: list[Tensor] | None,
    ) -> bool:
        """Whether the prefix cache had room for all of it."""
        some = [contexts[index] for index in chunk]
        held = np.array([len(context.path) for context in some])
        unread = [context.tokens[start:] for context, start in zip(some, held.tolist(), strict=True)]
        counts = np.array([len(tokens) for tokens in unread])
        first = cache.padding[chunk]
        if held.any() and self.prefixes is not None:
            slots = np.concatenate([context.path for context in some])
            cache.load(self.prefixes, slots, np.repeat(chunk, held), ranges(first, held))
            ends = np.array([last(context.path) for context in some])
            hidden[chunk] = torch.from_numpy(self.prefixes.hidden[ends])
        tokens = np.array([token for row in unread for token in row], dtype=np.int64)
        out = hidden[:0]
        if len(tokens):
            scratch = self.forward.scratch(len(tokens))
            out = self.forward.run(tokens, np.repeat(chunk, counts), ranges(first + held, counts), cache, scratch)
            computed = counts > 0
            hidden[chunk[computed]] = out[counts.cumsum()[computed] - 1]
        if states is not None:
            self._record(some, out.split(counts.tolist()), [states[index] for index in chunk])
        if self.prefixes is None:
            for context, count in zip(some, counts.tolist(), strict=True):
                context.read = count
            return False
        return self._keep(some, unread, cache, chunk, first + held, out)

    def _record(self, contexts: list[Context], read: Sequence[Tensor], states: list[Tensor]) -> None:
        for context, computed, into in zip(contexts, read, states, strict=True):
            if self.prefixes is not None:
                into[: len(context.path)] = torch.from_numpy(self.prefixes.hidden[context.path])
            into[len(context.path) :] = computed

    def _keep(
        self,
        contexts: list[Context],
        unread: list[tuple[int, ...]],
        cache: RowCache,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        out: Tensor,
    ) -> bool:
        assert self.prefixes is not None
        counts = np.array([len(tokens) for tokens in unread])
        source = Source(cache, rows, columns, out.numpy(), counts.cumsum() - counts)
        kept = keep(self.prefixes, [context.path for context in contexts], unread, source)
        for context, tokens, (path, repeated) in zip(contexts, unread, kept, strict=True):
            context.read, context.reread, context.path = len(tokens), repeated, path
        return all(len(context.path) == len(context.tokens) for context in contexts)


@dataclass(frozen=True, slots=True)
class Source:
    """Where what is to be kept of some continuations stands: of each the row and the first column in `cache`, and the
    first row in `hidden` [tokens, width]; all of it follows from there.
    """

    cache: RowCache
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    hidden: NDArray[np.float32]
    places: NDArray[np.int64]


class Kept(NamedTuple):
    """The path as far as there was room, and how many of the tokens to be kept had been computed before."""

    path: Slots
    repeated: int


def keep(
    prefixes: PrefixCache, paths: Sequence[Slots], continuations: Sequence[Sequence[int]], source: Source
) -> list[Kept]:
    """Put `continuations` below `paths`, as far as there is room."""
    kept, known, slots = [], [], []
    with prefixes.adding():
        for path, tokens in zip(paths, continuations, strict=True):
            lost = prefixes.num_lost(path, tokens)
            longer, held = prefixes.add(path, tokens)
            kept.append(Kept(longer, held + lost))
            known.append(held)
            slots.append(longer[len(path) + held :])
        counts = np.array([len(new) for new in slots])
        if counts.any():
            skipped, new = np.array(known), np.concatenate(slots)
            columns = ranges(source.columns + skipped, counts)
            source.cache.keep(prefixes, new, np.repeat(source.rows, counts), columns)
            prefixes.hidden[new] = source.hidden[ranges(source.places + skipped, counts)]
    return kept


def ranges(firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """firsts[i], firsts[i] + 1, ..., `counts[i]` numbers each, one after another.

    >>> ranges(np.array([5, 0, 8]), np.array([2, 0, 3])).tolist()
    [5, 6, 8, 9, 10]
    """
    before = counts.cumsum() - counts
    return np.arange(counts.sum()) + np.repeat(firsts - before, counts)
