"""The tasks of reasoning-gym, by name: its problems and its scorers, with stricter rules where those are loose.

Rule: an answer is right if the scorer gives it full marks (1) and it passes what `reasoning_gym_exceptions` asks of
that task beside. Less than full marks is wrong, and the score stays as the verdict's value: many scorers give a little
for anything, so a positive value is not a right answer. No answer at all is never right. A scorer that crashes, hangs
or says no number leaves the answer unscored.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, final

from clew.core.errors import InvalidValue, MissingExtra, UnknownName
from clew.core.seeds import derive_seed
from clew.core.task import Split, split_of
from clew.core.types import Message, Outcome, Problem, Verdict
from clew.tasks import reasoning_gym_worker as worker
from clew.tasks.drawing import too_few
from clew.tasks.killable import CallFailed, Killable
from clew.tasks.reasoning_gym_checks import Given
from clew.tasks.reasoning_gym_exceptions import NO_GOLD, posed, stricter
from clew.tasks.tagged_answer import tagged_answer, tidy

PREFIX = "rg"
INSTRUCTIONS = (
    "You may think first. End with your final answer between <answer> and </answer>: exactly what is asked for, and "
    "nothing else."
)
SECONDS = 60.0
CPU_SECONDS = 15.0
"""The longest that a scorer, or the making of one problem, may take and compute."""
MEMORY_MIB = 2048
_BATCH_SECONDS = 1.0
_SHARE: dict[Split, float] = {"train": 0.8, "validation": 0.05, "test": 0.15}
_PATIENCE = 3000
"""Draws in a row without a new problem before the settings count as exhausted."""
_SEEDS = 1 << 31
_FACTS = ("settings", "seed", "number")


class Place(NamedTuple):
    """Where a problem is found: the seed it was made with, and its number under that seed."""

    settings: str
    seed: int
    number: int


class Made(NamedTuple):
    """A problem as the package made it. `source` is the task it is of: another than the one named for `composite`."""

    question: str
    gold: str | None
    source: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningGym:
    """One task of reasoning-gym. The settings choose which problems are made, not which can be judged."""

    dataset: str
    """Its name in the package."""
    settings: str = "{}"
    """Its parameters, as the canonical text of a JSON object."""

    def __post_init__(self) -> None:
        known = task_names()
        if self.dataset not in known:
            raise UnknownName("task of reasoning-gym", self.dataset, known)
        defaults = _call("defaults", self.dataset)
        for key in json.loads(self.settings):
            if key not in defaults:
                raise UnknownName(f"parameter of {self.name}", key, defaults)
        if fault := _call("fault", self.dataset, self.settings):
            shown = ", ".join(f"{key}={value}" for key, value in defaults.items())
            advice = 'change a parameter; lists are written in JSON, for example operators=["+","-"]'
            raise InvalidValue(f"{self.name} parameters", self.settings, f"{fault} (defaults: {shown[:400]})", advice)

    @property
    def name(self) -> str:
        return f"{PREFIX}:{self.dataset}"

    def problems(self, split: Split, n: int, seed: int) -> list[Problem]:
        """`n` different problems of `split`; those for a smaller `n` are the first of those for a larger."""
        found: dict[str, Problem] = {}
        in_vain = 0
        for problem in self._drawn(split, n, seed):
            in_vain += 1
            if len(found) == max(0, n) or in_vain > _PATIENCE:
                break
            if problem is not None and problem.id not in found and split_of(problem.id) == split:
                found[problem.id] = problem
                in_vain = 0
        if len(found) < n or n < 0:
            raise too_few(n, len(found), split, self)
        return list(found.values())

    def _drawn(self, split: Split, n: int, seed: int) -> Iterator[Problem | None]:
        """Problems of all splits without end, those of one seed after those of another; None: one that is left out."""
        most = math.ceil(1.2 * n / _SHARE[split]) + 4
        for block in itertools.count():
            base = derive_seed(seed, self.name, self.settings, split, block) % _SEEDS
            first = 0
            while first < worker.SIZE:
                drawn = _call("draw", self.dataset, self.settings, base, first, most, _BATCH_SECONDS)
                for number, made in enumerate(drawn, start=first):
                    yield self._problem(Place(self.settings, base, number), Made(**made)) if made else None
                first += len(drawn)

    def problem(self, metadata: dict[str, object]) -> Problem:
        """The problem of `{"seed": s, "number": i}`, with this task's parameters unless `settings` names others."""
        for key in metadata:
            if key not in _FACTS:
                raise UnknownName(f"{self.name} problem key", str(key), _FACTS)
        advice = 'give for example {"seed": 1, "number": 0}'
        seed, number = metadata.get("seed"), metadata.get("number", 0)
        settings = metadata.get("settings", json.loads(self.settings))
        if type(seed) is not int or not 0 <= seed < _SEEDS:
            raise InvalidValue(f"{self.name} seed", seed, f"an integer from 0 to {_SEEDS - 1}", advice)
        if type(number) is not int or not 0 <= number < worker.SIZE:
            raise InvalidValue(f"{self.name} number", number, f"an integer from 0 to {worker.SIZE - 1}", advice)
        if not isinstance(settings, dict):
            raise InvalidValue(f"{self.name} settings", settings, "an object of parameters", advice)
        task = ReasoningGym(dataset=self.dataset, settings=_canonical(settings))
        place = Place(task.settings, seed, number)
        try:
            problem = self._problem(place, _made(self.dataset, place))
        except CallFailed as error:
            raise InvalidValue(
                f"{self.name} problem", dict(metadata), f"one that can be made ({error.given})", advice
            ) from error
        if problem is None:
            raise InvalidValue(f"{self.name} problem", dict(metadata), "one with an answer", "choose another number")
        return problem

    def _problem(self, place: Place, made: Made) -> Problem | None:
        """The problem as it is posed; None if it is one of those that are left out."""
        if not posed(made.source, made.gold, made.question):
            return None
        question = tidy(made.question)
        name = hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
        return Problem(
            id=f"{self.name}:{name}",
            task=self.name,
            prompt=(Message("system", INSTRUCTIONS), Message("user", made.question)),
            metadata={"settings": json.loads(place.settings), "seed": place.seed, "number": place.number},
        )

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Right only for full marks from the task's scorer and, where it is loose, clew's stricter rule."""
        answer = self.extract(text)
        if answer is None:
            return Verdict(Outcome.WRONG, 0.0, None, "no answer")
        place = _place(problem)
        try:
            made = _made(self.dataset, place)
            rule, gold = stricter(made.source), made.gold or ""
            if rule.form is not None and not rule.form.fullmatch(answer):
                return Verdict(Outcome.WRONG, 0.0, answer, "not of the form that is asked for")
            # The scorer may want white space that the right answer has at its ends.
            score = _call("score", self.dataset, *place, gold if answer == tidy(gold) else answer)
        except CallFailed as error:
            return Verdict(Outcome.UNSCORED, None, answer, error.given)
        if not math.isfinite(score):
            return Verdict(Outcome.UNSCORED, None, answer, f"the scorer says {score}")
        if score < 1.0:
            return Verdict(Outcome.WRONG, max(0.0, score), answer, f"scores {score:.3g}")
        if not rule.check(Given(answer, gold, made.question)):
            return Verdict(Outcome.WRONG, 0.0, answer, f"not as the right answer, although the scorer {rule.reason}")
        return Verdict(Outcome.RIGHT, 1.0, answer, "scores 1")

    def extract(self, text: str) -> str | None:
        """The answer that `text` gives, unjudged: see `tagged_answer`."""
        return tagged_answer(text)

    def gold(self, problem: Problem) -> str:
        """The right answer that the package keeps; raises `InvalidValue` for the tasks of which it keeps none."""
        made = _made(self.dataset, _place(problem))
        if made.gold is None:
            why = NO_GOLD.get(made.source, "the package keeps no right answer")
            raise InvalidValue(
                "problem", problem.id, f"a problem of a task with right answers ({why})", "judge by playing"
            )
        return tidy(made.gold)

    def difficulty(self, problem: Problem) -> str:
        """The task that the problem is of: the package's parameters, not bins, make its problems harder."""
        return _made(self.dataset, _place(problem)).source


