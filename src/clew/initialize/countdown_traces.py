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

from clew.initialize.countdown_world import Move, Numbers, Plan, choices, moves, plans, reachable


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStyle:
    """How a demonstrator of middling skill thinks: how often it errs and how long it stays with an idea."""

    good_start: float = 0.65
    """Probability that the first step of an idea can still lead to the target."""
    good_step: float = 0.65
    """Probability of taking a good second step where there is one."""
    plan: float = 0.15
    """Probability that an idea works backwards from the target."""
    patience: int = 3
    """Most second steps tried before going back."""
    compute_last: float = 0.15
    """Probability of computing a last step that misses the target instead of seeing at once that none can hit it."""
    max_words: int = 80
    """Past this length the demonstrator errs no more."""


class _Idea(NamedTuple):
    """Where a first step leads: what is left, the value to make of it, and how the expression is completed."""

    words: list[str]
    left: Numbers
    want: int
    expressions: dict[int, list[str]]
    plan: Plan | None


def solution_words(numbers: list[int], target: int, rng: random.Random) -> list[str]:
    """One derivation without mistakes and its answer: what the direct policy is taught."""
    left = tuple(sorted(numbers, reverse=True))
    expressions = _atoms(left)
    words: list[str] = []
    while len(left) > 1:
        move = rng.choice(choices(left, target).good)
        words += _move_words("try", move)
        expressions = _applied(expressions, move)
        left = move.left
    return [*words, "answer", *_answer(expressions[target][0])]


def thinking_words(numbers: list[int], target: int, rng: random.Random, style: TraceStyle) -> list[str]:
    """A chain of thought with attempts, checks and corrections that ends in a right answer."""
    start = tuple(sorted(numbers, reverse=True))
    words = ["have", *map(str, start)]
    while True:
        careful = len(words) > style.max_words
        idea = _first_step(start, target, rng, style, careful=careful)
        words += idea.words
        solved = _second_steps(idea, rng, style, careful=careful, words=words)
        if solved is not None:
            return [*words, "answer", *_answer(solved)]
        words.append("back")


def _first_step(start: Numbers, target: int, rng: random.Random, style: TraceStyle, *, careful: bool) -> _Idea:
    good = careful or rng.random() < style.good_start
    if not careful and rng.random() < style.plan:
        options = [p for p in plans(start, target) if (p.need in reachable(p.left)) == good]
        if options:
            plan = rng.choice(options)
            left, right = (plan.given, plan.need) if plan.given_first else (plan.need, plan.given)
            words = ["plan", str(target), "=", str(left), plan.op, str(right), "need", str(plan.need)]
            return _Idea([*words, "left", *map(str, plan.left)], plan.left, plan.need, _atoms(plan.left), plan)
    split = choices(start, target)
    move = rng.choice((split.good if good else split.bad) or split.good)
    return _Idea(_move_words("try", move), move.left, target, _applied(_atoms(start), move), None)


def _second_steps(
    idea: _Idea, rng: random.Random, style: TraceStyle, *, careful: bool, words: list[str]
) -> str | None:
    """Try second steps, writing them to `words`; the expression if one of them succeeds."""
    split = choices(idea.left, idea.want)
    bad = list(split.bad)
    rng.shuffle(bad)
    for attempt in range(rng.randint(1, style.patience)):
        careful = careful or len(words) > style.max_words
        cue = "or" if attempt else "try"
        if split.good and (careful or not bad or rng.random() < style.good_step):
            move = rng.choice(split.good)
            last = rng.choice(choices(move.left, idea.want).good)
            words += _move_words(cue, move) + _last_words(last) + ["yes"]
            made = _applied(_applied(idea.expressions, move), last)[idea.want][0]
            return made if idea.plan is None else _planned(idea.plan, made)
        if not bad:
            return None
        move = bad.pop()
        words += _move_words(cue, move)
        if rng.random() < style.compute_last and moves(move.left):
            words += _last_words(rng.choice(moves(move.left)))
        words.append("no")
    return None


def _move_words(cue: str, move: Move) -> list[str]:
    """`try 5 * 3 = 15 left 9 7`: the step, and what it leaves untouched, if anything."""
    untouched = list(move.left)
    untouched.remove(move.result)
    words = [cue, str(move.a), move.op, str(move.b), "=", str(move.result)]
    return [*words, "left", *map(str, untouched)] if untouched else words


def _last_words(move: Move) -> list[str]:
    return _move_words("try", move)


def _atoms(numbers: Numbers) -> dict[int, list[str]]:
    atoms: dict[int, list[str]] = {}
    for number in numbers:
        atoms.setdefault(number, []).append(str(number))
    return atoms


def _applied(expressions: dict[int, list[str]], move: Move) -> dict[int, list[str]]:
    """Expressions by value after `move`; those with brackets are used up before plain numbers of equal value."""
    after = {value: list(made) for value, made in expressions.items()}
    first, second = (_bracketed(after[n].pop()) for n in (move.a, move.b))
    after.setdefault(move.result, []).append(f"{first} {move.op} {second}")
    return {value: made for value, made in after.items() if made}


def _planned(plan: Plan, made: str) -> str:
    left, right = (str(plan.given), _bracketed(made)) if plan.given_first else (_bracketed(made), str(plan.given))
    return f"{left} {plan.op} {right}"


def _bracketed(expression: str) -> str:
    return f"( {expression} )" if " " in expression else expression


def _answer(expression: str) -> list[str]:
    return expression.split(" ")
