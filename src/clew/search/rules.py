"""Selection rules as settings: which step of an expanded node to follow. The formulas are in `selection.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from clew.core.errors import InvalidValue
from clew.search.leaves import Growth
from clew.search.selection import completed_q, exploration, gumbel_interior, improved_policy, sigma


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Uct:
    """Unvisited steps first, in the order they were sampled; then the largest upper confidence bound."""

    c: float = math.sqrt(2.0)
    """How much is explored, with values on a scale from 0 to 1."""

    def __post_init__(self) -> None:
        _check("c", self.c)

    @property
    def name(self) -> str:
        return "uct"

    def pick(self, growth: Growth, node: int) -> int:
        tree, (low, scale) = growth.tree, growth.scale()
        visits, pending, sums = tree.visits, tree.pending, tree.value_sum
        seen = visits[node]
        own = (sums[node] / seen - low) * scale if seen else 0.0
        # `selection.uct`, with what is the same for all children taken out of the loop.
        width = self.c * math.sqrt(math.log(max(1, seen + pending[node])))
        chosen, top, sqrt = -1, -math.inf, math.sqrt
        for child in growth.branches[node]:
            seen = visits[child]
            total = seen + pending[child]
            if not total:
                return child
            bound = ((sums[child] / seen - low) * scale if seen else own) + width / sqrt(total)
            if bound > top:
                chosen, top = child, bound
        return chosen


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Puct:
    """The prior says where to look first, the mean value where to look again (AlphaZero)."""

    c1: float = 1.25
    """How much is explored, with values on a scale from 0 to 1."""
    c2: float = 19652.0
    """Visits from which on more is explored."""
    noise: float = 0.0
    """Share of Dirichlet noise in the priors of the first steps; AlphaZero has 0.25."""
    alpha: float = 0.3
    """Concentration of that noise."""

    def __post_init__(self) -> None:
        _check("c1", self.c1)
        if not self.c2 > 0.0:
            raise InvalidValue("c2", self.c2, "a positive number", "use 19652")
        if not 0.0 <= self.noise <= 1.0:
            raise InvalidValue("noise", self.noise, "a share from 0 to 1", "use 0 for none")
        if not self.alpha > 0.0:
            raise InvalidValue("alpha", self.alpha, "a positive number", "use 0.3")

    @property
    def name(self) -> str:
        return "puct"

    def pick(self, growth: Growth, node: int) -> int:
        tree, (low, scale) = growth.tree, growth.scale()
        visits, pending, sums, prior = tree.visits, tree.pending, tree.value_sum, tree.prior
        seen = visits[node]
        own = (sums[node] / seen - low) * scale if seen else 0.0
        # `selection.puct`, with what is the same for all children taken out of the loop. Before the first visit the
        # exploration term would be 0, and the prior without a say.
        width = exploration(max(1, seen + pending[node]), self.c1, self.c2)
        chosen, top = -1, -math.inf
        for child in growth.branches[node]:
            seen = visits[child]
            q = (sums[child] / seen - low) * scale if seen else own
            bound = q + width * prior[child] / (1 + seen + pending[child])
            if bound > top:
                chosen, top = child, bound
        return chosen


Rule = Uct | Puct


def pick_improved(growth: Growth, node: int) -> int:
    """The step of `node` whose share of visits falls most behind the improved policy (Gumbel MuZero, equation 14)."""
    tree, steps = growth.tree, growth.branches[node]
    improved = improved_policy([tree.prior[n] for n in steps], gumbel_sigma(growth, node))
    return steps[gumbel_interior(improved, [tree.visits[n] for n in steps])]


def gumbel_sigma(growth: Growth, node: int) -> list[float]:
    """sigma of the completed Q of each step of `node`; the own value of a root, which nobody evaluated, is its mean."""
    tree, steps = growth.tree, growth.branches[node]
    visits = [tree.visits[n] for n in steps]
    q = [tree.value_sum[n] / (tree.visits[n] or 1) for n in steps]
    own = growth.values.get(node, tree.value_sum[node] / (tree.visits[node] or 1))
    return sigma(completed_q(own, [tree.prior[n] for n in steps], q, visits), visits)


def _check(name: str, constant: float) -> None:
    if not (0.0 <= constant < math.inf):
        raise InvalidValue(name, constant, "a number of at least 0", "use 0 to follow the values alone")
