"""Weighted best-of-N: votes that weigh what their solutions score (arXiv 2206.02336; arXiv 2408.03314)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import extract_nodes, result
from clew.search.guidance import Guide
from clew.search.record import BudgetExhausted
from clew.search.solutions import best_of_answer, check_counts, rate_solutions, sample_solutions
from clew.search.tree import Tree
from clew.stats.vote import vote_weights, weighted_vote


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedBestOfN:
    """Of `n` sampled solutions the best of those that give the answer with the greatest sum of scores.

    Solutions that give no answer have no vote; ties go to the answer that occurred first, and of its solutions to the
    first of the best. If none gives an answer, the best solution is chosen. Solutions that nobody rated, because the
    budget was spent, have one vote each.
    """

    n: int = 16
    sampling: Sampling = field(default_factory=Sampling)
    guide: Guide = "scorer"
    temperature: float | None = None
    """None sums the scores as they are, which must not be negative; a number sums exp(score / temperature), for scores
    such as log-probs."""
    per_request: int | None = None
    """Solutions asked for at a time; a smaller number lets a budget bite earlier. None asks for all at once."""

    def __post_init__(self) -> None:
        check_counts(self.n, self.per_request)
        if self.temperature is not None and not self.temperature > 0.0:
            accepted = "a positive number, or none to sum scores as they are"
            raise InvalidValue("temperature", self.temperature, accepted, "use 1 for log-probs")

    @property
    def name(self) -> str:
        return "weighted-best-of-n"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        solutions = yield from sample_solutions(tree, self.n, self.sampling, per_request=self.per_request)
        answers = yield from extract_nodes(tree, solutions)
        with suppress(BudgetExhausted):
            yield from rate_solutions(tree, solutions, self.guide)
        weights = vote_weights([tree.score[node] for node in solutions], self.temperature)
        return result(tree, best_of_answer(tree, solutions, weighted_vote(answers, weights)))
