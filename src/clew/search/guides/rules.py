"""Scorers of the outside: a rule that a user wrote, and the environment's verdict as a scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, final

from clew.core.types import Completion, Problem, State, Verdict
from clew.search.guides.semantic_entropy import Decodes


class Verifies(Protocol):
    """The part of a task that judges texts."""

    def verify(self, problem: Problem, text: str) -> Verdict: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HeuristicRule:
    """Scorer: what `rule` makes of a problem and of the text written so far; higher is better."""

    rule: Callable[[Problem, str], float]
    policy: Decodes
    name: str = "heuristic"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        return [float(self.rule(state.problem, self.policy.text(state))) for state in states]

    def cost_tokens(self, states: Sequence[State]) -> int:
        return 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierScorer:
    """Scorer: the value of the environment's verdict on a finished state.

    For a strategy that mixes guides. Where the environment alone guides, set the strategy's `guide` to "verifier": its
    calls are counted then.
    """

    task: Verifies
    policy: Decodes
    unknown: float = 0.0
    """Score of a state that is not finished, or that the environment could not judge."""

    @property
    def name(self) -> str:
        return "verifier"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        return [self._value(state) for state in states]

    def cost_tokens(self, states: Sequence[State]) -> int:
        return 0

    def _value(self, state: State) -> float:
        if not state.finished:
            return self.unknown
        value = self.task.verify(state.problem, self.policy.text(state)).value
        return self.unknown if value is None else value
