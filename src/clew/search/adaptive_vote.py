"""Adaptive self-consistency: sample until the vote is decided (arXiv 2305.11860)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import extract_nodes, sample_children
from clew.search.majority_vote import majority
from clew.search.record import BudgetExhausted
from clew.search.solutions import check_counts
from clew.search.tree import Tree
from clew.stats.beta_stop import leader_confidence


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveVote:
    """A majority vote that stops as soon as its leader is ahead of the runner-up with enough confidence.

    With p the share of the leader among these two, p ~ Beta(leader + 1, runner-up + 1): it stops when
    P(p > 1/2) >= `confidence`. Abstentions and ties as in `MajorityVote`.
    """

    n: int = 40
    """Solutions at most."""
    at_least: int = 1
    """Solutions before it may stop; `n` if that is smaller. With confidence 0.95 it never stops before four."""
    wave: int = 1
    """Solutions asked for at a time: more are sampled in fewer requests, and a decided vote is noticed later."""
    confidence: float = 0.95
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        check_counts(self.n, None)
        for name in ("at_least", "wave"):
            if getattr(self, name) < 1:
                raise InvalidValue(name, getattr(self, name), "an integer of at least 1", "use 1 to look every time")
        if not 0.5 < self.confidence <= 1.0:
            raise InvalidValue("confidence", self.confidence, "a probability above 0.5, up to 1", "use 0.95")

    @property
    def name(self) -> str:
        return "adaptive-vote"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        answers: list[str | None] = []
        with suppress(BudgetExhausted):
            while len(answers) < self.n and not self._decided(answers):
                num_next = min(max(self.wave, self.at_least - len(answers)), self.n - len(answers))
                (wave,) = yield from sample_children(tree, [0], num_next, self.sampling)
                answers += yield from extract_nodes(tree, wave)
        return majority(tree, list(tree.answers))

    def _decided(self, answers: Sequence[str | None]) -> bool:
        if len(answers) < self.at_least:
            return False
        votes = Counter(answer for answer in answers if answer is not None)
        *_, runner_up, leader = [0, 0, *sorted(votes.values())]
        return leader_confidence(leader, runner_up) >= self.confidence
