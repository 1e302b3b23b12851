"""Tasks made from the `key=value,key=value` of the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

from clew.core.errors import InvalidValue, UnknownName

T = TypeVar("T")


class _Kind(NamedTuple):
    called: str
    pattern: re.Pattern[str]
    read: Callable[[str], object]


_KINDS: dict[type, _Kind] = {
    int: _Kind("a whole number", re.compile(r"-?[0-9]{1,9}"), int),
    float: _Kind("a number", re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?"), float),
    bool: _Kind("true or false", re.compile("true|false"), "true".__eq__),
}


def with_settings(task: Callable[..., T], settings: str) -> T:
    """The task, a dataclass of numbers and switches, with those of `key=value,key=value`; others have their defaults.

    >>> from clew.tasks.maze import Maze
    >>> with_settings(Maze, "width=7")
    Maze(width=7, height=5, walls=0.3)
    """
    defaults: Any = task()
    values = {field.name: getattr(defaults, field.name) for field in fields(defaults)}
    chosen: dict[str, object] = {}
    for setting in settings.split(",") if settings else ():
        key, equals, value = (part.strip() for part in setting.partition("="))
        if key not in values:
            raise UnknownName(f"setting of task {defaults.name}", key, values)
        if key in chosen:
            advice = f"it is already {chosen[key]}; remove one"
            raise InvalidValue(f"{defaults.name} {key}", value, "each setting once", advice)
        kind = _KINDS[type(values[key])]
        if not equals or not kind.pattern.fullmatch(value):
            advice = f"write for example {defaults.name}:{key}={str(values[key]).lower()}"
            raise InvalidValue(f"{defaults.name} {key}", value, kind.called, advice)
        chosen[key] = kind.read(value)
    return task(**chosen)
