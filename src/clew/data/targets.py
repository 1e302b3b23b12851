"""Targets that a search sets for policy and value (AlphaZero, arXiv 1712.01815): where it went, and what it found.

pi(a | s) = N(s, a)^(1/T) / sum_b N(s, b)^(1/T) over the steps after a node; T = 1 are the visits' own shares, T = 0 the
most visited step. The value target is the mean of what the search backed up there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from clew.core.errors import InvalidValue
from clew.core.types import Problem, State
from clew.data.origin import Origin
from clew.data.tree_steps import backed_up, outcomes, rollouts, steps_of
from clew.search.tree import Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the policy should do in one state, A choices, and what the state is worth."""

    problem: Problem
    prefix: tuple[int, ...]
    """The response so far: the state, with `problem`."""
    actions: tuple[tuple[int, ...], ...]
    """[A] tokens of each step."""
    probabilities: tuple[float, ...]
    """[A] their sum is 1."""
    visits: tuple[int, ...]
    """[A] how often the search took each."""
    value: float | None = None
    """Mean of what it backed up at the state, roll-outs included."""
    returned: float | None = None
    """Mean verdict of the judged solutions that begin with the state."""
    prefix_text: str = ""
    texts: tuple[str, ...] = ()
    """[A]"""
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        if not math.isclose(sum(self.probabilities), 1.0, abs_tol=1e-6):
            raise InvalidValue("sum of probabilities", sum(self.probabilities), "1", "divide them by their sum")


def visit_shares(visits: Sequence[int], temperature: float = 1.0) -> list[float]:
    """N^(1/T) / sum N^(1/T), [A]; no visit, no share. T = 0 shares among the most visited alike.

    >>> visit_shares([3, 1, 0])
    [0.75, 0.25, 0.0]
    >>> visit_shares([3, 3, 1], temperature=0)
    [0.5, 0.5, 0.0]

    Raises `InvalidValue` for a temperature below 0, negative visits, and when there is no visit at all.
    """
    if not 0.0 <= temperature < math.inf:
        raise InvalidValue(
            "temperature", temperature, "a finite number of at least 0", "use 1 for the shares of visits"
        )
    most = max(visits, default=0)
    if min(visits, default=0) < 0 or most == 0:
        raise InvalidValue("visits", list(visits), "counts of which one is positive", "leave out nodes without visits")
    if temperature == 0.0:
        weights = [float(count == most) for count in visits]
    else:
        # Relative to the most visited, so that no power overflows.
        weights = [math.exp(math.log(count / most) / temperature) if count else 0.0 for count in visits]
    total = sum(weights)
    return [weight / total for weight in weights]


def visit_targets(
    tree: Tree,
    *,
    temperature: float = 1.0,
    min_visits: int = 1,
    text: Callable[[State], str] = lambda state: "",
    origin: Origin | None = None,
) -> list[Target]:
    """A target for each node whose steps were visited `min_visits` times in all, in the order they were made.

    Steps of the same tokens are one. A node with a single step is kept: its target is certain, and its value counts.
    """
    worth, ends, rolled_out = backed_up(tree), outcomes(tree), rollouts(tree)
    found = []
    for node in range(len(tree)):
        steps = [step for step in steps_of(tree, node, rolled_out) if step.state.problem == tree.states[node].problem]
        # Steps that were written anew go on from nothing: they are no choices in this state.
        steps = [step for step in steps if step.before == tree.states[node].tokens]
        visits = tuple(worth.count(step.nodes) for step in steps)
        if sum(visits) < max(1, min_visits):
            continue
        whole = text(tree.states[node])
        found.append(
            Target(
                problem=tree.states[node].problem,
                prefix=tree.states[node].tokens,
                actions=tuple(step.tokens for step in steps),
                probabilities=tuple(visit_shares(visits, temperature)),
                visits=visits,
                value=worth.value([node]),
                returned=ends.value([node]),
                prefix_text=whole,
                texts=tuple(text(step.state).removeprefix(whole) for step in steps),
                origin=replace(origin or Origin(), node=node),
            )
        )
    return found
