"""Problems and their verifiers, one file a task. Standard library only.

A new task is a file with a frozen dataclass that implements `clew.core.task.Task`, and a line in `_TASKS`.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from clew.core.errors import InvalidValue, UnknownName
from clew.tasks.arithmetic import Arithmetic
from clew.tasks.countdown import Countdown
from clew.tasks.maze import Maze

AnyTask = Arithmetic | Countdown | Maze
"""Every task of the package. Beyond the protocol each has `gold(problem)`, one right answer."""

_TASKS: dict[str, type[Arithmetic] | type[Countdown] | type[Maze]] = {
    "arithmetic": Arithmetic,
    "countdown": Countdown,
    "maze": Maze,
}
TASK_NAMES = tuple(_TASKS)

_NUMBERS: dict[type, re.Pattern[str]] = {
    int: re.compile(r"-?[0-9]{1,9}"),
    float: re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?"),
}


def make_task(spec: str) -> AnyTask:
    """The task of `name` or `name:key=value,key=value`.

    >>> make_task("countdown:count=5,high=20")
    Countdown(count=5, low=1, high=20, target_low=1, target_high=100)
    """
    name, colon, settings = spec.partition(":")
    if name not in _TASKS:
        raise UnknownName("task", name, TASK_NAMES)
    task = _TASKS[name]
    defaults = task()
    kinds = {field.name: type(getattr(defaults, field.name)) for field in fields(task)}
    chosen: dict[str, Any] = {}
    for setting in settings.split(",") if colon else ():
        key, equals, value = (part.strip() for part in setting.partition("="))
        if key not in kinds:
            raise UnknownName(f"setting of task {name}", key, kinds)
        if key in chosen:
            raise InvalidValue(f"{name} {key}", value, "each setting once", f"it is already {chosen[key]}; remove one")
        if not equals or not _NUMBERS[kinds[key]].fullmatch(value):
            what = "a whole number" if kinds[key] is int else "a number"
            raise InvalidValue(f"{name} {key}", value, what, f"write for example {name}:{key}={getattr(defaults, key)}")
        chosen[key] = kinds[key](value)
    return task(**chosen)


__all__ = ["TASK_NAMES", "AnyTask", "Arithmetic", "Countdown", "Maze", "make_task"]
