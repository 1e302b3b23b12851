"""Borda voting over self-certainty: the more certain a solution, the more its vote counts (arXiv 2502.18581)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, SearchResult
from clew.core.types import Completion, Problem, Sampling
from clew.search.grow import extract_nodes, result
from clew.search.solutions import best_of_answer, check_counts, sample_solutions
from clew.search.tree import Tree
from clew.stats.borda import borda_votes, check_power
from clew.stats.self_certainty import mean_certainty
from clew.stats.vote import weighted_vote


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Borda:
    """Of `n` sampled solutions, ranked by self-certainty, that of rank r gives (n - r + 1)^`power` votes to its answer.

    The most certain solution of the answer with the most votes is chosen; a candidate's score is its self-certainty.
    Equally certain solutions share the votes of their ranks. Solutions that give no answer take a rank and have no
    vote; ties go to the answer that occurred first. If none gives an answer, the most certain solution is chosen.
    """

    n: int = 16
    power: float = 0.5
    """0 is a majority vote; the larger, the more the most certain solutions decide."""
    sampling: Sampling = field(default_factory=Sampling)
    """Its `statistics` are always asked for. With top-k or top-p every distribution is infinitely far from uniform,
    all solutions are equally certain, and the vote is one of the majority."""
    per_request: int | None = None
    """Solutions asked for at a time; a smaller number lets a budget bite earlier. None asks for all at once."""

    def __post_init__(self) -> None:
        check_counts(self.n, self.per_request)
        check_power(self.power)

    @property
    def name(self) -> str:
        return "borda"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        sampling = replace(self.sampling, statistics=True)
        solutions = yield from sample_solutions(tree, self.n, sampling, per_request=self.per_request)
        for node in solutions:
            tree.score[node] = self._certainty(tree.completions[node])
        answers = yield from extract_nodes(tree, solutions)
        votes = borda_votes([tree.score[node] for node in solutions], self.power)
        return result(tree, best_of_answer(tree, solutions, weighted_vote(answers, votes)))

    def _certainty(self, completion: Completion | None) -> float:
        if completion is None or completion.certainties is None:
            accepted = f"completions that carry the self-certainty of each token, which {self.name} ranks them by"
            advice = "use a policy that gives statistics, or majority-vote, which needs none"
            raise InvalidValue("certainties of the policy's completion", None, accepted, advice)
        return mean_certainty(completion.certainties)
