"""Guides: what tells a strategy which of its candidates is better. Any strategy takes any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from clew.core.errors import InvalidValue
from clew.core.types import Completion, State

Guide = Literal["verifier", "scorer"]
"""Who rates: the environment (its exact verdict) or the scorer that the search was given."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MeanLogProb:
    """Scorer: the policy's own mean log-probability of the completion's tokens. Runs no model.

    The mean, not the sum, so that a longer solution is not rated lower for its length alone.
    """

    @property
    def name(self) -> str:
        return "mean-logprob"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        """Raises `InvalidValue` if a completion or its log-probs are missing."""
        return [_mean_logprob(completion) for _, completion in zip(states, completions, strict=True)]

    def cost_tokens(self, states: Sequence[State]) -> int:
        return 0


def _mean_logprob(completion: Completion | None) -> float:
    logprobs = completion.logprobs if completion is not None else None
    if logprobs is None:
        accepted = "completions that carry the log-prob of each token"
        advice = "use a policy that gives log-probs, or a guide that needs none (verifier)"
        raise InvalidValue("log-probs of the policy's completion", None, accepted, advice)
    return sum(logprobs) / len(logprobs) if logprobs else 0.0
