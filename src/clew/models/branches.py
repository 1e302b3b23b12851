"""The samples of a batch, grouped by what they have written: those that stand at the same tokens are one branch.

A branch is one row of the cache and one hidden state, whoever stands on it, so that its token is computed once. Where
its samples draw different tokens it divides: one part keeps the row, the others get copies. Rows that nobody needs any
more are taken by the last ones, so that the branches are always the first rows of the cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clew.models.incremental import RowCache
from clew.models.path_digests import digests_after
from clew.models.prefix_cache import PrefixCache

Places = NDArray[np.int64]


class Branches:
    """Branches whose keys and values end before `column` of `cache`, which has a row for each sample."""

    def __init__(self, cache: RowCache, column: int, samples: Places, owners: Places, vocabulary: int) -> None:
        self.cache, self.column, self.vocabulary = cache, column, vocabulary
        self.samples = samples
        """[samples under way]; those of a branch are neighbours."""
        self.owners = owners
        """[samples under way]: the branch of each."""
        self.tokens = np.zeros(owners.max(initial=-1) + 1, np.int64)
        """[branches]: what comes next, computed for none of them yet."""

    def __len__(self) -> int:
        return len(self.tokens)

    def divide(self, drawn: Places, go_on: NDArray[np.bool_]) -> Places | None:
        """Let each sample that goes on do so with its token of `drawn` [samples]; the others leave.

        Answers with the branch that each of the branches comes from [branches]; None if all are where they were.
        """
        if go_on.all() and self._undivided(drawn):
            return None
        samples, owners = self.samples[go_on], self.owners[go_on]
        distinct, inverse = np.unique(owners * self.vocabulary + drawn[go_on], return_inverse=True)
        parents, tokens = np.divmod(distinct, self.vocabulary)
        places = self._move(parents)
        owners = places[inverse]
        order = owners.argsort(kind="stable")
        self.samples, self.owners = samples[order], owners[order]
        origins = np.empty_like(parents)
        origins[places], self.tokens = parents, np.empty_like(tokens)
        self.tokens[places] = tokens
        return origins

    def _undivided(self, drawn: Places) -> bool:
        """Whether all samples of each branch drew the same token, which is then the branch's next."""
        if len(drawn) == len(self):
            self.tokens = drawn
            return True
        firsts = np.searchsorted(self.owners, np.arange(len(self)))
        tokens = drawn[firsts]
        if not np.array_equal(tokens[self.owners], drawn):
            return False
        self.tokens = tokens
        return True

    def _move(self, parents: Places) -> Places:
        """Rows for new branches, given the rows that they come from [branches], in order, and their contents."""
        first = np.ones(len(parents), np.bool_)
        first[1:] = parents[1:] != parents[:-1]
        stay = first & (parents < len(parents))
        places = parents.copy()
        free = np.ones(len(parents), np.bool_)
        free[parents[stay]] = False
        places[~stay] = np.flatnonzero(free)
        if not stay.all():
            self.cache.copy(parents[~stay], self.column, self.cache, places[~stay], self.column)
        return places


class Keeper:
    """Puts what branches compute into the prefix cache as they go."""

    def __init__(self, prefixes: PrefixCache, slots: Places, digests: list[int]) -> None:
        self.prefixes = prefixes
        self.slots = slots
        """[branches]: where each path ends, `NOT_HELD` if it found no room."""
        self.digests = digests
        """[branches], of these paths."""

    def keep(self, branches: Branches, hidden: Tensor) -> None:
        """Keep what was computed of the branches' tokens, their `hidden` [branches, width] included."""
        prefixes, tokens = self.prefixes, branches.tokens
        self.digests = digests_after(self.digests, tokens.tolist())
        with prefixes.adding():
            self.slots, new = prefixes.extend(self.slots, tokens, self.digests)
            if len(new):
                slots = self.slots[new]
                branches.cache.keep(prefixes, slots, new, np.full(len(new), branches.column))
                prefixes.hidden[slots] = hidden.numpy()[new]

    def divide(self, origins: Places | None) -> None:
        """Follow what `Branches.divide` did."""
        if origins is not None:
            self.slots = self.slots[origins]
            self.digests = [self.digests[origin] for origin in origins.tolist()]
