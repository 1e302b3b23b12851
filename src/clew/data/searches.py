"""Searches and their trees on disk: what a search goes on from, and what it saw, as text that anything can read.

**Searches** (`save_searches`, `save_records`, `load_searches`) are JSON lines. Line 1 is
`{"format": "clew-searches", "version": 1, "sha256": ..., "about": {...}}`, the checksum over the rest of the file and
`about` whatever the caller wants to know again (the strategy and its settings, the checkpoint). Then a line a problem:

    {"stop": "paused", "error": null, "problem": {...}, "seed": 0, "cost": {...}, "answers": [...]}

where `answers` holds, in order, every answer that the strategy was given: `{"samples": [[completion, ...], ...]}`,
`{"scores": [...]}`, `{"verdicts": [[outcome, value, answer, reason], ...]}`, `{"answers": [...]}`, `{"encoded": [...]}`
or `{"texts": [...]}`. The result is not in the file: `continue_searches` makes it anew from the answers.

**A tree** (`save_tree`, `load_tree`) is one JSON object, `{"format": "clew-tree", "version": 1, "sha256": ...,
"tree": {...}}`, the checksum over `tree` written without spaces. Its columns are lists with one entry a node, in the
order in which nodes were made: `parent` (-1 for the root), `prior`, `visits`, `value_sum`, `pending`, `score` (null:
not scored), `made`, `costs` (the fields of `Cost`, in their order), `completions` and `states` (null: the parent's
state and the completion; `told`: the parent's state and these tokens). `verdicts` and `answers` are keyed by the node.

Infinities are the strings "inf" and "-inf". Files are whole or absent; a damaged one is a `CheckpointError`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clew.core.errors import CheckpointError
from clew.data.files import jsonable, write_text_atomically
from clew.data.search_json import decode_record, decode_tree, encode_record, encode_tree
from clew.search.record import SearchOutcome, SearchRecord, StopReason
from clew.search.tree import Tree

VERSION = 1
_SEARCHES, _TREE = "clew-searches", "clew-tree"
_ACCEPTED = {
    _SEARCHES: f"searches that clew saved, version {VERSION}",
    _TREE: f"a search tree that clew saved, version {VERSION}",
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """One problem's search as it was saved."""

    record: SearchRecord
    stop: StopReason
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SavedSearches:
    searches: tuple[SavedSearch, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


def save_searches(path: Path, outcomes: Sequence[SearchOutcome], *, about: Mapping[str, Any] | None = None) -> None:
    """Write what `outcomes` go on from to `path`; `about` is kept with them. Replaces the file as a whole."""
    _save(path, [SavedSearch(outcome.record, outcome.stop, outcome.error) for outcome in outcomes], about)


def save_records(path: Path, records: Sequence[SearchRecord], *, about: Mapping[str, Any] | None = None) -> None:
    """`save_searches` of searches that are still running (`Progress.records`)."""
    _save(path, [SavedSearch(record, StopReason.PAUSED) for record in records], about)


def load_searches(path: Path) -> SavedSearches:
    """What `save_searches` was given. Raises `CheckpointError` if the file is not there, or not as it was written."""
    head, _, body = _read(path, _SEARCHES).partition("\n")

    def decode() -> SavedSearches:
        header = json.loads(head)
        _check(path, _SEARCHES, header, body)
        return SavedSearches(tuple(_decode_search(json.loads(line)) for line in body.splitlines()), header["about"])

    return _decoded(path, _SEARCHES, decode)


def load_records(path: Path) -> list[SearchRecord]:
    """The records that `continue_searches` goes on from. Raises as `load_searches`."""
    return [search.record for search in load_searches(path).searches]


def save_tree(path: Path, tree: Tree) -> None:
    """Write `tree` to `path`; replaces the file as a whole."""
    body = _dump(encode_tree(tree))
    write_text_atomically(path, f'{_header(_TREE, body)[:-1]}, "tree": {body}}}\n')


def load_tree(path: Path) -> Tree:
    """The tree that `save_tree` was given. Raises `CheckpointError` if the file is not there, or not as it was written.

    Equal but for the `parent` of states that continue nothing, which is not kept.
    """
    text = _read(path, _TREE)

    def decode() -> Tree:
        whole = json.loads(text)
        _check(path, _TREE, whole, None)
        _check(path, _TREE, whole, _dump(whole["tree"]))
        return decode_tree(whole["tree"])

    return _decoded(path, _TREE, decode)


def _save(path: Path, searches: Sequence[SavedSearch], about: Mapping[str, Any] | None) -> None:
    body = "".join(f"{_dump(_encode_search(search))}\n" for search in searches)
    head = f'{_header(_SEARCHES, body)[:-1]}, "about": {json.dumps(jsonable(about or {}))}}}'
    write_text_atomically(path, f"{head}\n{body}")


def _encode_search(search: SavedSearch) -> dict[str, Any]:
    return {"stop": search.stop.value, "error": search.error, **encode_record(search.record)}


def _decode_search(value: Any) -> SavedSearch:
    return SavedSearch(decode_record(value), StopReason(value["stop"]), value["error"])


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _header(kind: str, body: str) -> str:
    return json.dumps({"format": kind, "version": VERSION, "sha256": _sha256(body)})


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path, kind: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        given = f"cannot read {path}: {error.strerror}"
        raise CheckpointError(given, _ACCEPTED[kind], "check the path") from None
    except ValueError:
        raise _damaged(path, kind, "it is not text") from None


def _check(path: Path, kind: str, header: Any, body: str | None) -> None:
    if header["format"] != kind or header["version"] != VERSION:
        given = f"{path} has format {header['format']!r}, version {header['version']!r}"
        raise CheckpointError(given, _ACCEPTED[kind], "open it with the clew that wrote it, or make it again")
    if body is not None and header["sha256"] != _sha256(body):
        raise _damaged(path, kind, "it is not what was written")


def _decoded(path: Path, kind: str, decode: Callable[[], T]) -> T:
    try:
        return decode()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _damaged(path, kind, f"{type(error).__name__}: {error}") from error


def _damaged(path: Path, kind: str, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {why}", _ACCEPTED[kind], "restore it from a copy, or search again")
