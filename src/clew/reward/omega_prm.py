"""OmegaPRM (arXiv 2406.06592): the first wrong step by binary search, and a tree that says which roll-out to search.

A prefix from which no roll-out is right is taken to be wrong, and so is all that follows it. The first such prefix of
a wrong solution of M steps is found with about log2 M measurements in place of M.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, SearchResult
from clew.core.types import Outcome, Problem
from clew.reward.label_tree import LabelTree, Rollout, Solutions
from clew.search.record import BudgetExhausted
from clew.search.tree import ROOT


def rollout_value(
    monte_carlo: float, length: int, *, alpha: float = 0.5, beta: float = 0.9, scale: float = 500.0
) -> float:
    """Q(s, r) = alpha^(1 - MC(s)) beta^(length(r) / L): a short wrong roll-out from where most are right (equation 2).

    >>> round(rollout_value(0.25, 100), 6)
    0.582205
    """
    return math.pow(alpha, 1.0 - monte_carlo) * math.pow(beta, length / scale)


def exploration(total_visits: int, visits: int, *, c_puct: float = 0.125) -> float:
    """U(s) = c_puct sqrt(sum of N) / (1 + N(s)) (equation 3).

    >>> round(exploration(20, 3), 6)
    0.139754
    """
    return c_puct * math.sqrt(total_visits) / (1 + visits)


def first_wrong_step(num_steps: int) -> Generator[int, bool, int]:
    """Binary search for the first wrong of `num_steps` steps, of which the last is wrong.

    Yields the index of a step after which to roll out, is sent whether any roll-out was right, and returns the index
    of the first wrong step: exact if no step after a wrong one is right. Asks at most ceil(log2 num_steps) times.
    """
    right, wrong = -1, num_steps - 1
    while wrong - right > 1:
        middle = (right + wrong) // 2
        any_right = yield middle
        right, wrong = (middle, wrong) if any_right else (right, middle)
    return wrong


class Wrong(NamedTuple):
    """A wrong roll-out that may be searched, and the node it starts from."""

    node: int
    rollout: Rollout


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OmegaPrm:
    """Searches wrong roll-outs for their first wrong step, those first from where the policy is mostly right.

    The roll-outs it begins with are solutions from the root; those of the prefixes it measures join them. Its tree
    holds the values of the prefixes that were measured.
    """

    k: int = 8
    """Roll-outs a prefix that is measured."""
    searches: int = 16
    """Most roll-outs that are searched, a problem."""
    join: bool = True
    """Whether wrong roll-outs of measured prefixes are searched as well; without them only the first solutions are."""
    alpha: float = 0.5
    beta: float = 0.9
    scale: float = 500.0
    """L of the paper: tokens over which a roll-out's length matters."""
    c_puct: float = 0.125
    solutions: Solutions = field(default_factory=lambda: Solutions(n=8))

    def __post_init__(self) -> None:
        for name in ("k", "searches"):
            if getattr(self, name) < 1:
                raise InvalidValue(name, getattr(self, name), "an integer of at least 1", "raise it")
        for name in ("alpha", "beta"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise InvalidValue(name, getattr(self, name), "a number above 0 and up to 1", "use 0.5 and 0.9")
        if not self.scale > 0.0 or not self.c_puct >= 0.0:
            accepted = "a positive length and an exploration of at least 0"
            raise InvalidValue("scale and c_puct", (self.scale, self.c_puct), accepted, "use 500 and 0.125")

    @property
    def name(self) -> str:
        return "omega-prm"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        labelled = LabelTree.of(problem, self.solutions)
        with suppress(BudgetExhausted):
            first = yield from labelled.begin()
            pool = [Wrong(ROOT, one) for one in first if one.verdict.outcome is Outcome.WRONG]
            yield from labelled.measure([ROOT], self.k)
            visits: dict[int, int] = {}
            done = 0
            # Where nothing is ever right, no step can be told from another.
            while pool and done < self.searches and labelled.tree.value_sum[ROOT] > 0.0:
                chosen = pool.pop(self.select(labelled, pool, visits))
                visits[chosen.node] = visits.get(chosen.node, 0) + 1
                done += 1
                found = yield from self._search(labelled, chosen)
                if self.join:
                    pool += found
        return labelled.result()

    def select(self, labelled: LabelTree, pool: Sequence[Wrong], visits: Mapping[int, int]) -> int:
        """Place in `pool` of the largest Q(s, r) + U(s), of equals the first."""
        total = sum(visits.values())

        def priority(place: int) -> float:
            node, rollout = pool[place]
            length = len(rollout.state.tokens) - len(labelled.tree.states[node].tokens)
            value = labelled.tree.value(node)
            quality = rollout_value(value, length, alpha=self.alpha, beta=self.beta, scale=self.scale)
            return quality + exploration(total, visits.get(node, 0), c_puct=self.c_puct)

        return max(range(len(pool)), key=priority)

    def _search(self, labelled: LabelTree, chosen: Wrong) -> Generator[Request, Any, list[Wrong]]:
        """Measure the prefixes that the binary search of one roll-out asks for; wrong roll-outs of those it met."""
        (path,) = yield from labelled.grow([chosen.rollout])
        depth = labelled.tree.depth[chosen.node]
        steps, found = path[depth:], []
        search = first_wrong_step(len(steps))
        with suppress(StopIteration):
            asked = next(search)
            while True:
                node = steps[asked]
                new = node not in labelled.rollouts
                yield from labelled.measure([node], self.k)
                if not labelled.tree.visits[node]:
                    break  # None of its roll-outs could be judged: nothing says on which side the error is.
                any_right = labelled.tree.value_sum[node] > 0.0
                if new and any_right:
                    wrong = [one for one in labelled.rollouts[node] if not one.verdict.right]
                    found += [Wrong(node, one) for one in wrong]
                asked = search.send(any_right)
        return found
