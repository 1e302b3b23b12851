"""What the prefix cache keeps of a token, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Shape(NamedTuple):
    """Sizes of what is kept of one token."""

    layers: int
    kv_heads: int
    head_width: int
    width: int
    vocabulary: int

    @property
    def bytes(self) -> int:
        """Of keys, values and the hidden state, float32."""
        return 4 * (2 * self.layers * self.kv_heads * self.head_width + self.width)


@dataclass(slots=True)
class Counts:
    """Tokens since the cache was made or last forgot."""

    read: int = 0
    """Of contexts, computed."""
    decoded: int = 0
    """Of completions, computed. Not the last of each, which is read when the completion is continued, and not those
    that were held, or that a sibling had computed when they were drawn."""
    served: int = 0
    """Of contexts, not computed, because they were held or read for a sibling."""
    reread: int = 0
    """Of those read, computed before and evicted since, or not kept for want of room."""
    evicted: int = 0

    @property
    def computed(self) -> int:
        return self.read + self.decoded


class ReadingCost(Protocol):
    """Of one context, in tokens."""

    @property
    def read(self) -> int: ...
    @property
    def cached(self) -> int: ...
    @property
    def reread(self) -> int: ...
