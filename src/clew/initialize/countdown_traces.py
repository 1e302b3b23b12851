"""Countdown solutions that show the six behaviours, written as a person might think aloud, in few words.

    have 9 7 5 3 try 9 + 7 = 16 left 5 3 try 16 + 5 = 21 no or 5 * 3 = 15 try 16 + 15 = 31 no
    back try 9 - 7 = 2 left 5 3 try 5 * 3 = 15 try 15 * 2 = 30 yes answer ( 5 * 3 ) * ( 9 - 7 )

`have` analyses, `plan` works backwards from the target, `try` carries out, `or` proposes another step,
`no` and `yes` evaluate, `back` corrects by returning to the start. Mistakes are part of a trace only
when they are seen and corrected in it.

Steps are tried in one fixed order, so that a thinker need only remember the last one not to try any twice; what
leads nowhere is often passed over unseen. It is the depth-first search of Stream of Search (arXiv 2404.03683).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from clew.core.errors import InvalidValue
from clew.initialize.countdown_words import Expressions, applied, atoms, move_words, plan_words, planned
from clew.initialize.countdown_world import Move, Numbers, Plan, choices, distinct_moves, moves, plans, reachable
from clew.initialize.vocabulary import LARGEST_NUMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStyle:
    """How a demonstrator of middling skill thinks: how much it foresees and how long it stays with an idea."""

    sight: float = 0.75
    """Probability that a first step which leads nowhere is passed over unseen."""
    second_sight: float = 0.25
    """The same of a second step."""
    plan: float = 0.15
    """Probability that the first idea works backwards from the target."""
    patience: int = 9
    """Most second steps that fail before going back."""
    compute_last: float = 0.25
    """Probability of computing the last step that comes closest instead of seeing at once that none hits the target."""
    max_words: int = 240
    """Past this length the demonstrator errs no more."""

    def __post_init__(self) -> None:
        for name in ("sight", "second_sight", "plan", "compute_last"):
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
    first: Move | None
    """The step that was taken, unless this is a plan."""


def solution_words(numbers: list[int], target: int, rng: random.Random) -> list[str]:
    """One derivation without mistakes and its answer: what the direct policy is taught.

    Raises `InvalidValue` if the moves of `countdown_world` cannot make `target`.
    """
    start = _start(numbers, target)
    derived = _derive(start, target, atoms(start), rng)
    return ["have", *map(str, start), *derived.words, "answer", *derived.expression.split(" ")]


def answer_words(numbers: list[int], target: int, rng: random.Random) -> list[str]:
    """The answer at once, without a thought: what a question and its answer look like in most texts.

    Raises `InvalidValue` if the moves of `countdown_world` cannot make `target`.
    """
    start = _start(numbers, target)
    return ["answer", *_derive(start, target, atoms(start), rng).expression.split(" ")]


def thinking_words(numbers: list[int], target: int, rng: random.Random, style: TraceStyle) -> list[str]:
    """A chain of thought with attempts, checks and corrections that ends in a right answer.

    Raises `InvalidValue` if the moves of `countdown_world` cannot make `target`.
    """
    start = _start(numbers, target)
    words = ["have", *map(str, start)]
    for idea in _ideas(start, target, rng, style, words):
        words += idea.words
        solved = _second_steps(idea, rng, style, words)
        if solved is not None:
            return [*words, "answer", *solved.split(" ")]
        words.append("back")
    raise AssertionError("a target within reach has a first step that leads to it")


def _ideas(start: Numbers, target: int, rng: random.Random, style: TraceStyle, words: Sequence[str]) -> Iterator[_Idea]:
    """Perhaps a plan, then first steps in their order; `words` grow while the ideas are followed."""
    options = plans(start, target) if rng.random() < style.plan else ()
    good = [plan for plan in options if plan.need in reachable(plan.left)]
    if _passes_over(rng, style.sight, style, words):
        options = tuple(good)
    if options:
        plan = rng.choice(options)
        yield _Idea(plan_words(target, plan), plan.left, plan.need, atoms(plan.left), plan, None)
    for move in distinct_moves(start):
        if target in reachable(move.left) or not _passes_over(rng, style.sight, style, words):
            yield _Idea(move_words("try", move), move.left, target, applied(atoms(start), move), None, move)


def _passes_over(rng: random.Random, sight: float, style: TraceStyle, words: Sequence[str]) -> bool:
    return len(words) > style.max_words or rng.random() < sight


def _second_steps(idea: _Idea, rng: random.Random, style: TraceStyle, words: list[str]) -> str | None:
    """Try second steps, writing them to `words`; the expression if one of them succeeds."""
    if len(idea.left) == 1:
        made = idea.left[0] == idea.want
        words.append("yes" if made else "no")
        return _completed(idea, idea.expressions[idea.want][0]) if made else None
    tried = 0
    for move in _worth_trying(idea):
        cue = "or" if tried else "try"
        if idea.want in reachable(move.left):
            derived = _derive(move.left, idea.want, applied(idea.expressions, move), rng)
            words += [*move_words(cue, move), *derived.words, "yes"]
            return _completed(idea, derived.expression)
        if tried < style.patience and not _passes_over(rng, style.second_sight, style, words):
            words += move_words(cue, move)
            if rng.random() < style.compute_last and moves(move.left):
                words += move_words("try", min(moves(move.left), key=lambda last: abs(last.result - idea.want)))
            words.append("no")
            tried += 1
    if not tried:
        words.append("no")
    return None


def _worth_trying(idea: _Idea) -> Sequence[Move]:
    """Second steps in their order, without those that an earlier first step has seen to lead nowhere.

    First 9 - 7, then 5 * 3 comes to the same as first 5 * 3, then 9 - 7: it was examined where 9 - 7 came first.
    """
    steps = distinct_moves(idea.left)
    if idea.first is None:
        return steps
    pair, result = (idea.first.a, idea.first.b), idea.first.result
    new = [step for step in steps if result in (step.a, step.b) or (step.a, step.b) <= pair]
    reached = [step for step in steps if idea.want in reachable(step.left)]
    # Equal numbers can make the order ambiguous; a way to the target is never given up for it.
    return new if not reached or any(step in new for step in reached) else steps


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
