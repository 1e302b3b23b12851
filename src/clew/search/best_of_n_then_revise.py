"""Best-of-N, then revisions of the best: a ratio of parallel to sequential sampling (arXiv 2408.03314, section 6)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import rate_nodes, sample_children
from clew.search.guidance import Guide
from clew.search.record import BudgetExhausted
from clew.search.revision import (
    Exchange,
    best,
    check_at_least,
    conversation,
    fill,
    outcome,
    reason,
    respond,
    written,
)
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfNThenRevise:
    """Of `n` responses some are sampled side by side; the rest revise the best of these, one after another.

    Each of the `keep` best is the beginning of a chain of revisions; the response that the guide likes best is the
    answer. The policy is told what the guide said. With the verifier as guide the strategy **looks at the
    environment**, tells the reason of each verdict, and stops at the first right response.
    """

    n: int = 16
    """Responses in all."""
    ratio: float = 0.5
    """Share of them that are revisions: 0 is best-of-N."""
    keep: int = 4
    """Chains of revisions."""
    sampling: Sampling = field(default_factory=Sampling)
    feedback: str = "That may not be right: {reason}. Find the mistake, then give the whole answer anew."
    """What the policy is told about a response; `{reason}` stands for what the guide said."""
    memory: int = 4
    """How many earlier responses of its chain, with their feedback, the policy sees when it revises."""
    guide: Guide = "verifier"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "n", "keep", "memory")
        if not 0.0 <= self.ratio < 1.0:
            raise InvalidValue("ratio", self.ratio, "a share from 0 to below 1", "use 0.5, say")

    @property
    def name(self) -> str:
        return "best-of-n-then-revise"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        attempts: list[int] = []
        num_parallel, waves = division(self.n, self.ratio, self.keep)
        with suppress(BudgetExhausted):
            (attempts,) = yield from sample_children(tree, [0], num_parallel, self.sampling)
            yield from rate_nodes(tree, attempts, self.guide)
            heads = sorted(attempts, key=lambda node: -tree.score[node])
            histories: list[list[Exchange]] = [[] for _ in heads]
            for width in waves:
                if any(verdict.right for verdict in tree.verdicts.values()):
                    break
                heads[:width] = made = yield from self._revise(tree, heads[:width], histories[:width])
                attempts += made
                yield from rate_nodes(tree, made, self.guide)
        return outcome(tree, attempts, best(tree, attempts))

    def _revise(
        self, tree: Tree, heads: Sequence[int], histories: Sequence[list[Exchange]]
    ) -> Generator[Request, Any, list[int]]:
        """A revision of each of `heads`, the ends of their chains; `histories` grow by what was said about them."""
        responses = yield from written(tree, heads)
        for history, node, response in zip(histories, heads, responses, strict=True):
            history.append(Exchange(response, fill(self.feedback, reason=reason(tree, node))))
        asked = [conversation(tree.problem, history[-self.memory :]) for history in histories]
        return (yield from respond(tree, heads, asked, self.sampling))


def division(n: int, ratio: float, keep: int) -> tuple[int, list[int]]:
    """How many of `n` responses are sampled in parallel, at least one, and how many are revisions, wave by wave.

    >>> division(16, 0.5, 3)
    (8, [3, 3, 2])
    """
    num_revisions = min(n - 1, round(n * ratio))
    num_parallel = n - num_revisions
    width = min(keep, num_parallel)
    return num_parallel, [min(width, num_revisions - done) for done in range(0, num_revisions, width)]