def reasoning_gym_task(spec: str) -> ReasoningGym:
    """The task of `NAME`, `NAME,param=value,...` or `NAME:param=value,...`; values are JSON, or texts without quotes.

    >>> reasoning_gym_task("chain_sum,min_terms=3,max_terms=3")
    ReasoningGym(dataset='chain_sum', settings='{"max_terms": 3, "min_terms": 3}')
    """
    dataset, _, rest = re.sub(r"[,:]", ":", spec, count=1).partition(":")
    chosen: dict[str, Any] = {}
    for setting in _split(rest) if rest else ():
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            accepted = f"parameters as {PREFIX}:{dataset},name=value"
            raise InvalidValue(f"{PREFIX}:{dataset} parameter", setting, accepted, "write its value behind =")
        if key in chosen:
            raise InvalidValue(f"{PREFIX}:{dataset} {key}", value, "each parameter once", "remove one of them")
        chosen[key] = _value(value)
    return ReasoningGym(dataset=dataset.strip(), settings=_canonical(chosen))


def _split(text: str) -> list[str]:
    """`text` at the commas that stand outside of brackets and double quotes."""
    pieces, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0 and not quoted:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _canonical(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _place(problem: Problem) -> Place:
    facts = problem.metadata
    return Place(_canonical(dict(facts["settings"])), facts["seed"], facts["number"])


@lru_cache(maxsize=1 << 12)
def _made(dataset: str, place: Place) -> Made:
    return Made(**_call("made", dataset, *place))


@lru_cache(maxsize=1)
def task_names() -> tuple[str, ...]:
    """The names of the tasks of reasoning-gym."""
    return tuple(_call("names"))


def _call(verb: str, *arguments: Any) -> Any:
    return _process().call(verb, *arguments)


@lru_cache(maxsize=1)
def _process() -> Killable:
    if importlib.util.find_spec("reasoning_gym") is None:
        accepted = "reasoning-gym, which the extra `gym` installs"
        raise MissingExtra("reasoning-gym is not installed", accepted, 'run: python -m pip install "clew[gym]"')
    limits: dict[str, Any] = {"seconds": SECONDS, "cpu_seconds": CPU_SECONDS, "memory_mib": MEMORY_MIB}
    return Killable(worker.serve, **limits, warm_up=("names",))
