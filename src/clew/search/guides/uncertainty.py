"""Scorers by how sure the policy was while it wrote: entropy and self-certainty of its distributions. Run no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from clew.core.errors import InvalidValue
from clew.core.types import Completion, State


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MeanEntropy:
    """Scorer: minus the mean entropy of the distributions the completion's tokens were drawn from, in nats."""

    @property
    def name(self) -> str:
        return "entropy"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        """Raises `InvalidValue` if a completion or its entropies are missing."""
        return [
            -_mean(last.entropies if last else None, "entropies") for _, last in zip(states, completions, strict=True)
        ]

    def cost_tokens(self, states: Sequence[State]) -> int:
        return 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCertainty:
    """Scorer: mean over the completion's tokens of KL(uniform || p), p the policy's distribution (arXiv 2502.18581).

    0 for a policy that knows nothing. Unlike entropy it keeps growing when a distribution is peaked already.
    """

    @property
    def name(self) -> str:
        return "self-certainty"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        """Raises `InvalidValue` if a completion or its certainties are missing."""
        return [
            _mean(last.certainties if last else None, "certainties")
            for _, last in zip(states, completions, strict=True)
        ]

    def cost_tokens(self, states: Sequence[State]) -> int:
        return 0


def _mean(values: Sequence[float] | None, what: str) -> float:
    if values is None:
        accepted = f"completions that carry the {what} of each token"
        advice = "sample with statistics=True from a policy that has them, or use a guide that needs none (verifier)"
        raise InvalidValue(f"{what} of the policy's completion", None, accepted, advice)
    return math.fsum(values) / len(values) if values else 0.0
