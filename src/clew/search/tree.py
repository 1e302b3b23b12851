"""The one search tree: flat columns with integer parents. Every strategy grows it, every other room reads it.

A node is an index into the columns; node 0 is the root, a parent has a smaller index than its children, and the order
of indices is the order in which nodes were made. Columns grow in place: no node is ever copied or moved.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import final

from clew.core.cost import Cost
from clew.core.types import Completion, Problem, State, Verdict

ROOT = 0
NONE = -1
"""The parent of the root."""


@final
class Tree:
    """What one search of one problem saw and learnt, N nodes."""

    __slots__ = (
        "_costs",
        "answers",
        "children",
        "completions",
        "depth",
        "made",
        "parent",
        "pending",
        "prior",
        "score",
        "states",
        "value_sum",
        "verdicts",
        "visits",
    )

    def __init__(self, problem: Problem) -> None:
        self.parent = array("q")
        """[N] index of the parent, `NONE` for the root."""
        self.depth = array("q")
        """[N] steps from the root."""
        self.prior = array("d")
        """[N] probability that the policy gave the step among its siblings; 1 where nobody said."""
        self.visits = array("q")
        """[N] how often a value was backed up through the node."""
        self.value_sum = array("d")
        """[N] sum of those values; `value` is their mean."""
        self.pending = array("q")
        """[N] evaluations under way below the node (virtual visits); 0 when the search is at rest."""
        self.score = array("d")
        """[N] the guide's score of the state, NaN before it was asked."""
        self.made = array("q")
        """[N] the number of the round in which the node was made, from 0: the search in time order."""
        self.states: list[State] = []
        self.completions: list[Completion | None] = []
        """[N] the completion that led from the parent to the node; None for the root and for text that was told."""
        self._costs: list[Cost] = []
        self.children: list[list[int]] = []
        self.verdicts: dict[int, Verdict] = {}
        """Judgements of the environment, of the nodes that were shown to it."""
        self.answers: dict[int, str | None] = {}
        """Canonical answers, of the nodes they were read off."""
        self._append(NONE, State(problem), None, 1.0, 0)

    def __len__(self) -> int:
        return len(self.parent)

    def __eq__(self, other: object) -> bool:
        """Whether both saw and learnt the same; scores that were not asked are equal."""
        if not isinstance(other, Tree):
            return NotImplemented
        return all(_plain(getattr(self, name)) == _plain(getattr(other, name)) for name in _COLUMNS)

    @property
    def problem(self) -> Problem:
        return self.states[0].problem

    @property
    def costs(self) -> list[Cost]:
        """[N] what making the node consumed: tokens sampled and read."""
        # Made when they are asked for: most searches never do, and a cost takes as long as all the rest of a node.
        for completion in self.completions[len(self._costs) :]:
            self._costs.append(Cost() if completion is None else _cost_of(completion))
        return self._costs

    def add(
        self,
        parent: int,
        state: State,
        completion: Completion | None = None,
        *,
        prior: float = 1.0,
        cost: Cost | None = None,
        made: int | None = None,
    ) -> int:
        """A new child of `parent`; its index. `made` None is the round of the newest node."""
        node = self._append(parent, state, completion, prior, self.made[-1] if made is None else made)
        if cost is not None:
            self.costs[node] = cost
        self.children[parent].append(node)
        return node

    def _append(self, parent: int, state: State, completion: Completion | None, prior: float, made: int) -> int:
        node = len(self.parent)
        self.parent.append(parent)
        self.depth.append(0 if parent == NONE else self.depth[parent] + 1)
        self.prior.append(prior)
        self.visits.append(0)
        self.value_sum.append(0.0)
        self.pending.append(0)
        self.score.append(math.nan)
        self.made.append(made)
        self.states.append(state)
        self.completions.append(completion)
        self.children.append([])
        return node

    def pay(self, node: int, completion: Completion) -> None:
        """Add the cost of `completion`, a further sample of the tokens that `node` holds already."""
        self.costs[node] += _cost_of(completion)

    def value(self, node: int) -> float:
        """Mean of the values backed up through `node`; NaN before the first."""
        visits = self.visits[node]
        return self.value_sum[node] / visits if visits else math.nan

    def path(self, node: int) -> list[int]:
        """From the root to `node`, both included."""
        nodes = []
        while node != NONE:
            nodes.append(node)
            node = self.parent[node]
        return nodes[::-1]

    def backup(self, node: int, value: float) -> None:
        """Count one more visit, of `value`, at `node` and all above it."""
        parent, visits, value_sum = self.parent, self.visits, self.value_sum
        while node != NONE:
            visits[node] += 1
            value_sum[node] += value
            node = parent[node]

    def hold(self, node: int, by: int = 1) -> None:
        """Note `by` more (or, negative, fewer) evaluations under way at `node` and all above it."""
        parent, pending = self.parent, self.pending
        while node != NONE:
            pending[node] += by
            node = parent[node]

    def leaves(self) -> Iterator[int]:
        """Nodes without children, in the order they were made."""
        return (node for node, children in enumerate(self.children) if not children)

    def finished(self) -> Iterator[int]:
        """Nodes whose state is a finished response, in the order they were made."""
        return (node for node, state in enumerate(self.states) if state.finished)

    def scores_on(self, node: int) -> list[float]:
        """Scores of the steps from the root (left out) to `node`, of those that were scored."""
        return [self.score[at] for at in self.path(node)[1:] if not math.isnan(self.score[at])]

    def cost(self, nodes: Sequence[int] | None = None) -> Cost:
        """What making `nodes` (None: all) consumed."""
        total = Cost()
        costs = self.costs
        for node in range(len(self)) if nodes is None else nodes:
            total += costs[node]
        return total


_COLUMNS = (*(name for name in Tree.__slots__ if name != "_costs"), "costs")


def _plain(column: object) -> object:
    return column.tobytes() if isinstance(column, array) else column


def _cost_of(completion: Completion) -> Cost:
    return Cost(
        tokens_sampled=len(completion.tokens),
        prompt_tokens_read=completion.prompt_tokens_read,
        prompt_tokens_cached=completion.prompt_tokens_cached,
        prompt_tokens_reread=completion.prompt_tokens_reread,
        model_calls=1,
    )
