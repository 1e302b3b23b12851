"""Scorer by self-evaluation: the probability that the policy itself calls its work right (arXiv 2207.05221)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

from clew.core.types import Completion, State
from clew.search.guides.tokens_read import TokensRead


class NextLogProbs(Protocol):
    """What a policy says of words that might come next."""

    @property
    def logprobs(self) -> Sequence[Sequence[float]]:
        """[states][words] log-probability of each word right after each state."""
        ...

    @property
    def tokens_read(self) -> Sequence[int]:
        """[states] tokens that were computed for each."""
        ...


class AsksForWords(Protocol):
    """A policy that can be asked how likely a word is next."""

    def next_logprobs(self, states: Sequence[State], words: Sequence[str]) -> NextLogProbs: ...

    def encode(self, text: str) -> tuple[int, ...]: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SelfEvaluation:
    """Scorer: P(right word) / (P(right word) + P(wrong word)) as the policy would go on after the state.

    clew's small models write `yes` or `no` after every attempt, so they need no question. A general model is asked one.
    """

    policy: AsksForWords
    right: str = "yes"
    """The word that calls the work right."""
    wrong: str = "no"
    """The word that calls it wrong."""
    question: str = ""
    """Put after the state first, e.g. "Is this right so far?"; empty asks right after the last token."""
    _read: TokensRead = field(default_factory=TokensRead, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return "self-evaluation"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        asked = [self._asked(state) for state in states]
        answer = self.policy.next_logprobs(asked, (self.right, self.wrong))
        for state, tokens in zip(states, answer.tokens_read, strict=True):
            self._read.note(state, tokens)
        return [preference(right, wrong) for right, wrong in answer.logprobs]

    def cost_tokens(self, states: Sequence[State]) -> int:
        """Tokens that were read for `states` since last asked; before scoring, their length."""
        return self._read.take(states, lambda state: len(state.tokens) + 1)

    def _asked(self, state: State) -> State:
        # A finished state is asked about as it was before the policy put down its pen.
        state = state.reopened()
        return state.told(self.policy.encode(self.question)) if self.question else state


def preference(first: float, second: float) -> float:
    """The share of the first of two log-probabilities: exp(first) / (exp(first) + exp(second)); of equals a half."""
    if first == second:
        return 0.5
    gap = second - first
    return math.exp(-gap) / (1.0 + math.exp(-gap)) if gap > 0 else 1.0 / (1.0 + math.exp(gap))
