"""Reflexion: lessons of earlier trials, in the policy's own words, precede the next (arXiv 2303.11366, algorithm 1)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, final

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
class Reflexion:
    """Try, be rated, reflect on the failure, try afresh with the reflections in mind, up to `trials` times.

    Unlike a revision, a trial does not see the earlier ones: only what was learnt from them. With the verifier as guide
    the strategy **looks at the environment**, as in the paper: the policy is told the reason of each verdict.
    """

    trials: int = 4
    memory: int = 3
    """How many reflections, the latest, a trial remembers (the paper: 1 to 3)."""
    sampling: Sampling = field(default_factory=Sampling)
    reflection: Sampling = field(default_factory=lambda: Sampling(max_tokens=128))
    """How reflections are sampled: they are to be short."""
    ask: str = (
        "This attempt failed: {reason}. In one or two sentences, say why it failed and what to do differently "
        "next time."
    )
    """`{reason}` stands for what the guide said."""
    remember: str = "Lessons from earlier attempts at this question:\n{reflections}\n\n{question}"
    """What the last message of the problem becomes; `{question}` stands for that message."""
    guide: Guide = "verifier"
    enough: float = 1.0
    """The rating from which on a trial counts as a success."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "trials", "memory")

    @property
    def name(self) -> str:
        return "reflexion"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        attempts: list[int] = []
        lessons: list[str] = []
        with suppress(BudgetExhausted):
            (attempts,) = yield from sample_children(tree, [0], 1, self.sampling)
            while True:
                last = attempts[-1]
                (rating,) = yield from rate_nodes(tree, [last], self.guide)
                if rating >= self.enough or len(attempts) >= self.trials:
                    break
                (response,) = yield from written(tree, [last])
                failed = Exchange(response, fill(self.ask, reason=reason(tree, last)))
                asked = conversation(tree.states[last].problem, [failed])
                (lesson,) = yield from respond(tree, [last], [asked], self.reflection)
                lessons += yield from written(tree, [lesson])
                informed = self._remembering(problem, lessons[-self.memory :])
                attempts += yield from respond(tree, [lesson], [informed], self.sampling)
        return outcome(tree, attempts, best(tree, attempts[::-1]))

    def _remembering(self, problem: Problem, lessons: Sequence[str]) -> Problem:
        # In the question's own message: many chat templates refuse two messages of the user in a row.
        *before, question = problem.prompt
        reflections = "\n".join(f"- {lesson}" for lesson in lessons)
        content = fill(self.remember, reflections=reflections, question=question.content)
        return replace(problem, prompt=(*before, question._replace(content=content)))
