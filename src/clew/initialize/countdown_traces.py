"""Countdown solutions that show the six behaviours, written as a person might think aloud, in few words.

    have 9 7 5 3 try 7 + 5 = 12 left 9 3 try 12 - 9 = 3 left 3 no or 9 / 3 = 3 left 12 no
    back try 9 - 7 = 2 left 5 3 try 5 * 3 = 15 left 2 try 15 * 2 = 30 yes answer ( 5 * 3 ) * ( 9 - 7 )

`have` analyses, `plan` works backwards from the target, `try` carries out, `or` proposes another step,
`no` and `yes` evaluate, `back` corrects by returning to the start. Mistakes are part of a trace only
when they are seen and corrected in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from clew.core.errors import InvalidValue
from clew.initialize.countdown_words import Expressions, applied, atoms, move_words, plan_words, planned
from clew.initialize.countdown_world import Move, Numbers, Plan, choices, moves, plans, reachable
from clew.initialize.vocabulary import LARGEST_NUMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStyle:
    """How a demonstrator of middling skill thinks: how often it errs and how long it stays with an idea."""

    good_start: float = 0.8
    """Probability that the first step of an idea can still lead to the target."""
    good_step: float = 0.8
    """Probability of taking a good second step where there is one."""
    plan: float = 0.15
    """Probability that an idea works backwards from the target."""
    patience: int = 3
    """Most second steps tried before going back."""
    compute_last: float = 0.5
    """Probability of computing the last step that comes closest instead of seeing at once that none hits the target."""
    max_words: int = 80
    """Past this length the demonstrator leaves an idea that fails, and errs no more."""

    def __post_init__(self) -> None:
        for name in ("good_start", "good_step", "plan", "compute_last"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidValue(f"style {name}", getattr(self, name), "a probability from 0 to 1", "change it")
        if self.patience < 1:
            raise InvalidValue("style patience", self.patience, "an integer of at least 1", "use 1 for one attempt")


class _Idea(NamedTuple):
    """Where a first step leads: what is left, the value to make of it, and how the expression is completed."""

    words: list[str]
    left: Numbers
    want: int
    expressions: Expressions
    plan: Plan | None
    first: Move | Plan


def solution_words(numbers: list[int], target: int, rng: random.Random) -> list[str]:
    """One derivation without mistakes and its answer: what the direct policy is taught.

    Raises `InvalidValue` if the moves of `countdown_world` cannot make `target`.
    """
    start = _start(numbers, target)
    derived = _derive(start, target, atoms(start), rng)
    return ["have", *map(str, start), *derived.words, "answer", *derived.expression.split(" ")]


def thinking_words(numbers: list[int], target: int, rng: random.Random, style: TraceStyle) -> list[str]:
    """A chain of thought with attempts, checks and corrections that ends in a right answer.

    Raises `InvalidValue` if the moves of `countdown_world` cannot make `target`.
    """
    start = _start(numbers, target)
    words = ["have", *map(str, start)]
    failed: set[Move | Plan] = set()
    while True:
        careful = len(words) > style.max_words
        idea = _first_step(start, target, rng, style, careful=careful, failed=failed)
        failed.add(idea.first)
        words += idea.words
        solved = _second_steps(idea, rng, style, careful=careful, words=words)
        if solved is not None:
            return [*words, "answer", *solved.split(" ")]
        words.append("back")


def _first_step(
    start: Numbers, target: int, rng: random.Random, style: TraceStyle, *, careful: bool, failed: set[Move | Plan]
) -> _Idea:
    """An idea that has not `failed` yet, as long as there is one."""
    good = careful or rng.random() < style.good_start
    if not careful and rng.random() < style.plan:
        options = [p for p in plans(start, target) if (p.need in reachable(p.left)) == good and p not in failed]
        if options:
            plan = rng.choice(options)
            return _Idea(plan_words(target, plan), plan.left, plan.need, atoms(plan.left), plan, plan)
    split = choices(start, target)
    fresh = [m for m in (split.good if good else split.bad) if m not in failed]
    move = rng.choice(fresh or split.good)
    return _Idea(move_words("try", move), move.left, target, applied(atoms(start), move), None, move)


def _second_steps(idea: _Idea, rng: random.Random, style: TraceStyle, *, careful: bool, words: list[str]) -> str | None:
    """Try second steps, writing them to `words`; the expression if one of them succeeds."""
    if len(idea.left) == 1:
        made = idea.left[0] == idea.want
        words.append("yes" if made else "no")
        return _completed(idea, idea.expressions[idea.want][0]) if made else None
    split = choices(idea.left, idea.want)
    bad = list(split.bad)
    rng.shuffle(bad)
    for attempt in range(rng.randint(1, style.patience)):
        careful = careful or len(words) > style.max_words
        cue = "or" if attempt else "try"
        if split.good and (careful or not bad or rng.random() < style.good_step):
            move = rng.choice(split.good)
            derived = _derive(move.left, idea.want, applied(idea.expressions, move), rng)
            words += [*move_words(cue, move), *derived.words, "yes"]
            return _completed(idea, derived.expression)
        if not bad or (careful and attempt):
            return None
        move = bad.pop()
        words += move_words(cue, move)
        if rng.random() < style.compute_last and moves(move.left):
            words += move_words("try", min(moves(move.left), key=lambda last: abs(last.result - idea.want)))
        words.append("no")
    return None


class _Derived(NamedTuple):
    """Steps and the expression they build."""

    words: list[str]
    expression: str


def _derive(left: Numbers, want: int, expressions: Expressions, rng: random.Random) -> _Derived:
    """Steps without mistakes from `left`, which can make `want`, to it."""
    words: list[str] = []
    while len(left) > 1:
        move = rng.choice(choices(left, want).good)
        words += move_words("try", move)
        expressions = applied(expressions, move)
        left = move.left
    return _Derived(words, expressions[want][0])


def _completed(idea: _Idea, made: str) -> str:
    return made if idea.plan is None else planned(idea.plan, made)


def _start(numbers: list[int], target: int) -> Numbers:
    start = tuple(sorted(numbers, reverse=True))
    if target not in reachable(start):
        given = (list(start), target)
        accepted = f"a target that whole numbers from 0 to {LARGEST_NUMBER} on the way can make"
        raise InvalidValue("(numbers, target) of a trace", given, accepted, "leave this problem out of the corpus")
    return start
