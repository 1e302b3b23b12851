"""A replay buffer: what earlier rounds found, as long as it is fresh enough to learn from.

A buffer is a value: adding gives a new one. Age is counted in rounds, because policies change between rounds, not
within one; which policy wrote an item is in its `version`. On disk it is one stage of a trajectory store.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, final

from clew.core.errors import InvalidValue, RunDirectoryError
from clew.core.seeds import derive_seed
from clew.core.types import Group
from clew.data.store import TrajectoryStore

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One item of a buffer."""

    item: T
    round: int
    """The round that added it."""
    version: str = ""
    """The policy that wrote it."""


Weight = Callable[[int], float]
"""From the age of an entry, in rounds, to how likely it is drawn: positive and finite."""


def uniformly(age: int) -> float:
    """Every entry alike, whatever its age."""
    return 1.0


@final
@dataclass(frozen=True, slots=True)
class Recency:
    """An entry of age `half_life` is drawn half as often as one of this round."""

    half_life: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.half_life < math.inf:
            raise InvalidValue("half_life", self.half_life, "a positive number of rounds", "use 1")

    def __call__(self, age: int) -> float:
        return float(2.0 ** (-age / self.half_life))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayBuffer(Generic[T]):
    """Entries, oldest first; at most `capacity` of them, none older than `max_age` rounds."""

    capacity: int
    """Most entries; the oldest go first."""
    max_age: int | None = None
    """Rounds that an entry may be behind: 0 keeps those of this round alone (on-policy); None: no bound."""
    round: int = 0
    """The round that is under way."""
    entries: tuple[Entry[T], ...] = ()

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise InvalidValue("capacity", self.capacity, "an integer of at least 1", "raise it")
        if self.max_age is not None and self.max_age < 0:
            raise InvalidValue(
                "max_age", self.max_age, "a number of rounds, at least 0, or none", "use 0 for on-policy"
            )

    def __len__(self) -> int:
        return len(self.entries)

    def added(self, items: Iterable[T], *, version: str = "") -> ReplayBuffer[T]:
        """With `items` of this round, the last of them the youngest."""
        new = tuple(Entry(item, self.round, version) for item in items)
        return replace(self, entries=(*self.entries, *new)[-self.capacity :])

    def next_round(self) -> ReplayBuffer[T]:
        """One round later, without what is too old then."""
        now = self.round + 1
        fresh = tuple(one for one in self.entries if self.max_age is None or now - one.round <= self.max_age)
        return replace(self, round=now, entries=fresh)

    def age(self, entry: Entry[T]) -> int:
        """Rounds since it was added."""
        return self.round - entry.round

    def ages(self) -> list[int]:
        """Of every entry, oldest first: for logs."""
        return [self.age(entry) for entry in self.entries]

    def stale(self, version: str) -> float:
        """Share of entries that another policy than `version` wrote; 0 for an empty buffer."""
        return sum(entry.version != version for entry in self.entries) / max(1, len(self.entries))

    def sample(self, n: int, *, seed: int, weight: Weight = uniformly) -> list[Entry[T]]:
        """`n` different entries drawn by `weight` of their age, in random order; all of them if there are fewer.

        The same seed, round and entries give the same draw. (Efraimidis and Spirakis 2006: the largest u^(1/w).)
        """
        if n < 0:
            raise InvalidValue("number of entries", n, "an integer of at least 0", "raise it")
        rng = random.Random(derive_seed(seed, "replay", self.round))
        # Logarithms, because u^(1/w) is 0 for small weights.
        keys = [math.log(1.0 - rng.random()) / self._weight(weight, entry) for entry in self.entries]
        order = sorted(range(len(keys)), key=lambda at: keys[at], reverse=True)
        return [self.entries[at] for at in order[:n]]

    def _weight(self, weight: Weight, entry: Entry[T]) -> float:
        value = weight(self.age(entry))
        if not 0.0 < value < math.inf:
            accepted = "a positive, finite number for every age"
            raise InvalidValue(f"weight at age {self.age(entry)}", value, accepted, "bound the age by max_age")
        return value


def save_buffer(store: TrajectoryStore, buffer: ReplayBuffer[Group], *, name: str = "replay") -> None:
    """Put `buffer` into stage `name` of `store`, in place of the one that is there: all of it, or nothing when killed.

    Trajectories that could not be judged, and groups that have no other, teach nothing and are left out.
    """
    store.replace(name, [_marked(entry) for entry in buffer.entries if entry.item.scored])


def load_buffer(
    store: TrajectoryStore, *, capacity: int, round: int, max_age: int | None = None, name: str = "replay"
) -> ReplayBuffer[Group]:
    """The buffer that `save_buffer` put there, as it is in `round`: what is too old by then is left out.

    Equal to what was saved but for what the store does not keep. Raises `RunDirectoryError` for entries of a later
    round, and for a stage that holds something else.
    """
    entries = [_unmarked(group, store) for group in store.groups(name)]
    late = max((entry.round for entry in entries), default=round)
    if late > round:
        accepted = f"a buffer of round {round} or before"
        advice = "give the round it was saved in, or another name"
        raise RunDirectoryError(f"{store.path} has entries of round {late}", accepted, advice)
    fresh = tuple(entry for entry in entries if max_age is None or round - entry.round <= max_age)
    return ReplayBuffer(capacity=capacity, max_age=max_age, round=round, entries=fresh[-capacity:])


def _marked(entry: Entry[Group]) -> Group:
    """The judged trajectories of an entry, whose round and version travel in their provenance."""
    return replace(
        entry.item,
        trajectories=tuple(
            replace(one, provenance=replace(one.provenance, stage=_mark(entry, one.provenance.stage)))
            for one in entry.item.scored
        ),
    )


def _mark(entry: Entry[Group], stage: str) -> str:
    return json.dumps({"stage": stage, "round": entry.round, "version": entry.version})


def _unmarked(group: Group, store: TrajectoryStore) -> Entry[Group]:
    try:
        marks = [json.loads(one.provenance.stage) for one in group.trajectories]
        trajectories = tuple(
            replace(one, provenance=replace(one.provenance, stage=mark["stage"]))
            for one, mark in zip(group.trajectories, marks, strict=True)
        )
        return Entry(replace(group, trajectories=trajectories), int(marks[0]["round"]), str(marks[0]["version"]))
    except (ValueError, TypeError, KeyError, IndexError):
        accepted = "a stage that save_buffer wrote"
        given = f"{store.path} has another kind of trajectories under that name"
        raise RunDirectoryError(given, accepted, "give the name of a buffer") from None
