"""Q from the log-ratio of two policies (arXiv 2404.12358, equation 7): a trained policy is a reward model too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

from clew.core.errors import InvalidValue
from clew.core.types import Completion, State
from clew.search.guides.tokens_read import TokensRead


class ResponseLogProbs(Protocol):
    """Log-probabilities of responses."""

    @property
    def logprobs(self) -> Sequence[Sequence[float]]:
        """[states][tokens] of each token of each response."""
        ...

    @property
    def tokens_read(self) -> Sequence[int]:
        """[states] tokens that were computed for each."""
        ...


class RatesResponses(Protocol):
    """A policy that says how likely a given response was."""

    def logprobs(self, states: Sequence[State]) -> ResponseLogProbs: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LogRatioQ:
    """Scorer: beta * sum over the response of (log pi - log ref), which is V*(state) - V*(problem) of the reward that
    `policy` was trained for, if its penalty for leaving `reference` was beta times the KL divergence.

    States of one problem can be compared, those of different problems cannot.
    """

    policy: RatesResponses
    """pi, the trained one."""
    reference: RatesResponses
    """ref, what it was trained from."""
    beta: float = 1.0
    _read: TokensRead = field(default_factory=TokensRead, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0.0 < self.beta < math.inf:
            raise InvalidValue("beta", self.beta, "a finite number above 0", "use 1: only a weighted vote feels it")

    @property
    def name(self) -> str:
        return "log-ratio"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        ours, theirs = self.policy.logprobs(states), self.reference.logprobs(states)
        for answer in (ours, theirs):
            for state, tokens in zip(states, answer.tokens_read, strict=True):
                self._read.note(state, tokens)
        return [
            self.beta * (math.fsum(pi) - math.fsum(ref)) for pi, ref in zip(ours.logprobs, theirs.logprobs, strict=True)
        ]

    def cost_tokens(self, states: Sequence[State]) -> int:
        """Tokens that both policies read for `states` since last asked; before scoring, twice their length."""
        return self._read.take(states, lambda state: 2 * len(state.tokens))
