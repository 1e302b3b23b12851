"""Problems and their verifiers, one file a task.

A new task is a file with a frozen dataclass that implements `clew.core.task.Task` and `gold`, and a line in `_MAKERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from clew.core.errors import InvalidValue, UnknownName
from clew.core.task import Task
from clew.core.types import Problem
from clew.tasks.arithmetic import Arithmetic
from clew.tasks.countdown import Countdown
from clew.tasks.dataset import FileTask, file_task
from clew.tasks.humaneval import HumanEval
from clew.tasks.maze import Maze
from clew.tasks.noisy import noisy_task
from clew.tasks.reasoning_gym import reasoning_gym_task
from clew.tasks.settings import with_settings


class AnyTask(Task, Protocol):
    """What the tasks of the package are: beyond the protocol of tasks, each knows a right answer."""

    def gold(self, problem: Problem) -> str:
        """One right answer; raises `InvalidValue` if there is none."""
        ...


_MAKERS: dict[str, Callable[[str], AnyTask]] = {
    "arithmetic": partial(with_settings, Arithmetic),
    "countdown": partial(with_settings, Countdown),
    "file": file_task,
    "humaneval": partial(with_settings, HumanEval),
    "maze": partial(with_settings, Maze),
    "noisy": noisy_task,
    "rg": reasoning_gym_task,
}
"""For each kind of task, what makes it from all that follows the first colon (empty where there is none)."""
TASK_NAMES = ("arithmetic", "countdown", "maze")
"""The tasks that a name alone makes."""


def make_task(spec: str) -> AnyTask:
    """The task of `name` or `name:settings`; what settings look like is the task's business.

    >>> make_task("countdown:count=5,high=20")
    Countdown(count=5, low=1, high=20, target_low=1, target_high=50, whole=True)
    """
    name, colon, settings = spec.partition(":")
    if name not in _MAKERS:
        raise UnknownName("task", name, _MAKERS)
    if colon and not settings.strip():
        raise InvalidValue("task", spec, f"{name}, or {name}: and settings", "leave the colon out, or write a setting")
    return _MAKERS[name](settings)


__all__ = ["TASK_NAMES", "AnyTask", "Arithmetic", "Countdown", "FileTask", "Maze", "make_task"]
