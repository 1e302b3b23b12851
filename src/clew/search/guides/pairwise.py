"""Scorer by pairwise self-judgement: how often the policy prefers a solution to others of its problem.

A comparison is easier than a grade. Each is asked in both orders, because judges favour a place (arXiv 2306.05685).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol, final

from clew.core.errors import InvalidValue
from clew.core.types import Completion, Message, Problem, State
from clew.search.guides.self_evaluation import NextLogProbs, preference
from clew.search.guides.tokens_read import TokensRead

QUESTION = (
    "{problem}\n\nSolution A:\n{first}\n\nSolution B:\n{second}\n\n"
    "Which solution is more likely to be right? Answer with the letter alone."
)


class Compares(Protocol):
    """A policy that can read two solutions and be asked how likely a word is next."""

    def next_logprobs(self, states: Sequence[State], words: Sequence[str]) -> NextLogProbs: ...

    def text(self, state: State) -> str: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseSelfJudgement:
    """Scorer: mean probability with which the policy prefers the state to its opponents, 0.5 for one without any.

    Opponents are the states given of the same problem, at most `opponents` of them: those next to it in the order
    given, as on a ring. For models that follow instructions; `question` holds {problem}, {first} and {second}.
    """

    policy: Compares
    opponents: int = 4
    question: str = QUESTION
    words: tuple[str, str] = ("A", "B")
    """What the policy says for the first and for the second."""
    _read: TokensRead = field(default_factory=TokensRead, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.opponents < 2 or self.opponents % 2:
            accepted = "an even integer of at least 2: as many before a state as after it"
            raise InvalidValue("opponents", self.opponents, accepted, "use 2, or 4")

    @property
    def name(self) -> str:
        return "pairwise"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        places: dict[str, list[int]] = {}
        for place, state in enumerate(states):
            places.setdefault(state.problem.id, []).append(place)
        pairs = [
            (members[i], members[j]) for members in places.values() for i, j in meetings(len(members), self.opponents)
        ]
        # Whoever stands first pays for reading both.
        ordered = [pair for i, j in pairs for pair in ((i, j), (j, i))]
        wins: list[list[float]] = [[] for _ in states]
        texts = [self.policy.text(state) for state in states]
        asked = [self._asked(states[i].problem, texts[i], texts[j]) for i, j in ordered]
        answer = self.policy.next_logprobs(asked, self.words) if asked else None
        for state in states:
            self._read.note(state, 0)
        if answer is not None:
            for (i, j), (first, second), tokens in zip(ordered, answer.logprobs, answer.tokens_read, strict=True):
                self._read.note(states[i], tokens)
                wins[i].append(preference(first, second))
                wins[j].append(preference(second, first))
        return [sum(rates) / len(rates) if rates else 0.5 for rates in wins]

    def cost_tokens(self, states: Sequence[State]) -> int:
        """Tokens that were read for `states` since last asked; before scoring, a lower bound."""
        return self._read.take(states, lambda state: len(state.tokens) + 1)

    def _asked(self, problem: Problem, first: str, second: str) -> State:
        text = self.question.format(problem=problem.prompt[-1].content, first=first, second=second)
        return State(Problem(f"{problem.id} compared: {text}", problem.task, (Message("user", text),)))


def meetings(n: int, opponents: int) -> Iterator[tuple[int, int]]:
    """Pairs among `n`: each meets all others, or the `opponents` (even) next to it on a ring if those are fewer.

    >>> list(meetings(5, 2))
    [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]
    """
    if n - 1 <= opponents:
        return iter(combinations(range(n), 2))
    return ((i, (i + apart) % n) for apart in range(1, opponents // 2 + 1) for i in range(n))
