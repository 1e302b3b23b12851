"""From what a person types to a problem worth asking: understood, solvable, and known to be strange or not."""

from __future__ import annotations

import difflib
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

from clew.core.errors import InvalidValue, UsageError
from clew.core.types import Problem
from clew.tasks import AnyTask, Arithmetic, Countdown, FileTask, make_task
from clew.tasks.countdown import MAX_COUNT
from clew.tasks.countdown_solver import reachable_integers, solvable

EXAMPLES = {"countdown": "24 from 3 5 7 9", "arithmetic": "3 + 5 * 7 - 2", "maze": '{"rows": ["S.#", "..G"]}'}
_WORDS = ("make", "from", "and")
_NUMBER = re.compile(r"-?[0-9]{1,40}")
_MAX_CHECKED = 6
"""Solvability is checked up to so many numbers; beyond, the proof that there is no solution takes seconds."""
_MAX_TABLED = 5
"""Up to so many numbers all reachable targets are listed, beyond only those close by are looked at."""
_NEARBY = 12


def pose(task: AnyTask, text: str) -> Problem:
    """The problem that `text` states: its facts as a JSON object, or in the words of its task.

    >>> pose(Countdown(), "make 24 from 3 5 7 9").id
    'countdown:3-5-7-9=24'
    """
    if text.lstrip().startswith("{"):
        return task.problem(_facts(text))
    match task:
        case Countdown():
            facts = _countdown_facts(text)
        case Arithmetic():
            facts = {"expression": text.strip().removeprefix("compute").strip()}
        case FileTask():
            facts = {"question": text}
        case _:
            given, accepted = f"the problem is {_clip(text)!r}", f"the facts of a {task.name} problem as JSON"
            raise UsageError(given, accepted, _advice(task.name))
    try:
        return task.problem(facts)
    except InvalidValue as error:
        # What the task advises is JSON; whoever typed words should read words.
        raise UsageError(error.given, error.accepted, _advice(task.name)) from None


def require_solvable(task: AnyTask, problem: Problem) -> None:
    """Raise `UsageError` if the task's solver proves that `problem` has no answer, naming close ones that have."""
    if isinstance(task, FileTask):
        return  # a question that is not in the file may be asked, and its answer is unscored
    if not isinstance(task, Countdown):
        task.gold(problem)
        return
    numbers, target = problem.metadata["numbers"], problem.metadata["target"]
    if len(numbers) > _MAX_CHECKED or solvable(numbers, target):
        return
    near = sorted(nearest_targets(numbers, target))
    advice = f"ask for {_listed(near)}, the nearest they make" if near else "choose another target or other numbers"
    given = f"{target} cannot be made from {' '.join(map(str, numbers))}: the solver looked at every way"
    raise UsageError(given, "a target that all the numbers make, each used once", advice)


def nearest_targets(numbers: list[int], target: int, most: int = 3) -> list[int]:
    """Up to `most` targets of at least 1 that `numbers` make, nearest to `target` first.

    >>> nearest_targets([1, 1, 1, 1], 10)
    [4, 3, 2]
    """
    if len(numbers) <= _MAX_TABLED:
        found = (t for t in reachable_integers(numbers) if t >= 1)
        return sorted(found, key=lambda t: (abs(t - target), t))[:most]
    near = (t for distance in range(1, _NEARBY) for t in (target - distance, target + distance) if t >= 1)
    return list(islice((t for t in near if solvable(numbers, t)), most))


def strangeness(problem: Problem, task: AnyTask, trained: AnyTask | None) -> str:
    """How `problem` differs from those of `trained` (None: not known, those of `task`); empty if it does not."""
    world = task if trained is None else trained
    if not isinstance(world, Countdown) or problem.task != world.name:
        return ""
    numbers, target = problem.metadata["numbers"], problem.metadata["target"]
    if (
        len(numbers) == world.count
        and world.low <= min(numbers)
        and max(numbers) <= world.high
        and world.target_low <= target <= world.target_high
    ):
        return ""
    usual = f"{world.count} numbers from {world.low} to {world.high}, targets {world.target_low} to {world.target_high}"
    who = "this model was" if trained is not None else "small models are usually"
    return f"{who} trained on {usual}; outside of that, expect guesses"


def trained_task(checkpoint: Path) -> AnyTask | None:
    """The task that the run of `checkpoint` names in its configuration; None if there is none to be found."""
    from clew.data.checkpoint_files import CHECKPOINTS

    run = checkpoint if (checkpoint / CHECKPOINTS).is_dir() else checkpoint.absolute().parent.parent
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        return make_task(config["task"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # No run, or one of another version: what it was trained on is only worth a note.
        return None


def _countdown_facts(text: str) -> dict[str, Any]:
    """`make 24 from 3, 5, 7 and 9`, of which `make`, commas and `and` may be left out."""
    words = text.replace(",", " ").replace(":", " from ").split()
    for word in words:
        if word.lower() not in _WORDS and not _NUMBER.fullmatch(word):
            close = difflib.get_close_matches(word.lower(), _WORDS, n=1)
            advice = f"did you mean {close[0]!r}? " if close else ""
            accepted = f"a target, the word from, and 2 to {MAX_COUNT} whole numbers"
            raise UsageError(f"unknown word {_clip(word)!r} in the problem", accepted, advice + _advice("countdown"))
    shape = re.fullmatch(r"(?:make )?(\S+) from ((?:\S+ ?)+)", " ".join(w.lower() for w in words if w.lower() != "and"))
    numbers = shape[2].split() if shape else []
    if shape is None or not all(map(_NUMBER.fullmatch, (shape[1], *numbers))):
        accepted = f"a target, the word from, and 2 to {MAX_COUNT} whole numbers"
        raise UsageError(f"the problem is {_clip(text)!r}", accepted, _advice("countdown"))
    return {"numbers": [int(n) for n in numbers], "target": int(shape[1])}


def _facts(text: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        accepted = """a JSON object such as '{"numbers": [3, 5, 7, 11], "target": 24}'"""
        advice = "quote it so that the shell keeps it whole"
        raise UsageError(f"the problem is not JSON: {error}", accepted, advice) from None
    assert isinstance(facts, dict)
    return facts


def _advice(task: str) -> str:
    return f"write for example: {EXAMPLES.get(task, 'the facts of a problem as a JSON object')}"


def _listed(targets: list[int]) -> str:
    *most, last = map(str, targets)
    return f"{', '.join(most)} or {last}" if most else last


def _clip(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
