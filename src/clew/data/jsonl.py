"""JSON lines written by others: every bad row is named by file and line, and may be skipped with a count."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from clew.core.errors import InvalidValue

T = TypeVar("T")


class BadRow(NamedTuple):
    """A row that was skipped."""

    line: int
    """From 1."""
    reason: str


class Read(NamedTuple, Generic[T]):
    """What a file holds, and what of it could not be read."""

    rows: list[T]
    bad: list[BadRow]


def read_jsonl(path: Path, decode: Callable[[Any], T], *, accepted: str, skip_bad: bool = False) -> Read[T]:
    """`decode` of every line of `path` that is not empty.

    A line that is no JSON, or that `decode` raises `ValueError`, `KeyError`, `TypeError`, `IndexError` or
    `AttributeError` for, raises `InvalidValue` with file and line, or is skipped and counted with `skip_bad`.
    """
    return read_values(path, _lines(path), lambda line: decode(json.loads(line)), accepted=accepted, skip_bad=skip_bad)


def read_values(
    path: Path, values: Iterable[tuple[int, Any]], decode: Callable[[Any], T], *, accepted: str, skip_bad: bool = False
) -> Read[T]:
    """`read_jsonl` of values that were read already, each with the number of its row in `path`."""
    rows: list[T] = []
    bad: list[BadRow] = []
    for line, value in values:
        try:
            rows.append(decode(value))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
            if not skip_bad:
                advice = "mend or remove the row, or skip bad rows"
                raise InvalidValue(f"row {path}:{line}", reason, accepted, advice) from None
            bad.append(BadRow(line, reason))
    return Read(rows, bad)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        # Bytes that are no UTF-8 make their own line bad and no other.
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except OSError as error:
        accepted = f"a file that can be read ({error.strerror})"
        raise InvalidValue("file of rows", str(path), accepted, "check the path") from None
