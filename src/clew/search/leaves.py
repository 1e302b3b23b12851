"""What every MCTS does at the leaves of its tree: expand them, evaluate them, and read its answer off them at the end.

Children that hold the same tokens are one node, whose prior is that of all its samples. Responses that were rolled out
of a node are kept in the tree as its children, but are no steps: `branches` names the children that selection follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Request, Sample, SearchResult
from clew.core.types import Completion, Sampling
from clew.search.grow import rate_nodes, result, score_nodes
from clew.search.guidance import Guide
from clew.search.record import BudgetExhausted
from clew.search.selection import EPSILON, normalise
from clew.search.tree import Tree

Evaluate = Literal["rollout", "value", "reward"]
"""What a leaf is worth: what the guide says of a response rolled out of it; the scorer's number of the leaf itself; or
the mean of the scorer's numbers of the steps that led to it (process rewards, as in RAP, arXiv 2305.14992). Steps
sampled together are scored together."""

Choose = Literal["value", "visits"]
"""Which finished response is the answer: the one that the guide rates best of all, or the best of those below the most
visited line."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How the leaves of a search are evaluated."""

    by: Evaluate
    guide: Guide
    rollout: Sampling
    max_depth: int

    def __post_init__(self) -> None:
        if self.by != "rollout" and self.guide == "verifier":
            accepted = "a scorer, because the environment judges finished responses only"
            raise InvalidValue(
                "guide", self.guide, accepted, f"guide by a scorer, or evaluate by rollout, not {self.by}"
            )
        if self.max_depth < 1:
            raise InvalidValue("max_depth", self.max_depth, "an integer of at least 1", "use 1 for whole solutions")


