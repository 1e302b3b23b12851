"""What strategies do to a tree: sample children, rate, judge and read nodes. Each asks the driver once for all nodes.

A strategy that only uses these cannot lose anything it saw: every answer ends up in the tree.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from clew.core.protocols import Candidate, Encode, Extract, Request, Sample, Score, SearchResult, Verify
from clew.core.types import Sampling, Verdict
from clew.search.guidance import Guide
from clew.search.tree import Tree


def sample_children(
    tree: Tree, nodes: Sequence[int], n: int, sampling: Sampling
) -> Generator[Request, Any, list[list[int]]]:
    """`n` new children of each of `nodes`; their indices, [nodes][n]. A node named twice gets twice as many."""
    if not nodes or n < 1:
        return [[] for _ in nodes]
    states = tuple(tree.states[node] for node in nodes)
    first = tuple(_num_sampled(tree, node) for node in nodes)
    rows = yield Sample(states, n, sampling, first_index=first)
    made = tree.made[-1] + 1
    return [
        [tree.add(node, tree.states[node].extend(last), last, made=made) for last in row]
        for node, row in zip(nodes, rows, strict=True)
    ]


def _num_sampled(tree: Tree, node: int) -> int:
    return sum(tree.completions[child] is not None for child in tree.children[node])


def tell(tree: Tree, nodes: Sequence[int], texts: Sequence[str]) -> Generator[Request, Any, list[int]]:
    """A child of each of `nodes` whose state goes on with a text that nobody sampled; finished states are reopened."""
    tokens = yield Encode(tuple(texts))
    made = tree.made[-1] + 1
    return [
        tree.add(node, tree.states[node].reopened().told(tuple(ids)), made=made)
        for node, ids in zip(nodes, tokens, strict=True)
    ]


def score_nodes(tree: Tree, nodes: Sequence[int]) -> Generator[Request, Any, list[float]]:
    """The guide's score of each of `nodes`, also kept in the tree."""
    if not nodes:
        return []
    states = tuple(tree.states[node] for node in nodes)
    scores = yield Score(states, tuple(tree.completions[node] for node in nodes))
    for node, score in zip(nodes, scores, strict=True):
        tree.score[node] = score
    return list(scores)


def verify_nodes(tree: Tree, nodes: Sequence[int]) -> Generator[Request, Any, list[Verdict]]:
    """The environment's verdict on each of `nodes`, also kept in the tree."""
    if not nodes:
        return []
    verdicts = yield Verify(tuple(tree.states[node] for node in nodes))
    tree.verdicts.update(zip(nodes, verdicts, strict=True))
    return list(verdicts)


def extract_nodes(tree: Tree, nodes: Sequence[int]) -> Generator[Request, Any, list[str | None]]:
    """The canonical answer of each of `nodes`, also kept in the tree."""
    if not nodes:
        return []
    answers = yield Extract(tuple(tree.states[node] for node in nodes))
    tree.answers.update(zip(nodes, answers, strict=True))
    return list(answers)


def rate_nodes(tree: Tree, nodes: Sequence[int], guide: Guide) -> Generator[Request, Any, list[float]]:
    """Scores of `nodes` by whoever guides: the environment's value of a finished response, or the scorer's.

    A response that the environment could not judge, and one that is not finished, is rated 0 by it.
    """
    if guide == "scorer":
        return (yield from score_nodes(tree, nodes))
    ended = [node for node in nodes if tree.states[node].finished]
    verdicts = yield from verify_nodes(tree, ended)
    values = {node: verdict.value or 0.0 for node, verdict in zip(ended, verdicts, strict=True)}
    for node in nodes:
        tree.score[node] = values.get(node, 0.0)
    return [tree.score[node] for node in nodes]


def result(tree: Tree, chosen: int | None) -> SearchResult:
    """What a search answers: node `chosen`, and as candidates every response sampled to its end or cut off."""
    candidates = tuple(
        [
            Candidate(state, last, score if score == score else None)
            for state, last, score, children in zip(
                tree.states, tree.completions, tree.score, tree.children, strict=True
            )
            if last is not None and not children
        ]
    )
    return SearchResult(None if chosen is None else tree.states[chosen], candidates, tree)
