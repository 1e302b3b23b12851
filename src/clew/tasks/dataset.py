"""A file of problems as a task: `file:PATH,verifier=math`. The answers stay here; the problems do not hold them."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

from clew.core.errors import InvalidValue, UnknownName, UsageError
from clew.core.seeds import derive_seed
from clew.core.task import Split, split_of
from clew.core.types import Message, Outcome, Problem, Verdict
from clew.tasks.dataset_rows import BadRow, Columns, Row, read_records, read_row
from clew.tasks.verifiers import VERIFIERS, make_verifier

INSTRUCTIONS = {
    "choice": "Answer the question. You may think first. End with the word answer and then only the letter.",
    "exact": "Answer the question. You may think first. End with the word answer and then only the answer itself.",
    "function": (
        "Write the Python function. You may think first. End with all of it in one block fenced by ```python and ```."
    ),
    "math": r"Solve the problem. You may think first. Put the final answer, and nothing else, into \boxed{}.",
    "numbers": r"Solve the problem. You may think first. Put the final number, and nothing else, into \boxed{}.",
    "stdio": (
        "Write a Python program that reads standard input and prints the answer. You may think first. "
        "End with all of it in one block fenced by ```python and ```."
    ),
}
"""What a question that is a text is preceded by; messages are left as they are."""
_SETTING = re.compile(r"(?P<path>.*),\s*(?P<key>[a-z_]+)\s*=\s*(?P<value>[^,=]*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTask:
    """The problems of one file, in the splits that the hashes of their ids give them."""

    name: ClassVar[str] = "file"

    path: str
    """A file of JSON lines, or a Parquet file if its name ends in .parquet."""
    verifier: str = ""
    """What judges the answers of rows that name no verifier themselves."""
    question: str = ""
    """The column of the question; by default question, problem, prompt or messages."""
    answer: str = ""
    """The column of the answer; by default answer."""
    split: Literal["hash", "all"] = "hash"
    """Whether the hash of its id puts a problem into one split, or all problems are in every split."""
    skip_bad: bool = False
    """Leave out rows that are no problems, and say how many, instead of stopping at the first."""

    def __post_init__(self) -> None:
        if self.verifier and self.verifier not in VERIFIERS:
            raise UnknownName("verifier", self.verifier, VERIFIERS)
        if self.split not in ("hash", "all"):
            raise InvalidValue("file split", self.split, "hash or all", "use all for a file that is a test set")

    def problems(self, split: Split, n: int, seed: int) -> list[Problem]:
        """`n` different problems of `split`; those for a smaller `n` are the first of those for a larger."""
        rows = [row for row in _rows(self).values() if self.split == "all" or split_of(f"file:{row.id}") == split]
        if not 0 <= n <= len(rows):
            accepted = f"0 to {len(rows)}, the problems of {self.path} in split {split!r}"
            advice = "ask for fewer, add lines, or add split=all to the task, which puts every problem into every split"
            raise InvalidValue("number of problems", n, accepted, advice)
        random.Random(derive_seed(seed, self.name, split)).shuffle(rows)
        return [_problem(row) for row in rows[:n]]

    def count_problems(self, split: Split) -> int:
        """How many problems `split` has."""
        return sum(self.split == "all" or split_of(f"file:{identity}") == split for identity in _rows(self))

    def problem(self, metadata: dict[str, object]) -> Problem:
        """The problem of `{"id": ...}`, or `{"question": ...}`, which need not be in the file: then nobody knows its
        answer, and verdicts on it are unscored."""
        for key in metadata:
            if key not in ("id", "question"):
                raise UnknownName("file problem key", str(key), ("id", "question"))
        identity, question = metadata.get("id"), metadata.get("question")
        if isinstance(identity, str) and identity in _rows(self):
            return _problem(_rows(self)[identity])
        if isinstance(identity, str) or not isinstance(question, str) or not question.strip():
            given = {"id": identity} if isinstance(identity, str) else {"question": question}
            accepted = 'the {"id": ...} of a problem of the file, or a {"question": ...}'
            raise InvalidValue("file problem", given, accepted, "take an id from the file, or ask a question")
        known = next((row for row in _rows(self).values() if row.question == question.strip()), None)
        return _problem(known or read_row({"question": question, "answer": "1", "verifier": "exact"}, Columns()))

    def verify(self, problem: Problem, text: str) -> Verdict:
        """What the verifier of the problem's row says; unscored for a question that is not in the file."""
        row = self._row(problem)
        if row is None:
            return Verdict(Outcome.UNSCORED, None, self.extract(text), "the file has no answer to this question")
        return make_verifier(row.verifier).judge(text, row.answer, row.question)

    def extract(self, text: str) -> str | None:
        """The canonical answer, as the verifier of the file reads it (`exact`, where only rows name verifiers)."""
        return make_verifier(self.verifier or "exact").extract(text)

    def gold(self, problem: Problem) -> str:
        """The reference answer; raises `InvalidValue` if the file has none."""
        row = self._row(problem)
        if row is None:
            raise InvalidValue("problem", problem.id, f"a problem of {self.path}", "take its id or question from there")
        return row.answer

    def difficulty(self, problem: Problem) -> str:
        """What the row's column `difficulty` says; `all` without one."""
        row = self._row(problem)
        return (row.difficulty if row else "") or "all"

    def _row(self, problem: Problem) -> Row | None:
        return _rows(self).get(problem.id.removeprefix("file:"))


