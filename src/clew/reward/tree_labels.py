"""Step labels read off a search tree: one solution for each leaf, a label for each step on the way to it.

Any tree will do: one that `MonteCarlo` or `OmegaPrm` measured, or that of an MCTS. A rule says what the labels of the
steps of a path are; all rules take the same arguments, so that anyone can write another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

from clew.core.cost import Cost
from clew.core.types import Outcome, Span, State
from clew.data.step_labels import StepLabels
from clew.reward.rest_mcts import node_values
from clew.search.tree import NONE, Tree

Values = Sequence[float | None]
"""[1 + S] of a path: the value of the root and of each of S steps, None where it was not visited."""
Rule = Callable[[Values], list[float | None]]
"""From the values of a path to the labels [S] of its steps."""
RuleName = Literal["soft", "hard", "interpolated", "implied"]


def soft(values: Values) -> list[float | None]:
    """The value itself: share of right roll-outs, or mean of the values that a search backed up."""
    return list(values[1:])


def hard(values: Values) -> list[float | None]:
    """1 where the value is above 0, else 0.

    >>> hard([0.5, 0.25, None, 0.0])
    [1.0, None, 0.0]
    """
    return [None if value is None else float(value > 0.0) for value in values[1:]]


def interpolated(values: Values) -> list[float | None]:
    """The value, and between two that are known the line between them.

    >>> interpolated([1.0, None, 0.5, None])
    [0.75, 0.5, None]
    """
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    labels = list(values)
    for (left, low), (right, high) in pairwise(known):
        for at in range(left + 1, right):
            labels[at] = low + (high - low) * (at - left) / (right - left)
    return labels[1:]


def implied(values: Values) -> list[float | None]:
    """`hard`, and what follows from it: before a step from which there is a right end all is right, and after one from
    which there is none all is wrong (OmegaPRM). Steps between the last right and the first wrong one stay unknown.

    >>> implied([0.5, None, 0.25, None, 0.0, None])
    [1.0, 1.0, None, 0.0, 0.0]
    """
    last_right = max((at for at, value in enumerate(values) if value is not None and value > 0.0), default=-1)
    first_wrong = next(
        (at for at, value in enumerate(values) if value == 0.0 and value is not None and at > last_right), len(values)
    )
    return [1.0 if at <= last_right else 0.0 if at >= first_wrong else None for at in range(1, len(values))]


RULES: Mapping[RuleName, Rule] = MappingProxyType(
    {"soft": soft, "hard": hard, "interpolated": interpolated, "implied": implied}
)


def labels_of_tree(tree: Tree, text: Callable[[State], str], rule: Rule, *, made: str) -> list[StepLabels]:
    """Solutions of `tree`, one a leaf, whose steps `rule` labels; `text` is the policy's.

    Responses that could not be judged are left out of the values of all they were counted in.
    """
    values = tree_values(tree)
    return _labels(tree, text, lambda path: rule([values[node] for node in path]), made)


def rest_labels_of_tree(tree: Tree, text: Callable[[State], str], *, made: str) -> list[StepLabels]:
    """The same with the values of ReST-MCTS* (`clew.reward.rest_mcts.node_values`)."""
    values = node_values(tree)
    return _labels(tree, text, lambda path: [values[node] for node in path[1:]], made)


def tree_values(tree: Tree) -> list[float | None]:
    """Mean value of each node over its visits that could be judged; None where there are none."""
    return [
        value_sum / visits if visits > 0 else None
        for value_sum, visits in zip(tree.value_sum, judged_visits(tree), strict=True)
    ]


def judged_visits(tree: Tree) -> list[int]:
    """Visits of each node without those of responses that could not be judged, which a search backs up as 0."""
    visits = list(tree.visits)
    for node, verdict in tree.verdicts.items():
        if verdict.outcome is Outcome.UNSCORED:
            unjudged = tree.visits[node]
            for above in tree.path(node):
                visits[above] -= unjudged
    return visits


def _labels(
    tree: Tree, text: Callable[[State], str], label: Callable[[list[int]], list[float | None]], made: str
) -> list[StepLabels]:
    texts, visits = [text(state) for state in tree.states], judged_visits(tree)
    shown = {NONE}
    found = []
    for leaf in tree.leaves():
        path = tree.path(leaf)
        # The root's samples are paid for in the first solution.
        new = [node for node in path if node not in shown]
        shown.update(path)
        steps, labels = path[1:], label(path)
        if not steps:
            continue
        whole = tree.states[leaf].tokens
        stops = [len(tree.states[node].tokens) for node in steps]
        # Only a line that goes on and on has places for its steps: not one that was written anew on the way.
        grows = all(whole[:stop] == tree.states[node].tokens for node, stop in zip(steps, stops, strict=True))
        found.append(
            StepLabels(
                problem=tree.problem,
                steps=tuple(texts[node].removeprefix(texts[tree.parent[node]]) for node in steps),
                labels=tuple(labels),
                weights=tuple(float(node in new and one is not None) for node, one in zip(steps, labels, strict=True)),
                visits=tuple(visits[node] for node in steps),
                tokens=whole if grows else None,
                spans=tuple(Span(a, b) for a, b in pairwise([0, *stops])) if grows else None,
                made=made,
                outcome=tree.verdicts[leaf].outcome.value if leaf in tree.verdicts else "",
                unscored=sum(_num_unscored(tree, node) for node in new),
                cost=sum((tree.costs[node] for node in new), Cost()),
            )
        )
    return found


def _num_unscored(tree: Tree, node: int) -> int:
    """Responses at `node` that could not be judged: roll-outs from it, or itself."""
    itself = node in tree.verdicts and tree.verdicts[node].outcome is Outcome.UNSCORED
    calls = tree.costs[node].verifier_calls
    return int(itself) + (max(0, calls - tree.visits[node]) if calls else 0)
