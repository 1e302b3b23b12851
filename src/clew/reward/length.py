"""Rewards of length: pure functions, and the terms that apply them to a group. Lengths are in tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from clew.core.errors import InvalidValue
from clew.core.types import Group, Trajectory


def soft_overlong(length: int, *, longest: int, margin: int) -> float:
    """0 up to `longest - margin`, then falling evenly to -1 at `longest`, and -1 beyond (arXiv 2503.14476, eq. 13).

    >>> [soft_overlong(n, longest=1280, margin=256) for n in (1024, 1152, 1280, 2000)]
    [0.0, -0.5, -1.0, -1.0]
    """
    return max(-1.0, min(0.0, (longest - margin - length) / margin))


def relative_length(lengths_G: Sequence[int], right_G: Sequence[bool]) -> list[float]:
    """Reward of each answer [G] for being short among those of its group (Kimi k1.5, arXiv 2501.12599, section 2.3.3).

    lambda = 0.5 - (length - min) / (max - min); a right answer gets lambda, a wrong one min(0, lambda): it gains
    nothing by being short. 0 for all where all are equally long.

    >>> relative_length([10, 20, 30], [True, True, False])
    [0.5, 0.0, -0.5]
    """
    if not lengths_G or min(lengths_G) == max(lengths_G):
        return [0.0] * len(lengths_G)
    shortest, spread = min(lengths_G), max(lengths_G) - min(lengths_G)
    lambdas_G = [0.5 - (length - shortest) / spread for length in lengths_G]
    return [lam if right else min(0.0, lam) for lam, right in zip(lambdas_G, right_G, strict=True)]


def cosine_between(length: int, *, longest: int, at_zero: float, at_longest: float) -> float:
    """From `at_zero` to `at_longest` along half a cosine over lengths 0 to `longest` (arXiv 2502.03373, section 4.2).

    >>> [cosine_between(n, longest=100, at_zero=2.0, at_longest=1.0) for n in (0, 50, 100)]
    [2.0, 1.5, 1.0]
    """
    return at_longest + (at_zero - at_longest) * (1.0 + math.cos(math.pi * length / longest)) / 2.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Overlong:
    """Term: the soft punishment of overlong answers of DAPO, in [-weight, 0]."""

    name: ClassVar[str] = "overlong"

    longest: int = 240
    """Tokens from which the punishment is whole: `max_tokens` of the sampling."""
    margin: int = 48
    """Tokens before that over which it grows."""
    weight: float = 1.0
    """What the whole punishment is."""

    def __post_init__(self) -> None:
        if not 0 < self.margin <= self.longest:
            accepted = f"1 to {self.longest}, the tokens from which the punishment is whole"
            raise InvalidValue("overlong margin", self.margin, accepted, "use a fifth of longest")

    def rate(self, group: Group) -> list[float]:
        return [
            self.weight * soft_overlong(tokens_of(t), longest=self.longest, margin=self.margin)
            for t in group.trajectories
        ]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeLength:
    """Term: short answers over long ones of the same group, as Kimi k1.5 has it, in [-weight / 2, weight / 2].

    What is unscored counts neither as short nor as long, and gets 0.
    """

    name: ClassVar[str] = "relative-length"

    weight: float = 0.1
    """What the spread of a group is worth."""

    def rate(self, group: Group) -> list[float]:
        scored = group.scored
        found = iter(relative_length([tokens_of(t) for t in scored], [t.verdict.right for t in scored]))
        kept = {id(t) for t in scored}
        return [self.weight * next(found) if id(t) in kept else 0.0 for t in group.trajectories]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CosineLength:
    """Term: short right answers over long ones, long wrong answers over short ones (arXiv 2502.03373): who does not
    know should think longer. It stands in the place of the verifier's reward, not beside it.
    """

    name: ClassVar[str] = "cosine-length"

    longest: int = 240
    """Tokens of the longest answer; one that has as many or more gets `exceeded`."""
    right_short: float = 1.0
    """Reward of a right answer of no length."""
    right_long: float = 0.5
    """Reward of the longest right answer."""
    wrong_short: float = -1.0
    """Reward of a wrong answer of no length."""
    wrong_long: float = -0.5
    """Reward of the longest wrong answer."""
    exceeded: float = -1.0
    """Reward of an answer that reaches `longest`."""

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise InvalidValue("cosine-length longest", self.longest, "at least 1 token", "use max_tokens")

    def rate(self, group: Group) -> list[float]:
        return [self._one(t) for t in group.trajectories]

    def _one(self, trajectory: Trajectory) -> float:
        length = tokens_of(trajectory)
        if length >= self.longest:
            return self.exceeded
        right = trajectory.verdict.right
        ends = (self.right_short, self.right_long) if right else (self.wrong_short, self.wrong_long)
        return cosine_between(length, longest=self.longest, at_zero=ends[0], at_longest=ends[1])


def tokens_of(trajectory: Trajectory) -> int:
    """Length of the response, its stop token included."""
    return len(trajectory.state.tokens)
