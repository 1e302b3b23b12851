"""What a page shows of a search tree: its columns, and the notes that were saved beside it.

A tree holds tokens, not text, and does not know which of its nodes was the answer or how that was judged. Whoever ran
the search knows: `TreeNotes`, one JSON file a tree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, final

from clew.core.cost import Cost
from clew.core.errors import RunDirectoryError
from clew.core.types import State
from clew.data.files import write_json_atomically
from clew.search.tree import Tree

TREES, NOTES = "trees", "notes"
"""Rooms of a run directory: `trees/NAME.json` (`clew.data.searches.save_tree`) and `notes/NAME.json`."""
DIGITS = 5
"""Significant digits of the numbers on a page."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNotes:
    """What a saved tree does not say."""

    texts: tuple[str, ...] = ()
    """[N] the text that each node adds to its parent's."""
    chosen: int | None = None
    """Node of the answer."""
    outcome: str = ""
    """`right`, `wrong` or `unscored` as the answer was judged afterwards; `failed`; empty where nobody judged."""
    answer: str | None = None
    reason: str = ""
    stop: str = ""
    error: str | None = None
    strategy: str = ""
    guidance: str | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    """Fields of the search's `Cost`, the guide's included."""


def step_texts(tree: Tree, text: Callable[[State], str]) -> tuple[str, ...]:
    """[N] the text that each node adds; `text` is the policy's.

    A node that does not simply go on from its parent's text (a state that was written anew) gives all of its own.
    """
    whole = [text(state) for state in tree.states]
    return tuple(
        now.removeprefix(whole[parent]) if parent >= 0 else now for now, parent in zip(whole, tree.parent, strict=True)
    )


def save_notes(path: Path, notes: TreeNotes) -> None:
    """Write `notes` to `path`; replaces the file as a whole."""
    write_json_atomically(path, notes)


def load_notes(path: Path) -> TreeNotes:
    """What `save_notes` was given; without a file, notes that say nothing. Raises `RunDirectoryError` if damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        known = {one.name: value[one.name] for one in fields(TreeNotes) if one.name in value}
        return TreeNotes(**{**known, "texts": tuple(known.get("texts", ()))})
    except FileNotFoundError:
        return TreeNotes()
    except (OSError, ValueError, TypeError) as error:
        accepted = "notes beside a search tree, as clew search writes them"
        advice = "restore it from a copy, or remove it to see the tree without texts"
        raise RunDirectoryError(f"{path} cannot be read: {error}", accepted, advice) from None


def columns(tree: Tree, notes: TreeNotes) -> dict[str, Any]:
    """JSON-able: one list entry a node (null: there is no number), and what is said of the search as a whole."""
    nodes = range(len(tree))
    texts = notes.texts if len(notes.texts) == len(tree) else tuple(map(_ids, _added(tree)))
    visited = [tree.value(node) for node in nodes]
    return {
        "id": tree.problem.id,
        "prompt": [[message.role, message.content] for message in tree.problem.prompt],
        **{name: getattr(notes, name) for name in ("chosen", "outcome", "answer", "reason", "stop", "error")},
        **{name: getattr(notes, name) for name in ("strategy", "guidance")},
        "cost": dict(notes.cost) or {k: v for k, v in asdict(tree.cost()).items() if v},
        "parent": list(tree.parent),
        "made": list(tree.made),
        "visits": list(tree.visits),
        "value": _numbers(visited),
        "prior": _numbers(tree.prior),
        "score": _numbers(tree.score),
        "logprob": _numbers(_mean_logprob(tree, node) for node in nodes),
        "costs": [_spent(cost) for cost in tree.costs],
        "finish": ["told" if node and c is None else "" if c is None else c.finish.value for node, c in _steps(tree)],
        "finished": [int(state.finished) for state in tree.states],
        "verdicts": {str(n): [v.outcome.value, v.value, v.answer, v.reason] for n, v in tree.verdicts.items()},
        "answers": {str(n): answer for n, answer in tree.answers.items()},
        "texts": texts,
    }


def _steps(tree: Tree) -> Iterable[tuple[int, Any]]:
    return enumerate(tree.completions)


def _added(tree: Tree) -> list[Sequence[int]]:
    """[N] tokens that each node adds."""
    return [
        state.tokens[len(tree.states[parent].tokens) :] if parent >= 0 else state.tokens
        for state, parent in zip(tree.states, tree.parent, strict=True)
    ]


def _ids(tokens: Sequence[int]) -> str:
    return "".join(f"[{token}]" for token in tokens)


def _mean_logprob(tree: Tree, node: int) -> float:
    completion = tree.completions[node]
    if completion is None or not completion.logprobs:
        return math.nan
    return sum(completion.logprobs) / len(completion.logprobs)


def _spent(cost: Cost) -> list[float]:
    """Sampled, read, cached and read again."""
    return list(astuple(cost)[:4])


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]
