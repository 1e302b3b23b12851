"""Formulas of MCTSr (arXiv 2406.07394, section 3): values, bounds and which answer to refine next.

The rule of full expansion is that of the authors' program (MathBlackBox).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

EPSILON = 1e-5


@final
@dataclass(slots=True, eq=False)
class Answer:
    """A whole answer in the tree of refinements."""

    node: int
    """In the search tree, where the turns of its critique are nodes too."""
    father: Answer | None = None
    rewards: list[float] = field(default_factory=list)
    """One a visit."""
    children: list[Answer] = field(default_factory=list)

    @property
    def own_value(self) -> float:
        return value_of(self.rewards)


def select(answers: Sequence[Answer], c: float, max_children: int) -> Answer:
    """Of the answers that are not fully expanded the one with the highest bound, of equals the first; `answers` in the
    order they were made, the first without a father."""
    backed: dict[int, float] = {}
    for answer in reversed(answers):
        backed[answer.node] = backed_up(answer.own_value, [backed[child.node] for child in answer.children])

    def bound(answer: Answer) -> float:
        num_father = len(answer.father.rewards) if answer.father is not None else 0
        return uct(backed[answer.node], num_father, len(answer.rewards), c)

    return max(
        (a for a in answers if not fully_expanded(a.own_value, [b.own_value for b in a.children], max_children)),
        key=bound,
    )


def value_of(rewards: Sequence[float]) -> float:
    """Q of an answer by its own rewards, (min R + mean R) / 2: the worst case restrains the average (equation 1)."""
    return (min(rewards) + math.fsum(rewards) / len(rewards)) / 2


def backed_up(value: float, children: Sequence[float]) -> float:
    """Q of an answer whose refinements have the values `children`: (Q + max Q of the children) / 2 (equation 2)."""
    return (value + max(children)) / 2 if children else value


def uct(value: float, visits_father: int, visits: int, c: float) -> float:
    """Upper confidence bound of an answer, Q + c sqrt(ln(N_father + 1) / (N + epsilon)) (equation 4)."""
    return value + c * math.sqrt(math.log(visits_father + 1) / (visits + EPSILON))


def fully_expanded(value: float, children: Sequence[float], max_children: int) -> bool:
    """Whether an answer has `max_children` refinements and one of them is at least as good."""
    return len(children) >= max_children and max(children) >= value
