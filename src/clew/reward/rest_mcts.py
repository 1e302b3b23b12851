"""Value and reward labels of ReST-MCTS* (arXiv 2406.03816, equations 1 and 2), inferred from a search tree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from clew.core.errors import InvalidValue
from clew.search.tree import NONE, ROOT, Tree


def weighted_reward(before: float, remaining: int, *, wrong: bool) -> float:
    """w = (1 - v) / (m + 1) (1 - 2 r): what a step adds to the value `before` it, with m steps remaining after it."""
    if remaining < 0:
        raise InvalidValue("remaining steps", remaining, "an integer of at least 0", "count the steps after this one")
    return (1.0 - before) / (remaining + 1) * (1.0 - 2.0 * wrong)


def step_values(remaining: Sequence[int], wrong: Sequence[bool]) -> list[float]:
    """v_k = max(0, v_{k-1} + w_k) after each of S steps, from v_0 = 0. A wrong step leaves the remaining as they were.

    >>> [round(v, 4) for v in step_values([2, 2, 1, 0], [False, True, False, False])]
    [0.3333, 0.1111, 0.5556, 1.0]
    """
    values: list[float] = []
    before = 0.0
    for left, is_wrong in zip(remaining, wrong, strict=True):
        before = max(0.0, before + weighted_reward(before, left, wrong=is_wrong))
        values.append(before)
    return values


def node_values(tree: Tree) -> list[float]:
    """v of every node: a step is right if a response below it is, and m the fewest steps to one.

    A wrong step brings no right end nearer: m of its parent stays. Without any right response all is worth 0.
    """
    distance = distances(tree)
    values = [0.0] * len(tree)
    left = [0] * len(tree)
    for node in range(len(tree)):
        parent = tree.parent[node]
        wrong = math.isinf(distance[node])
        if parent == NONE:
            left[node] = 0 if wrong else int(distance[node])
            continue
        left[node] = left[parent] if wrong else int(distance[node])
        values[node] = max(0.0, values[parent] + weighted_reward(values[parent], left[node], wrong=wrong))
    return values


def distances(tree: Tree) -> list[float]:
    """Fewest steps from each node to a right response at or below it; infinite where there is none."""
    found = [0.0 if node in tree.verdicts and tree.verdicts[node].right else math.inf for node in range(len(tree))]
    # A parent has a smaller index than its children.
    for node in _upwards(tree):
        parent = tree.parent[node]
        found[parent] = min(found[parent], found[node] + 1.0)
    return found


def _upwards(tree: Tree) -> Iterator[int]:
    return iter(range(len(tree) - 1, ROOT, -1))
