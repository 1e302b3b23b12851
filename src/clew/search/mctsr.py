"""MCTSr: Monte Carlo tree self-refine, a tree whose nodes are whole answers and whose moves are refinements.

arXiv 2406.07394, section 3; the formulas are in `mctsr_rules.py`.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, SearchResult
from clew.core.types import Problem, Sampling
from clew.search.grow import rate_nodes, sample_children
from clew.search.guidance import Guide
from clew.search.mctsr_rules import Answer, select
from clew.search.record import BudgetExhausted
from clew.search.revision import Critique, check_at_least, conversation, criticise, outcome, respond
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MCTSr:
    """An answer, then `rollouts` refinements, each of the answer that the upper confidence bound points to.

    Rewards are what the guide gives: the scorer, as a rule a self-evaluation. Nothing looks at the environment unless
    the guide is the verifier.
    """

    rollouts: int = 8
    c: float = 1.4
    """How much is explored. The paper's rewards go from -100 to 100; rewards from 0 to 1 are explored as there with a
    200th of its constant, 0.007."""
    max_children: int = 3
    """Refinements of one answer after which it is given up, if one of them is as good."""
    sampling: Sampling = field(default_factory=Sampling)
    critique: Critique = field(default_factory=Critique)
    guide: Guide = "scorer"
    ask_again: bool = False
    """Whether the guide rates an answer anew at each visit, as a sampled self-evaluation needs; else each visit counts
    the reward that it gave first."""
    enough: float | None = None
    """The reward from which on the search stops; None never stops early."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "rollouts")
        check_at_least(self, 1, "max_children")
        if not 0.0 <= self.c < math.inf:
            raise InvalidValue("c", self.c, "a number of at least 0", "use 1.4")

    @property
    def name(self) -> str:
        return "mctsr"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        tree = Tree(problem)
        attempts: list[int] = []
        answers: list[Answer] = []
        with suppress(BudgetExhausted):
            (attempts,) = yield from sample_children(tree, [0], 1, self.sampling)
            answers.append((yield from self._evaluated(tree, Answer(attempts[0]))))
            for _ in range(self.rollouts):
                if self.enough is not None and max(max(answer.rewards) for answer in answers) >= self.enough:
                    break
                father = select(answers, self.c, self.max_children)
                yield from self._evaluated(tree, father)
                critique = yield from criticise(tree, father.node, self.critique)
                asked = conversation(problem, [critique.exchange])
                (node,) = yield from respond(tree, [critique.node], [asked], self.sampling)
                attempts.append(node)
                refined = yield from self._evaluated(tree, Answer(node, father))
                father.children.append(refined)
                answers.append(refined)
        best = max(answers, key=lambda answer: answer.own_value).node if answers else next(iter(attempts), None)
        return outcome(tree, attempts, best)

    def _evaluated(self, tree: Tree, answer: Answer) -> Generator[Request, Any, Answer]:
        """`answer` after one more visit."""
        if self.ask_again or not answer.rewards:
            yield from rate_nodes(tree, [answer.node], self.guide)
        reward = tree.score[answer.node]
        answer.rewards.append(reward)
        tree.backup(answer.node, reward)
        return answer
