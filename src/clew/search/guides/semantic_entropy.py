"""Scorer by agreement: how many of the solutions of a problem mean the same (semantic entropy, arXiv 2302.09664)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

from clew.core.types import Completion, State


class Extracts(Protocol):
    """The part of a task that reads answers off texts."""

    def extract(self, text: str) -> str | None: ...


class Decodes(Protocol):
    """The part of a policy that turns tokens into text."""

    def text(self, state: State) -> str: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticEntropy:
    """Scorer: p(c), the share of the answer's cluster c among the states given of the same problem.

    A cluster is a canonical answer of the task, so no entailment model is asked; p counts samples. -ln p, weighed
    by p, is what the cluster adds to `clew.stats.semantic_entropy`. States without an answer are rated 0.
    """

    policy: Decodes
    task: Extracts

    @property
    def name(self) -> str:
        return "semantic-entropy"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        answers = [(state.problem.id, self.task.extract(self.policy.text(state))) for state in states]
        of_answer = Counter(answers)
        of_problem = Counter(problem for problem, _ in answers)
        return [
            0.0 if answer is None else of_answer[problem, answer] / of_problem[problem] for problem, answer in answers
        ]

    def cost_tokens(self, states: Sequence[State]) -> int:
        return 0
