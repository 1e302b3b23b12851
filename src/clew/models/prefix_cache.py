"""What a model computed for token paths it has read or written, kept across calls: nodes of a search tree share it.

A trie of tokens. A node owns one slot of two flat arrays: the keys and values of its token, and the final hidden state
after it, from which the next token's distribution follows. So a path that is held as a whole is continued without
reading anything. Memory is bounded; what was used longest ago goes first, and a node never before those below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

import numpy as np
from numpy.typing import NDArray

from clew.core.errors import InvalidValue
from clew.models import column_kernels
from clew.models.path_digests import digests_below
from clew.models.prefix_counts import Counts, ReadingCost, Shape

ROOT = 0
"""The slot of the empty path; it holds nothing."""
NOT_HELD = -1
"""In the place of a slot."""
EVICTED_AT_ONCE = 1 / 16
"""Share of the slots that are freed together, because finding the oldest costs a pass over all."""

Slots = NDArray[np.int64]
NOWHERE: Slots = np.zeros(0, dtype=np.int64)
"""The empty path."""


class PrefixCache:
    """Holds as many tokens as fit into `size` bytes; threads may share it.

    Besides, the trie takes about 150 bytes a token held, and the mark of each token evicted about 90.
    """

    def __init__(self, size: int, shape: Shape) -> None:
        self.capacity = size // shape.bytes
        if self.capacity < 1:
            accepted = f"at least {shape.bytes}, what one token takes, or 0 for no cache"
            raise InvalidValue("size of the prefix cache in bytes", size, accepted, "raise it")
        self.shape = shape
        slots = self.capacity + 1
        # The operating system gives memory to pages once they are written to: an idle cache costs none.
        self.keys_values = np.empty((slots, shape.layers, 2, shape.kv_heads, shape.head_width), dtype=np.float32)
        """[slots, layers, keys and values, kv_heads, head_width]"""
        self.hidden = np.empty((slots, shape.width), dtype=np.float32)
        """[slots, width], normalised."""
        self._edge, self._digest, self._depth, self._used_at = np.zeros((4, slots), dtype=np.int64)
        self._depth[ROOT] = -1
        self._lock = RLock()
        self._clock = 1
        self._running: list[int] = []
        self._unused = ROOT + 1
        self.forget()

    def forget(self) -> None:
        """Drop everything, counts too: the weights have changed, or another search begins."""
        with self._lock:
            self._children: dict[int, int] = {}
            """(slot of the parent) * vocabulary + token -> slot"""
            self._used_at[: self._unused] = 0
            self._unused = ROOT + 1
            """The first of the slots that were never given away; those before it are taken or in `_free`."""
            self._free: list[int] = []
            self._lost: set[int] = set()
            """Digests of the paths that were computed and are not held."""
            self.counts = Counts()

    def count(self, costs: Iterable[ReadingCost], decoded: int = 0) -> None:
        """Add what contexts cost, and how many sampled tokens were computed."""
        with self._lock:
            counts = self.counts
            counts.decoded += decoded
            for cost in costs:
                counts.read += cost.read
                counts.served += cost.cached
                counts.reread += cost.reread

    def __len__(self) -> int:
        """Tokens held."""
        return len(self._children)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """What is found or added while this lasts is not evicted while it lasts."""
        with self._lock:
            start = self._clock
            self._clock += 1
            self._running.append(start)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(start)

    @contextmanager
    def adding(self) -> Iterator[None]:
        """No other thread sees what is added before this ends: by then, its arrays must have been written."""
        with self._lock:
            written = False
            try:
                yield
                written = True
            finally:
                if not written:
                    self.forget()

    def find(self, tokens: Sequence[int]) -> Slots:
        """The slots of the longest beginning of `tokens` that is held."""
        with self._lock:
            path = np.array(self._walk(ROOT, tokens), dtype=np.int64)
            self._touch(path)
            return path

    def add(self, path: Slots, tokens: Sequence[int]) -> tuple[Slots, int]:
        """Put `tokens` below `path`: the path through them, and how many of them were held already.

        The path ends early where there is no room because all that is held is in use.
        """
        at = last(path)
        known = self._walk(at, tokens)
        path = np.concatenate([path, np.array(known, dtype=np.int64)])
        self._touch(path)
        rest = tokens[len(known) :]
        kept = rest[: self._make_room(len(rest))] if rest else rest
        if kept:
            path = self._grow(path, kept)
        if len(kept) < len(rest):
            self.lose(path, rest[len(kept) :])
        return path, len(known)

    def lose(self, path: Slots, tokens: Sequence[int]) -> None:
        """Note that `tokens` were computed below `path` and are not kept."""
        with self._lock:
            self._lost.update(digests_below(int(self._digest[last(path)]), tokens))

    def num_lost(self, path: Slots, tokens: Sequence[int]) -> int:
        """How many of `tokens` below `path` were computed before and are not held."""
        if not self._lost:
            return 0
        with self._lock:
            at = last(path)
            known = self._walk(at, tokens)
            digest = int(self._digest[known[-1] if known else at])
            return sum(digest in self._lost for digest in digests_below(digest, tokens[len(known) :]))

    def children(self, slots: Slots, tokens: Slots) -> Slots:
        """The slots of `tokens` [n] after `slots` [n], all in use; `NOT_HELD` where there is none."""
        with self._lock:
            found = self._children_at(slots * self.shape.vocabulary + tokens)
            held = found != NOT_HELD
            self._used_at[found[held]] = self._times(slots[held])
            return found

    def extend(self, parents: Slots, tokens: Slots, digests: Sequence[int]) -> tuple[Slots, Slots]:
        """Put one of `tokens` [n] below each of `parents` [n], in use or `NOT_HELD`: the slots [n], and which are new.

        A slot is `NOT_HELD` where its parent is, or where there is no room; `digests` [n] are those of the new paths.
        """
        edges = parents * self.shape.vocabulary + tokens
        slots = self._children_at(edges)
        new = np.flatnonzero((parents != NOT_HELD) & (slots == NOT_HELD))
        new = new[: self._make_room(len(new))]
        if len(new):
            taken = np.array([self._free_slot() for _ in new], dtype=np.int64)
            edges, above = edges[new], parents[new]
            self._children.update(zip(edges.tolist(), taken.tolist(), strict=True))
            self._edge[taken], self._depth[taken] = edges, self._depth[above] + 1
            self._digest[taken] = [digests[place] for place in new.tolist()]
            self._used_at[taken] = self._times(above)
            slots[new] = taken
        if NOT_HELD in slots:
            self._lost.update(digests[place] for place in np.flatnonzero(slots == NOT_HELD).tolist())
        return slots, new

    def lengths(self, slots: Slots) -> Slots:
        """Of the paths that end with `slots`, in tokens."""
        return self._depth[slots] + 1

    def paths(self, slots: Slots) -> Slots:
        """The paths that end with `slots`, one after another."""
        lengths = self.lengths(slots)
        found = np.empty(lengths.sum(), np.int64)
        column_kernels.trace(self._edge, self.shape.vocabulary, slots, lengths, found)
        return found

    def digests(self, slots: Slots) -> list[int]:
        """Numbers that stand for the tokens on the paths that end with `slots`; of a slot `NOT_HELD`, for nothing."""
        return self._digest[slots].tolist()

    def digest(self, path: Slots, tokens: Sequence[int]) -> int:
        """The number of `path` and `tokens` after it."""
        return list(digests_below(int(self._digest[last(path)]), tokens))[-1]

    def _children_at(self, edges: Slots) -> Slots:
        get = self._children.get
        return np.array([get(edge, NOT_HELD) for edge in edges.tolist()], dtype=np.int64)

    def _times(self, slots: Slots) -> Slots:
        """When `slots` were used last; the empty path is always in use. No node may be newer than the one above it."""
        return np.where(slots == ROOT, self._clock - 1, self._used_at[slots])

    def _walk(self, at: int, tokens: Sequence[int]) -> list[int]:
        children, vocabulary = self._children, self.shape.vocabulary
        slots = []
        for token in tokens:
            child = children.get(at * vocabulary + token)
            if child is None:
                break
            slots.append(child)
            at = child
        return slots

    def _touch(self, path: Slots) -> None:
        """Note a use. The whole path gets the same time, so no node is ever older than those below it."""
        self._used_at[path] = self._clock
        self._clock += 1

    def _grow(self, path: Slots, tokens: Sequence[int]) -> Slots:
        slots = [self._free_slot() for _ in tokens]
        parents = [last(path), *slots[:-1]]
        edges = [parent * self.shape.vocabulary + token for parent, token in zip(parents, tokens, strict=True)]
        self._children.update(zip(edges, slots, strict=True))
        new = np.array(slots, dtype=np.int64)
        self._edge[new] = edges
        self._digest[new] = list(digests_below(int(self._digest[parents[0]]), tokens))
        self._depth[new] = np.arange(len(path), len(path) + len(new))
        self._used_at[new] = self._clock - 1
        return np.concatenate([path, new])

    def _free_slot(self) -> int:
        if self._free:
            return self._free.pop()
        self._unused += 1
        return self._unused - 1

    def _make_room(self, wanted: int) -> int:
        """How many slots, up to `wanted`, are free after the oldest tokens have made room.

        Tokens in use stay. The deepest of equally old ones go first.
        """
        missing = wanted - self._num_free()
        if missing > 0:
            floor = min(self._running, default=self._clock - 1)
            old = np.flatnonzero((self._used_at > 0) & (self._used_at < floor))
            order = np.lexsort((-self._depth[old], self._used_at[old]))
            self._evict(old[order[: max(missing, int(self.capacity * EVICTED_AT_ONCE))]])
        return min(wanted, self._num_free())

    def _num_free(self) -> int:
        return len(self._free) + self.capacity + 1 - self._unused

    def _evict(self, slots: Slots) -> None:
        for edge in self._edge[slots].tolist():
            del self._children[edge]
        self._lost.update(self._digest[slots].tolist())
        self._used_at[slots] = 0
        self._free += slots.tolist()
        self.counts.evicted += len(slots)


def last(path: Slots) -> int:
    """The slot at the end of `path`."""
    return int(path[-1]) if len(path) else ROOT
