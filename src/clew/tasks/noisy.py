"""Any task with a verifier that errs at set rates, to see what learning and search make of a flawed reward."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol, final

from clew.core.errors import InvalidValue, UnknownName
from clew.core.seeds import derive_seed
from clew.core.task import Split, Task
from clew.core.types import Outcome, Problem, Verdict

_RATE = re.compile(r"[01]|[01]?\.[0-9]{1,9}|1\.0{1,9}")
_SEED = re.compile(r"[0-9]{1,9}")
_EXAMPLE = "write for example noisy:fp=0.1,fn=0.05:countdown"
_SETTINGS = ("fp", "fn", "seed")
_RANGE = 1 << 63


class Judged(Task, Protocol):
    """A task that knows a right answer."""

    def gold(self, problem: Problem) -> str: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Noisy:
    """The problems of `task`, of which some answers are misjudged: the same ones at every call, whoever gives them."""

    task: Judged
    """The task whose verifier knows the truth."""
    false_positive: float = 0.0
    """The share of wrong answers that are called right."""
    false_negative: float = 0.0
    """The share of right answers that are called wrong."""
    seed: int = 0
    """Which answers are misjudged derives from it, the problem's id and the answer."""

    def __post_init__(self) -> None:
        for name in ("false_positive", "false_negative"):
            rate = getattr(self, name)
            if not 0.0 <= rate <= 1.0:
                raise InvalidValue(
                    name, rate, "a share from 0 to 1", "write for example noisy:fp=0.1,fn=0.05:countdown"
                )

    @property
    def name(self) -> str:
        """That of the task: its problems are that task's."""
        return self.task.name

    def problems(self, split: Split, n: int, seed: int) -> list[Problem]:
        return self.task.problems(split, n, seed)

    def count_problems(self, split: Split) -> int | None:
        """How many problems the task has, if it can tell."""
        count: int | None = getattr(self.task, "count_problems", lambda split: None)(split)
        return count

    def problem(self, metadata: dict[str, object]) -> Problem:
        return self.task.problem(metadata)

    def verify(self, problem: Problem, text: str) -> Verdict:
        """The verdict of the task, turned round for the answers that the noise falls on; unscored stays unscored."""
        verdict = self.task.verify(problem, text)
        if verdict.outcome is Outcome.UNSCORED:
            return verdict
        # As ASCII, because an answer may hold what no encoding has.
        answer = ascii(text if verdict.answer is None else verdict.answer)
        draw = derive_seed(self.seed, "noise", problem.id, answer) / _RANGE
        if draw >= (self.false_negative if verdict.right else self.false_positive):
            return verdict
        reason = f"noise; in truth {verdict.outcome}: {verdict.reason}"
        if verdict.right:
            return Verdict(Outcome.WRONG, 0.0, verdict.answer, reason)
        return Verdict(Outcome.RIGHT, 1.0, verdict.answer, reason)

    def extract(self, text: str) -> str | None:
        return self.task.extract(text)

    def gold(self, problem: Problem) -> str:
        """A right answer in truth, which the noise may fall on."""
        return self.task.gold(problem)

    def difficulty(self, problem: Problem) -> str:
        return self.task.difficulty(problem)


def noisy_task(spec: str) -> Noisy:
    """The task of `fp=0.1,fn=0.05,seed=3:TASK`, where TASK is any task with its own settings."""
    from clew.tasks import make_task

    settings, colon, task = spec.partition(":")
    if not colon or not task.strip():
        raise InvalidValue("task", f"noisy:{spec}", "noisy:RATES:TASK", _EXAMPLE)
    chosen: dict[str, str] = {}
    for setting in settings.split(","):
        key, _, value = (part.strip() for part in setting.partition("="))
        if key not in _SETTINGS:
            raise UnknownName("setting of task noisy", key, _SETTINGS)
        if key in chosen:
            raise InvalidValue(f"noisy {key}", value, "each setting once", "remove one of them")
        if not (_SEED if key == "seed" else _RATE).fullmatch(value):
            what = "a whole number" if key == "seed" else "a share from 0 to 1"
            raise InvalidValue(f"noisy {key}", value, what, _EXAMPLE)
        chosen[key] = value
    rates = {"false_positive": float(chosen.get("fp", 0)), "false_negative": float(chosen.get("fn", 0))}
    return Noisy(task=make_task(task), seed=int(chosen.get("seed", 0)), **rates)
