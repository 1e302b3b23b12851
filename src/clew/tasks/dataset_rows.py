"""Rows of problems from a JSONL or a Parquet file, each checked, with the line that is to blame."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from clew.core.errors import InvalidValue, MissingExtra
from clew.core.types import Message
from clew.tasks.verifiers import VERIFIERS

QUESTION_COLUMNS = ("question", "problem", "prompt", "messages")
_ROLES = ("system", "user", "assistant")


class BadRow(ValueError):
    """A row that is not a problem; the message says why."""


class Columns(NamedTuple):
    """The names that were asked for; empty for the usual ones."""

    question: str = ""
    answer: str = ""
    verifier: str = ""
    """The verifier of rows that name none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One problem and what is known of it beyond the question."""

    id: str
    prompt: tuple[Message, ...]
    answer: str
    verifier: str
    difficulty: str

    @property
    def question(self) -> str:
        return "\n".join(message.content for message in self.prompt if message.role == "user")


def read_records(path: Path) -> Iterator[tuple[int, object]]:
    """Line or row number, from 1, and what stands there: a value, or the `BadRow` that says why there is none."""
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _json(line)
    except OSError as error:
        advice = "check the path; a file of problems is JSON lines, or Parquet if its name ends in .parquet"
        raise InvalidValue(
            "file of problems", str(path), f"a file that can be read ({error.strerror})", advice
        ) from None


def _json(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return BadRow(f"not JSON: {str(error)[:120]}")


def _parquet(path: Path) -> Iterator[tuple[int, object]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        given, advice = "pyarrow is not installed", "python -m pip install 'clew[parquet]'"
        raise MissingExtra(given, "Parquet files with it, JSON lines without", advice) from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (OSError, pyarrow.ArrowException) as error:
        accepted = f"a Parquet file that can be read ({str(error).splitlines()[0][:120]})"
        raise InvalidValue("file of problems", str(path), accepted, "check the path, or write it again") from None


def read_row(record: object, columns: Columns) -> Row:
    """The problem of one record; raises `BadRow`."""
    if isinstance(record, BadRow):
        raise record
    if not isinstance(record, Mapping):
        raise BadRow(f"{type(record).__name__} instead of an object with named values")
    prompt = _prompt(_question(record, columns.question))
    answer = _scalar(record, columns.answer or "answer", needed=True)
    verifier = _scalar(record, "verifier") or columns.verifier
    if verifier not in VERIFIERS:
        given = f"unknown verifier {verifier!r}" if verifier else "no verifier is named, in the row or for the file"
        raise BadRow(f"{given}; there are {', '.join(VERIFIERS)}")
    if fault := VERIFIERS[verifier].gold_fault(answer):
        raise BadRow(f"the answer {answer[:40]!r} is {fault}: verifier {verifier} cannot judge against it")
    identity = _scalar(record, "id") or hashlib.blake2b(json.dumps(prompt).encode(), digest_size=8).hexdigest()
    _check_texts([identity, answer, *(message.content for message in prompt)])
    return Row(identity, prompt, answer, verifier, _scalar(record, "difficulty"))


def _check_texts(texts: Sequence[str]) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRow(f"a text holds {text[error.start]!a}, half of a character") from None


def _question(record: Mapping[str, Any], column: str) -> object:
    names = (column,) if column else QUESTION_COLUMNS
    found = next((name for name in names if record.get(name) is not None), None)
    if found is None:
        raise BadRow(f"no column {' or '.join(names)}; it has {', '.join(map(str, record))[:120] or 'none'}")
    return record[found]


def _prompt(question: object) -> tuple[Message, ...]:
    if isinstance(question, str):
        question = [{"role": "user", "content": question}]
    if not isinstance(question, list) or not question:
        raise BadRow("the question is neither a text nor a list of messages")
    for message in question:
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise BadRow("a message of the question is not an object with a role and a content")
        if message.get("role") not in _ROLES:
            raise BadRow(f"the role {str(message.get('role'))[:20]!r} of a message is not one of {', '.join(_ROLES)}")
    prompt = tuple(Message(cast(Any, message["role"]), message["content"]) for message in question)
    if prompt[-1].role != "user" or not prompt[-1].content.strip():
        raise BadRow("the question is empty" if prompt[-1].role == "user" else "the last message is not the user's")
    return prompt


def _scalar(record: Mapping[str, Any], name: str, needed: bool = False) -> str:
    value = record.get(name)
    if value is None and not needed:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        there = "is missing" if value is None else f"is {type(value).__name__}, not a text or a number"
        raise BadRow(f"column {name} {there}")
    return str(value)
