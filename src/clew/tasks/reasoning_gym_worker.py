"""What runs in the process that makes and scores the problems of reasoning-gym: the only file that imports it.

Its scorers are code of others that meets untrusted text, so they run where `clew.tasks.killable` can end them. Problems
are made there too: some of its generators follow the order of sets, and that process hashes text in one fixed way.
"""

from __future__ import annotations

import copy
import json
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

SIZE = 4096
"""Problems under one seed. A constant, because some generators depend on it."""
MAKING_CPU_SECONDS = 4.0
"""Problems that take longer to make are left out: a few generators search, now and then for minutes."""
_NOT_SETTINGS = ("seed", "size")
_HELD = {
    "graph_color": "possible_answer",
    "propositional_logic": "example_answer",
    "rubiks_cube": "example_correct_answer",
}
"""Where datasets whose problems have many answers keep one, if they do."""
_CANNOT_BE_MADE = (ValueError, TypeError, KeyError, IndexError, RuntimeError, AssertionError, ArithmeticError)


def serve(verb: str, *arguments: Any) -> Any:
    """The result of one of the functions below, by its name."""
    functions: dict[str, Callable[..., Any]] = {
        "names": names,
        "defaults": defaults,
        "fault": fault,
        "draw": draw,
        "made": made,
        "score": score,
    }
    return functions[verb](*arguments)


def names() -> list[str]:
    """The names of all tasks."""
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS)


def defaults(dataset: str) -> dict[str, str]:
    """Each parameter of a task with the text of its default."""
    from reasoning_gym.factory import DATASETS

    config = DATASETS[dataset][1]
    made = config()
    return {f.name: _shown(getattr(made, f.name)) for f in fields(config) if f.name not in _NOT_SETTINGS}


def _shown(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    try:
        return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    except TypeError:
        return str(plain)


def fault(dataset: str, settings: str) -> str:
    """Why no problems can be made with these settings, in the words of the package; empty if they can."""
    try:
        _entry(dataset, settings, 0, 0)
    except _CANNOT_BE_MADE as error:
        return str(error) or type(error).__name__
    return ""


def draw(dataset: str, settings: str, seed: int, first: int, most: int, seconds: float) -> list[dict[str, Any] | None]:
    """Problems `first`, `first` + 1, ... of a seed: `most`, or fewer after `seconds`.

    None stands for one whose generator gave up or took too long.
    """
    deadline = time.monotonic() + seconds
    found: list[dict[str, Any] | None] = []
    for index in range(first, min(SIZE, first + most)):
        try:
            with _limited(MAKING_CPU_SECONDS):
                found.append(made(dataset, settings, seed, index))
        except (*_CANNOT_BE_MADE, TooSlow):
            found.append(None)
        if time.monotonic() > deadline:
            break
    return found


class TooSlow(BaseException):
    """Making a problem took too long. No Exception, because generators catch those and try again."""


@contextmanager
def _limited(cpu_seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def made(dataset: str, settings: str, seed: int, index: int) -> dict[str, Any]:
    """Question, one right answer (None: the task keeps none) and the task that it is of, for one problem."""
    entry = _entry(dataset, settings, seed, index)
    source = entry["metadata"].get("source_dataset", dataset) if dataset == "composite" else dataset
    return {"question": entry["question"], "gold": _gold(entry, source), "source": source}


def _gold(entry: dict[str, Any], source: str) -> str | None:
    answer = entry["answer"]
    if answer is None and source in _HELD:
        answer = entry["metadata"][_HELD[source]]
    if answer is None or isinstance(answer, str):
        return answer
    return json.dumps(answer) if isinstance(answer, dict) else str(answer)


def score(dataset: str, settings: str, seed: int, index: int, answer: str) -> float:
    """What the task's own scorer says."""
    # A copy, because one of the scorers writes into what it is given.
    entry = copy.deepcopy(_entry(dataset, settings, seed, index))
    return float(_dataset(dataset, settings, seed).score_answer(answer, entry))


@lru_cache(maxsize=1024)
def _entry(dataset: str, settings: str, seed: int, index: int) -> dict[str, Any]:
    import numpy as np

    source = _dataset(dataset, settings, seed)
    # A few generators draw from the global streams.
    random.seed(seed + index)
    np.random.seed((seed + index) % (1 << 32))
    entry: dict[str, Any] = source[index]
    return entry


@lru_cache(maxsize=16)
def _dataset(dataset: str, settings: str, seed: int) -> Any:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    config = DATASETS[dataset][1]
    hints, made = get_type_hints(config), config()
    given = json.loads(settings)
    chosen = {name: converted(value, hints[name], getattr(made, name)) for name, value in given.items()}
    return reasoning_gym.create_dataset(dataset, seed=seed, size=SIZE, **chosen)


def converted(value: Any, hint: Any, default: Any = None) -> Any:
    """A JSON value as the type that `hint` asks for; ValueError if it cannot be. The default tells ints from floats."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return None if value is None else converted(value, next(t for t in inner if t is not type(None)), default)
    if origin is Literal:
        return _checked(value, value in inner, f"one of {inner}")
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        _checked(value, isinstance(value, list), "a list in JSON")
        items = [converted(item, inner[0]) if inner else item for item in value]
        return tuple(items) if origin is tuple or hint is tuple or isinstance(default, tuple) else items
    if isinstance(hint, type):
        return _of_type(value, hint, default)
    return value


def _of_type(value: Any, hint: type, default: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float or isinstance(default, float):
        return _checked(value, number, "a number")
    if hint is int:
        return _checked(value, number and isinstance(value, int), "a whole number")
    if hint in (bool, str):
        return _checked(value, isinstance(value, hint), {bool: "true or false", str: "a text"}[hint])
    if issubclass(hint, Enum):
        return hint(value)
    if is_dataclass(hint):
        _checked(value, isinstance(value, dict), "an object in JSON")
        return hint(**value)
    if issubclass(hint, date) or hasattr(hint, "fromisoformat"):
        _checked(value, isinstance(value, str), "a text such as 2026-01-31 or 23:59")
        return hint.fromisoformat(value)
    return value


def _checked(value: Any, good: bool, accepted: str) -> Any:
    if not good:
        raise ValueError(f"{value!r} is not {accepted}")
    return value
