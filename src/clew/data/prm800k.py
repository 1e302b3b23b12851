"""Labels that people gave, in the format of PRM800K (arXiv 2305.20050): a rating of -1, 0 or 1 for each step.

A line is one labelled solution. Each of its `label.steps` has `completions`, alternatives for the same step with their
`rating`, and which of them the solution went on with (`chosen_completion`, or a `human_completion`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from clew.core.types import Message, Problem
from clew.data.jsonl import Read, read_jsonl
from clew.data.step_labels import StepLabels

MADE = "human"
_ROW = "a labelled solution as PRM800K has it: question.problem, and label.steps with completions of text and rating"


class Rated(NamedTuple):
    """One completion of a step."""

    text: str
    label: float | None


def read_prm800k(path: Path, *, neutral: float | None = 1.0, skip_bad: bool = False) -> Read[StepLabels]:
    """Every solution in `path`, the alternatives to its steps as solutions of their own that end there.

    A rating of 1 is label 1, -1 is 0, and 0 is `neutral` (None: no label). A step counts once, in the first solution
    that has it. A bad row raises `InvalidValue` with file and line, or is skipped and counted.
    """
    read = read_jsonl(path, lambda row: solutions_of(row, neutral=neutral), accepted=_ROW, skip_bad=skip_bad)
    return Read([one for solutions in read.rows for one in solutions], read.bad)


def solutions_of(row: Any, *, neutral: float | None = 1.0) -> list[StepLabels]:
    """The solutions of one row. Raises `ValueError`, `KeyError` or `TypeError` for what is no such row."""
    question = row["question"]["problem"]
    if not isinstance(question, str):
        raise TypeError("a problem that is no text")
    name = hashlib.blake2b(question.encode("utf-8", "replace"), digest_size=8).hexdigest()
    problem = Problem(f"prm800k:{name}", "prm800k", (Message("user", question),))
    outcome = {"solution": "right", "found_error": "wrong"}.get(str(row["label"].get("finish_reason")), "")
    line: list[Rated] = []
    others: list[StepLabels] = []
    for step in row["label"]["steps"]:
        chosen, alternatives = _choices(step, neutral)
        others += [_solution(problem, [*line, rated], new=1) for rated in alternatives]
        if chosen is None:
            break
        line.append(chosen)
    return [*([_solution(problem, line, new=len(line), outcome=outcome)] if line else []), *others]


def _choices(step: Any, neutral: float | None) -> tuple[Rated | None, list[Rated]]:
    """What the solution went on with (where nothing, the first that was rated), and the other completions."""
    rated = list(_completions(step.get("completions") or [], neutral))
    index, human = step.get("chosen_completion"), step.get("human_completion")
    if index is None and human is not None:
        # What people wrote themselves went in as right.
        text = human["text"] if isinstance(human, dict) else human
        return Rated(_text(text), 1.0), rated
    if index is None:
        index = 0
    elif not isinstance(index, int) or not 0 <= index < len(rated):
        raise ValueError(f"chosen_completion {index!r} of {len(rated)}")
    return (rated[index], rated[:index] + rated[index + 1 :]) if rated else (None, [])


def _completions(completions: Any, neutral: float | None) -> Iterator[Rated]:
    for completion in completions:
        rating = completion["rating"]
        if rating not in (-1, 0, 1, None) or isinstance(rating, bool):
            raise ValueError(f"rating {rating!r}, not -1, 0 or 1")
        yield Rated(_text(completion["text"]), {1: 1.0, -1: 0.0, 0: neutral, None: None}[rating])


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError("a step that is no text")
    return text


def _solution(problem: Problem, line: list[Rated], *, new: int, outcome: str = "") -> StepLabels:
    """Only the last `new` steps count: the others do in another solution."""
    old = len(line) - new
    return StepLabels(
        problem=problem,
        steps=tuple(rated.text for rated in line),
        labels=tuple(rated.label for rated in line),
        weights=tuple(float(at >= old and rated.label is not None) for at, rated in enumerate(line)),
        made=MADE,
        outcome=outcome,
    )