def file_task(settings: str) -> FileTask:
    """The task of `PATH,key=value,...`. What looks like a setting at the end is one; all before it is the path.

    >>> file_task("a,b:c.jsonl,verifier=math,skip_bad=true").path
    'a,b:c.jsonl'
    """
    known = {f.name for f in fields(FileTask) if f.init and f.name != "path"}
    chosen: dict[str, str] = {}
    while match := _SETTING.fullmatch(settings):
        key, value = match["key"], match["value"].strip()
        if key not in known:
            if not Path(settings).exists():
                raise UnknownName("setting of task file", key, known)
            break
        if key in chosen:
            raise InvalidValue(f"file {key}", value, "each setting once", f"it is already {chosen[key]}; remove one")
        chosen[key], settings = value, match["path"]
    skip = chosen.pop("skip_bad", "false")
    if skip not in ("true", "false"):
        raise InvalidValue(
            "file skip_bad", skip, "true or false", "write for example file:problems.jsonl,skip_bad=true"
        )
    return FileTask(path=settings.strip(), skip_bad=skip == "true", **chosen)  # type: ignore[arg-type]


def _problem(row: Row) -> Problem:
    alone = len(row.prompt) == 1
    system = (Message("system", INSTRUCTIONS[row.verifier]),) if alone else ()
    return Problem(f"file:{row.id}", FileTask.name, (*system, *row.prompt), {"id": row.id, "question": row.question})


@lru_cache(maxsize=16)
def _rows(task: FileTask) -> dict[str, Row]:
    """The rows of the file by id. Raises `UsageError` for a bad row, unless they are to be skipped."""
    columns = Columns(task.question, task.answer, task.verifier)
    rows: dict[str, Row] = {}
    lines: dict[str, int] = {}
    skipped = 0
    for number, record in read_records(Path(task.path)):
        try:
            row = read_row(record, columns)
            if row.id in rows:
                raise BadRow(f"the problem of line {lines[row.id]} again (id {row.id[:40]})")
        except BadRow as error:
            if not task.skip_bad:
                accepted = "an object with a question and an answer, and a verifier in it or named for the file"
                advice = "mend the line, or add skip_bad=true to leave such lines out"
                raise UsageError(f"{task.path}, line {number}: {error}", accepted, advice) from None
            skipped += 1
            continue
        rows[row.id], lines[row.id] = row, number
    if skipped:
        print(f"{task.path}: {skipped} bad rows were left out, {len(rows)} are used", file=sys.stderr)
    if not rows:
        raise InvalidValue("file of problems", task.path, "at least one problem", "write one JSON object a line")
    return rows
