"""Problems that teach: those that the policy solves about half of the time.

With a reward of 0 or 1 and pass rate p, the variance of a sample's reward is p (1 - p): the size of a policy gradient
with a baseline, and zero for a problem that is always or never solved. `Estimates` keeps what is known of each problem
as a Beta distribution; `chosen` takes those of the highest expected p (1 - p).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, final

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import Group


class Tally(NamedTuple):
    """How many of a problem's judged samples were right; fractions, once they have been forgotten in part."""

    right: float
    judged: float


def tallies(groups: Iterable[Group]) -> dict[str, Tally]:
    """Of each problem, by id, over all its groups; samples that could not be judged are left out."""
    found: dict[str, Tally] = {}
    for group in groups:
        before = found.get(group.problem.id, Tally(0.0, 0.0))
        right = sum(trajectory.verdict.right for trajectory in group.scored)
        if group.scored:
            found[group.problem.id] = Tally(before.right + right, before.judged + len(group.scored))
    return found


def sampled_signal(right: int, judged: int) -> float | None:
    """Unbiased estimate of p (1 - p) from `right` of `judged` samples of one problem; None from fewer than two.

    >>> sampled_signal(2, 4), sampled_signal(4, 4), sampled_signal(1, 1)
    (0.3333333333333333, 0.0, None)

    The mean over problems is the signal of a set of problems. That of their mean pass rate is not: half of them always
    solved and half never have pass rate 1/2 and teach nothing.
    """
    if not 0 <= right <= judged:
        raise InvalidValue("number right", right, f"an integer from 0 to {judged}", "count both over the same samples")
    return right * (judged - right) / (judged * (judged - 1)) if judged > 1 else None


def expected_signal(a: float, b: float) -> float:
    """E[p (1 - p)] for p ~ Beta(a, b) = a b / ((a + b) (a + b + 1)).

    >>> expected_signal(1, 1), expected_signal(3, 3) > expected_signal(1, 1) > expected_signal(1, 5)
    (0.16666666666666666, True)
    """
    if not (a > 0.0 and b > 0.0 and math.isfinite(a + b)):
        raise InvalidValue("parameters of a Beta distribution", (a, b), "two positive numbers", "use 1 and 1")
    return a * b / ((a + b) * (a + b + 1.0))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """Running estimates of pass rates; a value, so that learning something gives a new one."""

    prior_right: float = 1.0
    """Beta prior of a problem's pass rate: as if so many samples had been right ..."""
    prior_wrong: float = 1.0
    """... and so many wrong. The default expects every pass rate alike."""
    keep: float = 0.5
    """Share of what is known that is kept each round, because the policy moves on: 1 forgets nothing, 0 all."""
    known: Mapping[str, Tally] = field(default_factory=dict)
    """By problem id."""

    def __post_init__(self) -> None:
        expected_signal(self.prior_right, self.prior_wrong)
        if not 0.0 <= self.keep <= 1.0:
            raise InvalidValue("keep", self.keep, "a share from 0 to 1", "use 1 to forget nothing")

    def after_round(self, seen: Mapping[str, Tally]) -> Estimates:
        """What is known after a round that saw `seen`."""
        kept = {name: Tally(self.keep * t.right, self.keep * t.judged) for name, t in self.known.items()}
        for name, tally in seen.items():
            before = kept.get(name, Tally(0.0, 0.0))
            kept[name] = Tally(before.right + tally.right, before.judged + tally.judged)
        return replace(self, known=kept)

    def pass_rate(self, name: str) -> float:
        """Posterior mean."""
        a, b = self._beta(name)
        return a / (a + b)

    def signal(self, name: str) -> float:
        """Expected p (1 - p)."""
        return expected_signal(*self._beta(name))

    def _beta(self, name: str) -> tuple[float, float]:
        tally = self.known.get(name, Tally(0.0, 0.0))
        return self.prior_right + tally.right, self.prior_wrong + tally.judged - tally.right


def chosen(names: Sequence[str], estimates: Estimates, n: int, *, seed: int) -> list[str]:
    """The `n` of `names` (all, if there are fewer) of the highest expected signal, of equals a choice by `seed`.

    A problem that was not seen is worth more than one that seems too hard or too easy, and less than one known to be
    solved half of the time.
    """
    if n < 0:
        raise InvalidValue("number of problems", n, "an integer of at least 0", "raise it")
    order = sorted(names, key=lambda name: (-estimates.signal(name), derive_seed(seed, "curriculum", name)))
    return order[:n]
