"""Several scorers as one: weighted, cautious where they disagree, the worst of them, or the one for the domain."""

# Legend: M members, N states.

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from clew.core.errors import InvalidValue, UnknownName
from clew.core.protocols import Scorer
from clew.core.types import Completion, Problem, State


def lower_confidence(scores_MN: NDArray[np.float64], k: float) -> NDArray[np.float64]:
    """[N] mean minus k standard deviations over members: what they agree on counts, what one of them invents less.

    The deviation is that of the members there are (division by M), so that one member alone has none. The
    uncertainty-weighted optimisation of arXiv 2310.02743 takes the variance in its place.
    """
    return scores_MN.mean(axis=0) - k * scores_MN.std(axis=0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """Scorer: the weighted mean of its members."""

    members: tuple[Scorer, ...]
    weights: tuple[float, ...] = ()
    """One a member, none negative, not all zero; () for equal ones. Only their ratios count."""

    def __post_init__(self) -> None:
        _check_members(self.members)
        weights = self.weights or (1.0,) * len(self.members)
        if len(weights) != len(self.members) or not all(0 <= w < math.inf for w in weights) or not sum(weights) > 0:
            accepted = f"{len(self.members)} finite numbers of at least 0, not all 0"
            raise InvalidValue("weights", self.weights, accepted, "leave them out for equal weights")

    @property
    def name(self) -> str:
        return f"weighted({_names(self.members)})"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        scores_MN = _all_scores(self.members, states, completions)
        weights_M = np.array(self.weights or (1.0,) * len(self.members))
        return (weights_M @ scores_MN / weights_M.sum()).tolist()

    def cost_tokens(self, states: Sequence[State]) -> int:
        return sum(member.cost_tokens(states) for member in self.members)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Cautious:
    """Scorer: the mean of its members minus k standard deviations (arXiv 2310.02743). They must share one scale."""

    members: tuple[Scorer, ...]
    k: float = 1.0
    """How much disagreement counts; 0 gives the mean, below 0 it seeks what is uncertain."""

    def __post_init__(self) -> None:
        _check_members(self.members)
        if not math.isfinite(self.k):
            raise InvalidValue("k", self.k, "a finite number", "use 1")

    @property
    def name(self) -> str:
        return f"cautious({_names(self.members)})"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        return lower_confidence(_all_scores(self.members, states, completions), self.k).tolist()

    def cost_tokens(self, states: Sequence[State]) -> int:
        return sum(member.cost_tokens(states) for member in self.members)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """Scorer: the lowest of its members (worst-case optimisation, arXiv 2310.02743): fooled only if all are."""

    members: tuple[Scorer, ...]

    def __post_init__(self) -> None:
        _check_members(self.members)

    @property
    def name(self) -> str:
        return f"worst({_names(self.members)})"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        return _all_scores(self.members, states, completions).min(axis=0).tolist()

    def cost_tokens(self, states: Sequence[State]) -> int:
        return sum(member.cost_tokens(states) for member in self.members)


def task_of(problem: Problem) -> str:
    """The problem's task, as its domain."""
    return problem.task


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ByDomain:
    """Scorer: a mixture of experts, each for its own domain; no other than the expert is asked, or paid."""

    experts: Mapping[str, Scorer]
    domain: Callable[[Problem], str] = task_of
    """The name of a problem's domain, from its task or its metadata."""
    otherwise: Scorer | None = None
    """For domains without an expert; None refuses them."""

    @property
    def name(self) -> str:
        return f"by-domain({', '.join(f'{domain}: {expert.name}' for domain, expert in self.experts.items())})"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        """Raises `UnknownName` for a domain that has no expert, if there is none for the others."""
        scores = [0.0] * len(states)
        for domain, places in self._places(states).items():
            expert = self._expert(domain)
            found = expert.score([states[at] for at in places], [completions[at] for at in places])
            for at, score in zip(places, found, strict=True):
                scores[at] = score
        return scores

    def cost_tokens(self, states: Sequence[State]) -> int:
        return sum(
            self._expert(domain).cost_tokens([states[at] for at in places])
            for domain, places in self._places(states).items()
        )

    def _places(self, states: Sequence[State]) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for at, state in enumerate(states):
            places.setdefault(self.domain(state.problem), []).append(at)
        return places

    def _expert(self, domain: str) -> Scorer:
        expert = self.experts.get(domain, self.otherwise)
        if expert is None:
            raise UnknownName("domain of the reward ensemble", domain, self.experts)
        return expert


def _all_scores(
    members: Sequence[Scorer], states: Sequence[State], completions: Sequence[Completion | None]
) -> NDArray[np.float64]:
    """[M, N]"""
    return np.array([member.score(states, completions) for member in members], dtype=np.float64)


def _check_members(members: Sequence[Scorer]) -> None:
    if not members:
        raise InvalidValue("members of the ensemble", members, "at least one scorer", "add one")


def _names(members: Sequence[Scorer]) -> str:
    return ", ".join(member.name for member in members)