@final
@dataclass(slots=True, kw_only=True)
class Growth:
    """The tree of one search while it grows, with what selection and evaluation keep beside it."""

    tree: Tree
    sampling: Sampling
    evaluation: Evaluation
    branches: dict[int, list[int]] = field(default_factory=dict)
    """The children that are steps, of each node that was expanded."""
    values: dict[int, float] = field(default_factory=dict)
    """The last evaluation of each node that has one."""
    low: float = math.inf
    high: float = -math.inf
    """The smallest and the largest evaluation so far: Q is rescaled by them (MuZero, arXiv 1911.08265, equation 5)."""
    _unscored: list[int] = field(default_factory=list)
    """New steps: those of one expansion are scored together, whichever of them is visited first."""
    _asked: dict[int, int] = field(default_factory=dict)
    """Completions asked for after each node, rollouts included: each has a random stream of its own."""
    _twins: dict[tuple[int, tuple[int, ...]], int] = field(default_factory=dict)

    def ended(self, node: int) -> bool:
        """Whether no step may follow `node`."""
        return self.tree.states[node].finished or self.tree.depth[node] >= self.evaluation.max_depth

    def known(self, node: int) -> float | None:
        """The evaluation of a node that another evaluation could not change; None if it is to be evaluated (again)."""
        by_rollout = self.evaluation.by == "rollout" and not self.tree.states[node].finished
        return None if by_rollout else self.values.get(node)

    def scale(self) -> tuple[float, float]:
        """`low` and `scale` such that (Q - low) * scale is `selection.min_max` of Q: between 0 and 1."""
        span = self.high - self.low
        return self.low, 1.0 / span if span > EPSILON else 0.0

    def expand(self, nodes: Sequence[int], width: int) -> Generator[Request, Any, list[list[int]]]:
        """`width` more completions of each of `nodes`; the child that each of them is, [nodes][width]."""
        if not nodes:
            return []
        rows = yield self._ask(nodes, width, self.sampling)
        made = self.tree.made[-1] + 1
        grown = [[self._add(node, last, made) for last in row] for node, row in zip(nodes, rows, strict=True)]
        for node, children in zip(nodes, grown, strict=True):
            self._set_priors(node, children)
        return grown

    def evaluate(self, nodes: Sequence[int]) -> Generator[Request, Any, list[tuple[int, float]]]:
        """Value of each of `nodes` and the node to count the visit at: itself, or the response rolled out of it."""
        if self.evaluation.by == "rollout":
            places = yield from self._roll_out(nodes)
            values = yield from rate_nodes(self.tree, places, self.evaluation.guide)
        else:
            places = list(nodes)
            new, self._unscored = self._unscored, []
            yield from score_nodes(self.tree, new)
            values = [self._scored(node) for node in nodes]
        self.values.update(zip(nodes, values, strict=True))
        return list(zip(places, values, strict=True))

    def _scored(self, node: int) -> float:
        if self.evaluation.by == "value":
            return self.tree.score[node]
        scores = self.tree.scores_on(node)
        return sum(scores) / len(scores)

    def simulate(
        self, leaves: Sequence[int], width: int, pick: Callable[[Growth, int], int]
    ) -> Generator[Request, Any, None]:
        """Evaluate each of `leaves`, or, where it was evaluated before, the first of `width` steps sampled after it."""
        ripe = [node for node in leaves if node in self.values and not self.ended(node)]
        yield from self.expand(ripe, width)
        chosen = [pick(self, node) if node in self.branches else node for node in leaves]
        for node, value in (yield from self.evaluate(chosen)):
            self.backup(node, value)

    def meet(self, node: int) -> bool:
        """Count a visit of a node whose value is there already, scored with its siblings or ended; False for others."""
        value = self.values.get(node)
        if value is None:
            score = self.tree.score[node]
            if score != score or self.evaluation.by == "rollout":
                return False
            value = self.values[node] = self._scored(node)
        elif not self.ended(node) or self.known(node) is None:
            return False
        self.backup(node, value)
        return True

    def backup(self, node: int, value: float) -> None:
        """Count one evaluation of `value` at `node`."""
        if value < self.low:
            self.low = value
        if value > self.high:
            self.high = value
        self.tree.backup(node, value)

    def _roll_out(self, nodes: Sequence[int]) -> Generator[Request, Any, list[int]]:
        tree = self.tree
        unfinished = [node for node in nodes if not tree.states[node].finished]
        ends = {}
        if unfinished:
            rows = yield self._ask(unfinished, 1, self.evaluation.rollout)
            made = tree.made[-1] + 1
            for node, (last,) in zip(unfinished, rows, strict=True):
                ends[node] = tree.add(node, tree.states[node].extend(last), last, made=made)
        return [ends.get(node, node) for node in nodes]

    def _ask(self, nodes: Sequence[int], n: int, sampling: Sampling) -> Sample:
        asked = self._asked
        first = tuple(asked.get(node, 0) for node in nodes)
        for node in nodes:
            asked[node] = asked.get(node, 0) + n
        return Sample(tuple(map(self.tree.states.__getitem__, nodes)), n, sampling, first_index=first)

    def _add(self, node: int, completion: Completion, made: int) -> int:
        key = (node, completion.tokens)
        child = self._twins.get(key)
        if child is None:
            tree = self.tree
            child = self._twins[key] = tree.add(node, tree.states[node].extend(completion), completion, made=made)
            self.branches.setdefault(node, []).append(child)
            self._unscored.append(child)
        else:
            self.tree.pay(child, completion)
        return child

    def _set_priors(self, node: int, sampled: Sequence[int]) -> None:
        """Each sample has a share by its mean log-prob, where the policy tells it; a child has those of its samples."""
        tree = self.tree
        shares = normalise([_mean_logprob(tree.completions[child]) for child in sampled])
        for child in self.branches[node]:
            tree.prior[child] = 0.0
        for child, share in zip(sampled, shares, strict=True):
            tree.prior[child] += share


def answer(growth: Growth, choose: Choose, line: Iterable[int] = ()) -> Generator[Request, Any, SearchResult]:
    """What the search answers: the finished response that the guide rates best, of equals the first; None without one.

    `line`, of nodes from the root on, is looked at if `choose` is "visits": responses that leave it later come first.
    """
    tree = growth.tree
    finished = list(tree.finished())
    with suppress(BudgetExhausted):
        unrated = [node for node in finished if math.isnan(tree.score[node])]
        yield from rate_nodes(tree, unrated, growth.evaluation.guide)
    on_line = set(line) if choose == "visits" else set()

    def rank(node: int) -> tuple[int, float]:
        score, above = tree.score[node], node
        while on_line and above not in on_line:
            above = tree.parent[above]
        return tree.depth[above] if on_line else 0, -math.inf if math.isnan(score) else score

    return result(tree, max(finished, key=rank, default=None))


def most_visited_line(growth: Growth, start: int = 0) -> list[int]:
    """`start`, its most visited step, the most visited step after that, and so on; of equals the first."""
    line = [start]
    while line[-1] in growth.branches:
        line.append(max(growth.branches[line[-1]], key=growth.tree.visits.__getitem__))
    return line


def check_positive(**counts: int) -> None:
    """Raises `InvalidValue` for the first of `counts` that is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise InvalidValue(name, count, "an integer of at least 1", "raise it")


def _mean_logprob(completion: Completion | None) -> float:
    if completion is None or not completion.logprobs:
        return 0.0
    return sum(completion.logprobs) / len(completion.logprobs)
