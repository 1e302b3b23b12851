"""Self-Refine: the policy criticises its own answer and refines it, again and again (arXiv 2303.17651, algorithm 1)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, final

from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import rate_nodes, sample_children
from clew.search.guidance import Guide
from clew.search.record import BudgetExhausted
from clew.search.revision import (
    Critique,
    Exchange,
    best,
    check_at_least,
    conversation,
    criticise,
    latest,
    outcome,
    respond,
)
from clew.search.tree import Tree

ASK_OR_STOP = (
    "Check this answer step by step. If it is wrong, name the mistake and say how to mend it, without giving the "
    "answer again. If there is nothing to mend, write only: nothing to mend"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SelfRefine:
    """Answer, then up to `rounds` of critique and refinement by the same policy, until the critique is content."""

    rounds: int = 3
    sampling: Sampling = field(default_factory=Sampling)
    critique: Critique = field(default_factory=lambda: Critique(ask=ASK_OR_STOP))
    stop: str = "nothing to mend"
    """A critique that contains this, in capitals or not, ends the refinement; an empty one never does."""
    memory: int = 4
    """How many earlier answers, with their critiques, the policy sees when it refines (equation 4 has all of them)."""
    choose: Literal["last", "best"] = "last"
    """The last answer that was brought to its end, as in the paper, or the one that the guide likes best."""
    guide: Guide = "scorer"
    """Who says which answer is best; nobody is asked for the last."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "rounds")
        check_at_least(self, 1, "memory")

    @property
    def name(self) -> str:
        return "self-refine"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        attempts: list[int] = []
        history: list[Exchange] = []
        with suppress(BudgetExhausted):
            (attempts,) = yield from sample_children(tree, [0], 1, self.sampling)
            for _ in range(self.rounds):
                critique = yield from criticise(tree, attempts[-1], self.critique)
                if self.stop and self.stop.casefold() in critique.feedback.casefold():
                    break
                history.append(critique.exchange)
                asked = conversation(problem, history[-self.memory :])
                attempts += yield from respond(tree, [critique.node], [asked], self.sampling)
        chosen = latest(tree, attempts)
        if self.choose == "best":
            with suppress(BudgetExhausted):
                yield from rate_nodes(tree, attempts, self.guide)
                chosen = best(tree, attempts)
        return outcome(tree, attempts, chosen)
