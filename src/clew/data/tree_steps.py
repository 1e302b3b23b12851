"""What a saved tree offers as choices: the steps after a node, alike ones counted as one, and what each is worth.

A **measure** says what nodes are worth as sums and counts, so that it can be added over nodes that hold the same
tokens: what the search backed up, how the solutions below ended, or what the guide said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from typing import NamedTuple

from clew.core.types import FinishReason, Outcome, State
from clew.reward.tree_labels import judged_visits
from clew.search.tree import ROOT, Tree


class Measure(NamedTuple):
    """Worth of each of N nodes as `sums[n] / counts[n]`; a count of 0 says that nobody knows."""

    sums: Sequence[float]
    counts: Sequence[int]

    def value(self, nodes: Sequence[int]) -> float | None:
        """Mean over all that was counted at `nodes`; None if nothing was."""
        count = self.count(nodes)
        return sum(self.sums[node] for node in nodes) / count if count else None

    def count(self, nodes: Sequence[int]) -> int:
        return sum(self.counts[node] for node in nodes)


MeasureOf = Callable[[Tree], Measure]


def backed_up(tree: Tree) -> Measure:
    """Values that the search backed up, and its visits; what could not be judged is left out of both."""
    return Measure(tree.value_sum, judged_visits(tree))


def outcomes(tree: Tree) -> Measure:
    """Verdict values of the judged solutions at or below each node: the Monte Carlo return of a step."""
    sums, counts = [0.0] * len(tree), [0] * len(tree)
    for node, verdict in tree.verdicts.items():
        if verdict.outcome is not Outcome.UNSCORED and verdict.value is not None:
            sums[node] += verdict.value
            counts[node] += 1
    # A parent has a smaller index than its children.
    for node in range(len(tree) - 1, ROOT, -1):
        sums[tree.parent[node]] += sums[node]
        counts[tree.parent[node]] += counts[node]
    return Measure(sums, counts)


def guide_scores(tree: Tree) -> Measure:
    """The guide's score of each state itself; nothing is added up from below."""
    known = [score == score for score in tree.score]
    scores = [score if ok else 0.0 for score, ok in zip(tree.score, known, strict=True)]
    return Measure(scores, [int(ok) for ok in known])


def best_known(tree: Tree) -> Measure:
    """`backed_up` if the search backed anything up; else the guide's scores, else outcomes."""
    measures = (backed_up(tree), guide_scores(tree), outcomes(tree))
    return next((measure for measure in measures if any(measure.counts)), measures[0])


class Growth(NamedTuple):
    """A state as the tokens it goes on from and those it adds."""

    before: tuple[int, ...]
    added: tuple[int, ...]


def growth(tree: Tree, node: int) -> Growth:
    """What `node` adds to its parent; a state that was written anew adds all of itself to nothing."""
    state = tree.states[node]
    if node == ROOT:
        return Growth((), state.tokens)
    parent = tree.states[tree.parent[node]]
    if state.problem == parent.problem:
        for before in (parent.tokens, parent.reopened().tokens):
            if state.tokens[: len(before)] == before:
                return Growth(before, state.tokens[len(before) :])
    return Growth((), state.tokens)


class Step(NamedTuple):
    """One choice after a state."""

    state: State
    before: tuple[int, ...]
    """Response tokens it goes on from."""
    tokens: tuple[int, ...]
    """Those it adds, as they were sampled."""
    nodes: tuple[int, ...]
    """The nodes that hold it, the first made first."""


def steps_of(tree: Tree, node: int, rolled_out: Set[int]) -> list[Step]:
    """The steps that were sampled after `node`, in the order they were made, those with the same tokens as one.

    Text that was told is nobody's choice, and a response `rolled_out` (see `rollouts`) to judge `node` is no step: both
    are left out.
    """
    found: dict[tuple[object, ...], list[int]] = {}
    for child in tree.children[node]:
        if tree.completions[child] is not None and child not in rolled_out:
            state = tree.states[child]
            found.setdefault((state.tokens, state.finished, _other_prompt(tree, state)), []).append(child)
    grown = [(nodes, growth(tree, nodes[0])) for nodes in found.values()]
    return [Step(tree.states[nodes[0]], part.before, part.added, tuple(nodes)) for nodes, part in grown if part.added]


def _other_prompt(tree: Tree, state: State) -> object:
    return None if state.problem == tree.problem else state.problem.prompt


def known_priors(tree: Tree, rolled_out: Set[int]) -> list[float | None]:
    """[N] the probability of each step among its siblings; None where no search asked, and for what is no step.

    A tree says 1 where nobody asked: then those of siblings do not add up to 1.
    """
    found: list[float | None] = [None] * len(tree)
    for children in tree.children:
        steps = [child for child in children if tree.completions[child] is not None and child not in rolled_out]
        if steps and math.isclose(sum(tree.prior[child] for child in steps), 1.0, abs_tol=1e-6):
            for child in steps:
                found[child] = tree.prior[child]
    return found


def rollouts(tree: Tree) -> Set[int]:
    """Nodes that are whole responses sampled only to judge their parent, which a tree does not say itself.

    They are leaves without a prior in a tree of steps, visited once; and where a search rolls out, all visits of a node
    come from below it. A last step that was visited once, and had no sibling to share the prior with, looks the same.
    """
    grown = range(ROOT + 1, len(tree))
    if not any(0.0 < tree.prior[node] < 1.0 or not _whole(tree, node) for node in grown):
        return frozenset()
    from_below = [
        tree.visits[node] == sum(tree.visits[child] for child in tree.children[node]) for node in range(len(tree))
    ]
    return frozenset(
        node
        for node in grown
        if _whole(tree, node)
        and not tree.children[node]
        and tree.visits[node] == 1
        and tree.prior[node] == 1.0
        and from_below[tree.parent[node]]
    )


def _whole(tree: Tree, node: int) -> bool:
    completion = tree.completions[node]
    return completion is None or completion.finish is not FinishReason.STEP
