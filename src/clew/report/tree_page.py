"""The page of search trees: one self-contained file that draws them, folds them and plays them. No request leaves it.

The data of each tree are compressed JSON in a block of their own, unpacked when the reader picks the problem. They are
put on the page as text only, so that nothing a model wrote can be anything else.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from clew.core.errors import InvalidValue, RunDirectoryError, UnknownName
from clew.data.searches import load_tree
from clew.report import palette
from clew.report.tree_data import NOTES, TREES, TreeNotes, columns, load_notes
from clew.search.tree import Tree

MOST_NODES = 400_000
"""Nodes on one page; the trees of further problems are left out of it, and said to be."""
_HERE = Path(__file__).parent


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTree:
    """One problem on the page."""

    name: str
    id: str
    outcome: str
    num_nodes: int
    block: str
    """Its columns: JSON, gzip, base64."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTrees:
    """All that a page shows."""

    title: str
    trees: tuple[ShownTree, ...]
    left_out: int = 0
    """Problems that did not fit."""


def show_tree(tree: Tree, notes: TreeNotes | None = None, *, name: str = "") -> ShownTree:
    """`tree` ready for a page; without notes its steps are token ids."""
    notes = notes if notes is not None else TreeNotes()
    packed = gzip.compress(json.dumps(columns(tree, notes), separators=(",", ":")).encode(), mtime=0)
    return ShownTree(
        name=name or tree.problem.id,
        id=tree.problem.id,
        outcome=notes.outcome,
        num_nodes=len(tree),
        block=base64.b64encode(packed).decode(),
    )


def read_trees(path: Path, problem: str | None = None, *, most_nodes: int = MOST_NODES) -> ShownTrees:
    """The trees of the run directory `path`, or the one in the file `path`; only that of `problem` (an id, or its place
    from 0) if it is named. Raises `RunDirectoryError`, `UnknownName` or `InvalidValue`."""
    if path.is_file():
        return ShownTrees(title=path.stem, trees=(show_tree(load_tree(path), name=path.stem),))
    names = sorted(file.stem for file in (path / TREES).glob("[!.]*.json"))
    if not names:
        given = f"{path} has no search trees" if path.is_dir() else f"there is no run directory {path}"
        raise RunDirectoryError(given, "the run directory of clew search, or one tree that was saved", "check the path")
    if problem is not None:
        names = [_named(path, names, problem)]
    trees: list[ShownTree] = []
    num_nodes = 0
    for name in names:
        tree = load_tree(path / TREES / f"{name}.json")
        num_nodes += len(tree)
        if trees and num_nodes > most_nodes:
            break
        trees.append(show_tree(tree, load_notes(path / NOTES / f"{name}.json"), name=name))
    return ShownTrees(title=path.resolve().name, trees=tuple(trees), left_out=len(names) - len(trees))


def render(shown: ShownTrees) -> str:
    """The page; the same trees give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = environment.get_template("tree.js.j2").render()
    index = [[tree.name, tree.id, tree.outcome, tree.num_nodes] for tree in shown.trees]
    return environment.get_template("tree.html.j2").render(
        shown=shown,
        palette=palette,
        behaviours=[],
        index=Markup(_safe_json(index)),
        script=Markup(script),  # our own file, into which no value is rendered
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _named(path: Path, names: Sequence[str], problem: str) -> str:
    if problem.isdecimal():
        if int(problem) >= len(names):
            accepted = f"a place from 0 to {len(names) - 1}, or the id of a problem"
            raise InvalidValue("problem", problem, accepted, "count from 0")
        return names[int(problem)]
    ids = dict(_ids(path, names))
    if problem not in ids and problem not in names:
        raise UnknownName("problem", problem, ids)
    return ids.get(problem, problem)


def _ids(path: Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(problem id, name); read off the files without checking them, which loading the tree does."""
    for name in names:
        whole = json.loads((path / TREES / f"{name}.json").read_text(encoding="utf-8"))
        yield whole["tree"]["problem"]["id"], name


def _safe_json(value: Any) -> str:
    """JSON that may stand between script tags."""
    return json.dumps(value).replace("<", "\\u003c")
