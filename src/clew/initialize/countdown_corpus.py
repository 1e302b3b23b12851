"""Pre-training text about the world of Countdown: facts of arithmetic, legal moves, judgements, derivations."""

from __future__ import annotations

import random

from clew.core.errors import InvalidValue
from clew.initialize.countdown_traces import TraceStyle, thinking_words
from clew.initialize.countdown_words import applied, atoms, move_words
from clew.initialize.countdown_world import Numbers, moves, reachable
from clew.initialize.vocabulary import LARGEST_NUMBER


def document(rng: random.Random, numbers: int, low: int, high: int, length: int) -> list[str]:
    """At least `length` words of one kind of text; `numbers`, `low` and `high` are those of the task.

    Raises `InvalidValue` if `low` to `high` is not within the numbers that have a word.
    """
    if not 1 <= low <= high <= LARGEST_NUMBER:
        accepted = f"1 <= low <= high <= {LARGEST_NUMBER}, the numbers that are one token each"
        raise InvalidValue("(low, high) of the corpus", (low, high), accepted, "narrow the task's numbers")
    kind = rng.choices((facts, judgements, derivation, small_problem), weights=(2, 3, 2, 3))[0]
    words: list[str] = []
    while len(words) < length:
        words += [*kind(rng, numbers, low, high), ";"]
    return words


def facts(rng: random.Random, numbers: int, low: int, high: int) -> list[str]:
    """`15 * 2 = 30`."""
    left = _played(rng, rng.randint(2, numbers), numbers, low, high)
    move = rng.choice(moves(left))
    return [str(move.a), move.op, str(move.b), "=", str(move.result)]


def judgements(rng: random.Random, numbers: int, low: int, high: int) -> list[str]:
    """What may follow a second step.

    `want 24 = 15 left 9 try 15 + 9 = 24 yes`, `want 24 = 15 left 2 no` or `want 24 = 15 left 2 try 15 * 2 = 30 no`.
    """
    left = _played(rng, 2, numbers, low, high)
    options = moves(left)
    target = rng.choice(options).result
    if rng.random() < 0.5:
        target += rng.choice((-3, -2, -1, 1, 2, 3)) if rng.random() < 0.5 else rng.randint(-20, 20)
    target = min(max(target, 1), LARGEST_NUMBER)
    first, second = rng.sample(left, 2)
    words = ["want", str(target), "=", str(first), "left", str(second)]
    closest = min(options, key=lambda move: abs(move.result - target))
    if closest.result == target:
        return [*words, *move_words("try", closest), "yes"]
    return [*words, "no"] if rng.random() < 0.5 else [*words, *move_words("try", closest), "no"]


def small_problem(rng: random.Random, numbers: int, low: int, high: int) -> list[str]:
    """A problem of two numbers up to one fewer than the task's, solved: `make 30 from 5 8 2 have 8 5 2 try ...`."""
    left = _played(rng, rng.randint(2, max(2, numbers - 1)), numbers, low, high)
    target = rng.choice(sorted(reachable(left)))
    given = rng.sample(left, len(left))
    words = ["make", str(target), "from", *map(str, given)]
    return [*words, *thinking_words(given, target, rng, TraceStyle())]


def _played(rng: random.Random, remaining: int, numbers: int, low: int, high: int) -> Numbers:
    """What random moves leave of random numbers when `remaining` are left: the numbers that derivations meet."""
    left = tuple(sorted((rng.randint(low, high) for _ in range(numbers)), reverse=True))
    while len(left) > remaining:
        left = rng.choice(moves(left)).left
    return left


def derivation(rng: random.Random, numbers: int, low: int, high: int) -> list[str]:
    """Random legal moves down to one number, and the expression they make; there is no target."""
    left = tuple(sorted((rng.randint(low, high) for _ in range(numbers)), reverse=True))
    words = ["have", *map(str, left)]
    expressions = atoms(left)
    while len(left) > 1:
        move = rng.choice(moves(left))
        words += move_words("try", move)
        expressions = applied(expressions, move)
        left = move.left
    return [*words, "answer", *expressions[left[0]][0].split(" ")]
