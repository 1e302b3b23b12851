"""Majority vote, or self-consistency: the answer that most samples agree on (arXiv 2203.11171). No verifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import extract_nodes, result
from clew.search.solutions import check_counts, sample_solutions
from clew.search.tree import Tree
from clew.stats.vote import majority_vote


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MajorityVote:
    """The first of `n` sampled solutions that gives the most frequent canonical answer.

    Solutions that give no answer abstain; ties go to the answer that occurred first; nothing is chosen if all
    abstain. A candidate's score is the share of samples that gave its answer.
    """

    n: int = 32
    sampling: Sampling = field(default_factory=Sampling)
    per_request: int | None = None
    """Solutions asked for at a time; a smaller number lets a budget bite earlier. None asks for all at once."""

    def __post_init__(self) -> None:
        check_counts(self.n, self.per_request)

    @property
    def name(self) -> str:
        return "majority-vote"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        solutions = yield from sample_solutions(tree, self.n, self.sampling, per_request=self.per_request)
        yield from extract_nodes(tree, solutions)
        return majority(tree, solutions)


def majority(tree: Tree, solutions: Sequence[int]) -> SearchResult:
    """The vote of these nodes, whose answers the tree holds; shares become their scores."""
    answers = [tree.answers[node] for node in solutions]
    votes = Counter(answers)
    for node, answer in zip(solutions, answers, strict=True):
        if answer is not None:
            tree.score[node] = votes[answer] / len(answers)
    winner = majority_vote(answers)
    return result(tree, None if winner is None else solutions[answers.index(winner)])
