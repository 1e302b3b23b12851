"""Labels of the steps of solutions, in one form whoever made them: roll-outs, a search tree, or people.

A file is JSON lines or Parquet, one solution a row, with the columns `problem` (an object; JSON text in Parquet),
`steps`, `labels` (null: this step has none), `weights`, `visits`, `tokens` and `ends` (null where only text is known),
`made`, `outcome`, `unscored` and `cost`. For other trainers `stepwise_rows` gives the columns of TRL's stepwise
supervision: `prompt`, `completions`, `labels`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

from clew.core.cost import Cost
from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import Message, Problem, Span
from clew.data.files import write_text_atomically
from clew.data.jsonl import Read, read_jsonl, read_values
from clew.data.parquet import read_parquet, write_parquet
from clew.data.rows import encode_problem

SUFFIXES = (".jsonl", ".parquet")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StepLabels:
    """One solution of a problem, S steps, and what each step is worth."""

    problem: Problem
    steps: tuple[str, ...]
    """[S] the text that each step adds."""
    labels: tuple[float | None, ...]
    """[S] from 0 to 1: the chance that the solution ends right after the step, or whether it is; None: unknown."""
    weights: tuple[float, ...] = ()
    """[S] how much each label counts in learning; 0 where there is none, or where it counts in another solution that
    begins with the same steps. Empty: 1 for each label there is."""
    visits: tuple[int, ...] = ()
    """[S] roll-outs, or visits of a search, behind each label; 0 for one that follows from others. Empty: none."""
    tokens: tuple[int, ...] | None = None
    """The exact ids of the response; None where only its text is known."""
    spans: tuple[Span, ...] | None = None
    """[S] the tokens of each step."""
    made: str = ""
    """How the labels were made, e.g. `monte-carlo soft k=8`."""
    outcome: str = ""
    """How the whole solution was judged: right, wrong, unscored; empty where it was not."""
    unscored: int = 0
    """Roll-outs that could not be judged: they are in no label."""
    cost: Cost = field(default_factory=Cost)
    """What the labels consumed; steps that several solutions share are paid for in the first."""

    def __post_init__(self) -> None:
        size = len(self.steps)
        if not self.weights:
            object.__setattr__(self, "weights", tuple(float(label is not None) for label in self.labels))
        if not self.visits:
            object.__setattr__(self, "visits", (0,) * size)
        for name in ("labels", "weights", "visits", "spans"):
            values = getattr(self, name)
            if values is not None and len(values) != size:
                raise InvalidValue(
                    f"number of {name}", len(values), f"one a step, of which there are {size}", "pair them"
                )
        for label, weight in zip(self.labels, self.weights, strict=True):
            if label is not None and not 0.0 <= label <= 1.0:
                raise InvalidValue("label of a step", label, "a number from 0 to 1, or none", "rescale the labels")
            if not 0.0 <= weight < math.inf or (label is None and weight):
                accepted = "a finite number of at least 0, and 0 where there is no label"
                raise InvalidValue("weight of a step", weight, accepted, "leave the weights out for 1 each")
        if (self.tokens is None) != (self.spans is None):
            raise InvalidValue("tokens without spans, or spans without tokens", None, "both or neither", "give both")

    @property
    def first_wrong(self) -> int | None:
        """The first step whose label is below one half; None if there is none."""
        return next((at for at, label in enumerate(self.labels) if label is not None and label < 0.5), None)


def stepwise_rows(labels: Iterable[StepLabels], *, threshold: float = 0.5) -> list[dict[str, Any]]:
    """Rows of TRL's stepwise supervision: `prompt`, `completions` [S] and `labels` [S], true above `threshold`.

    A solution ends before its first step without a label, because that format has no word for it.
    """
    rows = []
    for one in labels:
        known = next((at for at, label in enumerate(one.labels) if label is None), len(one.steps))
        if known:
            judged = [label is not None and label > threshold for label in one.labels[:known]]
            prompt = "\n".join(message.content for message in one.problem.prompt)
            rows.append({"prompt": prompt, "completions": list(one.steps[:known]), "labels": judged})
    return rows


def save_labels(path: Path, labels: Sequence[StepLabels]) -> None:
    """Write `labels` to a .jsonl or .parquet file, replacing it as a whole."""
    save_rows(path, [encode_labels(one) for one in labels])


def save_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON-able rows to a .jsonl or .parquet file; objects in a row become JSON text in Parquet."""
    match path.suffix:
        case ".jsonl":
            write_text_atomically(path, "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows))
        case ".parquet":
            flat = [{k: json.dumps(v) if isinstance(v, dict) else v for k, v in row.items()} for row in rows]
            write_parquet(path, flat)
        case suffix:
            raise UnknownName(f"kind of file, {path}, with the ending", suffix, SUFFIXES)


def load_labels(path: Path, *, skip_bad: bool = False) -> Read[StepLabels]:
    """The labels of a .jsonl or .parquet file. A bad row raises `InvalidValue`, or is skipped and counted."""
    match path.suffix:
        case ".jsonl":
            return read_jsonl(path, decode_labels, accepted=_ROW, skip_bad=skip_bad)
        case ".parquet":
            try:
                rows = read_parquet(path)
            except (OSError, ValueError) as error:
                raise InvalidValue("file of labels", str(path), f"a Parquet file ({error})", "check the path") from None
            return read_values(path, enumerate(rows, 1), decode_labels, accepted=_ROW, skip_bad=skip_bad)
        case suffix:
            raise UnknownName(f"kind of file, {path}, with the ending", suffix, SUFFIXES)


_ROW = "a row with problem, steps and labels, as clew.data.step_labels writes them"


def encode_labels(labels: StepLabels) -> dict[str, Any]:
    """One row in the types of JSON."""
    row = encode_problem(labels.problem)
    problem = {"id": row.id, "task": row.task, "prompt": json.loads(row.prompt), "metadata": json.loads(row.metadata)}
    return {
        "problem": problem,
        "steps": list(labels.steps),
        "labels": list(labels.labels),
        "weights": list(labels.weights),
        "visits": list(labels.visits),
        "tokens": None if labels.tokens is None else list(labels.tokens),
        "ends": None if labels.spans is None else [span.stop for span in labels.spans],
        "made": labels.made,
        "outcome": labels.outcome,
        "unscored": labels.unscored,
        "cost": asdict(labels.cost),
    }


def decode_labels(row: Any) -> StepLabels:
    """Raises `ValueError`, `KeyError` or `TypeError` for what `encode_labels` does not write."""
    problem = _object(row["problem"])
    ends = row.get("ends")
    starts = [0, *ends[:-1]] if ends else []
    steps = tuple(row["steps"])
    if not all(isinstance(step, str) for step in steps):
        raise TypeError("steps that are no text")
    return StepLabels(
        problem=Problem(
            problem["id"],
            problem["task"],
            tuple(Message(role, content) for role, content in problem["prompt"]),
            problem["metadata"],
        ),
        steps=steps,
        labels=tuple(None if label is None else float(label) for label in row["labels"]),
        weights=tuple(map(float, row.get("weights") or ())),
        visits=tuple(map(int, row.get("visits") or ())),
        tokens=None if row.get("tokens") is None else tuple(map(int, row["tokens"])),
        spans=None if ends is None else tuple(Span(*edges) for edges in zip(starts, ends, strict=True)),
        made=row.get("made", ""),
        outcome=row.get("outcome", ""),
        unscored=int(row.get("unscored", 0)),
        cost=Cost(**_object(row.get("cost", {}))),
    )


def _object(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
