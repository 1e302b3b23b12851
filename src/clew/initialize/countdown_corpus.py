"""Pre-training text about the world of Countdown: facts of arithmetic, judgements, hints, derivations."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from clew.core.errors import InvalidValue
from clew.initialize.countdown_traces import TraceStyle, thinking_words
from clew.initialize.countdown_words import applied, atoms, move_words
from clew.initialize.countdown_world import Numbers, choices, moves, reachable
from clew.initialize.vocabulary import LARGEST_NUMBER


class Passage(NamedTuple):
    """A piece of text: what is given, which nobody could predict, and what follows from it, which is learnt."""

    given: list[str]
    learnt: list[str]


Seen = Callable[[Numbers, int], bool]
"""Whether training may see the problem of these numbers and this target."""


def document(
    rng: random.Random, numbers: int, low: int, high: int, length: int, *, seen: Seen = lambda numbers, target: True
) -> list[Passage]:
    """Passages of one kind with at least `length` words; `numbers`, `low` and `high` are those of the task.

    Nothing of a problem that is not `seen` is told. Raises `InvalidValue` if `low` to `high` is not within the numbers
    that have a word.
    """
    if not 1 <= low <= high <= LARGEST_NUMBER:
        accepted = f"1 <= low <= high <= {LARGEST_NUMBER}, the numbers that are one token each"
        raise InvalidValue("(low, high) of the corpus", (low, high), accepted, "narrow the task's numbers")
    kind = rng.choices((facts, judgements, hint, derivation, small_problem), weights=(2, 6, 6, 3, 8))[0]
    passages: list[Passage] = []
    words = 0
    while words < length:
        given, learnt = kind(rng, numbers, low, high, seen)
        passages.append(Passage(given, [*learnt, ";"]))
        words += len(given) + len(learnt) + 1
    return passages


def facts(rng: random.Random, numbers: int, low: int, high: int, seen: Seen) -> Passage:
    """`15 * 2 = 30`."""
    left = _played(rng, rng.randint(2, numbers), numbers, low, high)
    move = rng.choice(moves(left))
    return Passage([str(move.a), move.op, str(move.b)], ["=", str(move.result)])


def judgements(rng: random.Random, numbers: int, low: int, high: int, seen: Seen) -> Passage:
    """What may follow when two numbers are left.

    `make 24 from 15 9 try 15 + 9 = 24 yes`, `make 24 from 15 2 no` or `make 24 from 15 2 try 15 * 2 = 30 no`.
    """
    left = _played(rng, 2, numbers, low, high)
    options = moves(left)
    target = rng.choice(options).result
    if rng.random() < 0.5:
        target += rng.choice((-3, -2, -1, 1, 2, 3)) if rng.random() < 0.5 else rng.randint(-20, 20)
    target = min(max(target, 1), LARGEST_NUMBER)
    given = ["make", str(target), "from", *map(str, rng.sample(left, 2))]
    closest = min(options, key=lambda move: abs(move.result - target))
    if closest.result == target:
        return Passage(given, [*move_words("try", closest), "yes"])
    return Passage(given, ["no"] if rng.random() < 0.5 else [*move_words("try", closest), "no"])


def hint(rng: random.Random, numbers: int, low: int, high: int, seen: Seen) -> Passage:
    """A step that can still lead to the target: `make 24 from 9 12 3 try 12 + 9`, smaller states more often."""
    sizes = range(min(3, numbers), numbers + 1)
    while True:
        left = _played(rng, rng.choices(sizes, weights=range(len(sizes), 0, -1))[0], numbers, low, high)
        target = rng.choice(sorted(reachable(left)))
        if len(left) < numbers or seen(left, target):
            break
    move = rng.choice(choices(left, target).good)
    step = ["try", str(move.a), move.op, str(move.b)]
    given = ["make", str(target), "from", *map(str, rng.sample(left, len(left)))]
    return Passage([*given, "have", *map(str, left)] if len(left) == numbers else given, step)


def small_problem(rng: random.Random, numbers: int, low: int, high: int, seen: Seen) -> Passage:
    """A problem of two numbers up to one fewer than the task's, solved: `make 30 from 5 8 2 have 8 5 2 try ...`."""
    left = _played(rng, rng.randint(2, max(2, numbers - 1)), numbers, low, high)
    target = rng.choice(sorted(reachable(left)))
    order = rng.sample(left, len(left))
    return Passage(["make", str(target), "from", *map(str, order)], thinking_words(order, target, rng, TraceStyle()))


def derivation(rng: random.Random, numbers: int, low: int, high: int, seen: Seen) -> Passage:
    """Random legal moves down to one number, and the expression they make; there is no target."""
    while True:
        left = start = _played(rng, numbers, numbers, low, high)
        words: list[str] = []
        expressions = atoms(left)
        while len(left) > 1:
            move = rng.choice(moves(left))
            words += move_words("try", move)
            expressions = applied(expressions, move)
            left = move.left
        if seen(start, left[0]):
            return Passage(["have", *map(str, start)], [*words, "answer", *expressions[left[0]][0].split(" ")])


def _played(rng: random.Random, remaining: int, numbers: int, low: int, high: int) -> Numbers:
    """What random moves leave of random numbers when `remaining` are left: the numbers that derivations meet."""
    left = tuple(sorted(rng.choices(range(low, high + 1), k=numbers), reverse=True))
    while len(left) > remaining:
        left = rng.choice(moves(left)).left
    return left
