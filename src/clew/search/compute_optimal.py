"""Compute-optimal search (arXiv 2408.03314, section 3): look a little, then spend as difficulty asks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, Search, SearchResult
from clew.core.types import Completion, Problem, Sampling
from clew.search.grow import extract_nodes, result, sample_children
from clew.search.record import BudgetExhausted
from clew.search.tree import Tree
from clew.stats.difficulty import predicted_difficulty
from clew.stats.vote import majority_vote


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeOptimal:
    """A few samples predict the difficulty; the strategy of that difficulty's bin does the rest.

    The samples of the pilot are paid for like all others. If the budget ends before the chosen strategy has an answer,
    the pilot's most frequent one is given.
    """

    edges: tuple[float, ...]
    """Difficulties that part neighbouring bins, ascending (`clew.scale.compute_optimal.plan`)."""
    strategies: tuple[Search, ...]
    """One a bin, the easiest first."""
    pilot: int = 4
    """Samples that the difficulty is predicted from."""
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if len(self.strategies) != len(self.edges) + 1 or list(self.edges) != sorted(self.edges):
            given = (self.edges, len(self.strategies))
            accepted = "ascending edges and one strategy more than edges"
            raise InvalidValue("(edges, number of strategies)", given, accepted, "take both from one plan")
        if self.pilot < 1:
            raise InvalidValue("pilot", self.pilot, "an integer of at least 1", "use 4, say")

    @property
    def name(self) -> str:
        return "compute-optimal"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        pilot: list[int] = []
        try:
            (pilot,) = yield from sample_children(tree, [0], self.pilot, self.sampling)
            answers = yield from extract_nodes(tree, pilot)
            difficulty = predicted_difficulty(answers, [mean_logprob(tree.completions[node]) for node in pilot])
            found = yield from self.strategies[bisect_right(self.edges, difficulty)].run(problem)
        except BudgetExhausted:
            return result(tree, _agreed(tree, pilot))
        return found if found.chosen is not None else result(tree, _agreed(tree, pilot))


def mean_logprob(completion: Completion | None) -> float | None:
    """Nats a token; None where the policy gave no log-probs."""
    logprobs = completion.logprobs if completion is not None else None
    return sum(logprobs) / len(logprobs) if logprobs else None


def _agreed(tree: Tree, nodes: list[int]) -> int | None:
    """The first of `nodes` that gives their most frequent answer."""
    winner = majority_vote([tree.answers.get(node) for node in nodes])
    return next((node for node in nodes if winner is not None and tree.answers.get(node) == winner), None)
