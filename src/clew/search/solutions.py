"""Whole solutions sampled from the root, rated and chosen: what strategies share that do not look inside a solution."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any

from clew.core.errors import InvalidValue
from clew.core.protocols import Request
from clew.core.types import Sampling
from clew.search.grow import sample_children, score_nodes, verify_nodes
from clew.search.guidance import Guide
from clew.search.record import BudgetExhausted
from clew.search.tree import Tree


def sample_solutions(
    tree: Tree, n: int, sampling: Sampling, *, per_request: int | None = None
) -> Generator[Request, Any, list[int]]:
    """`n` new children of the root, or as many as the budget allows, asked for `per_request` at a time (None: all)."""
    nodes: list[int] = []
    with suppress(BudgetExhausted):
        while len(nodes) < n:
            num_next = min(per_request or n, n - len(nodes))
            (sampled,) = yield from sample_children(tree, [0], num_next, sampling)
            nodes += sampled
    return nodes


def rate_solutions(tree: Tree, nodes: Sequence[int], guide: Guide) -> Generator[Request, Any, None]:
    """Put the guide's scores of `nodes` into the tree; NaN stays where the guide could not tell.

    Unlike the steps of `clew.search.grow.rate_nodes`, a solution that was cut off is judged as well: it may have given
    its answer before.
    """
    if guide == "scorer":
        yield from score_nodes(tree, nodes)
        return
    verdicts = yield from verify_nodes(tree, nodes)
    for node, verdict in zip(nodes, verdicts, strict=True):
        if verdict.value is not None:
            tree.score[node] = verdict.value


def best_node(tree: Tree, nodes: Sequence[int]) -> int | None:
    """The one with the highest score: of equals the first, those without a score last; None of none."""
    return max(nodes, key=lambda node: _or_lowest(tree.score[node]), default=None)


def best_of_answer(tree: Tree, nodes: Sequence[int], answer: str | None) -> int | None:
    """The best of those that give this answer; of all if it is None, because nobody gives any."""
    return best_node(tree, nodes if answer is None else [node for node in nodes if tree.answers[node] == answer])


def _or_lowest(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def check_counts(n: int, per_request: int | None) -> None:
    """Raises `InvalidValue` unless both are positive."""
    if n < 1:
        raise InvalidValue("n", n, "an integer of at least 1", "use 1 for plain sampling")
    if per_request is not None and per_request < 1:
        raise InvalidValue("per_request", per_request, "an integer of at least 1, or none for all at once", "raise it")
