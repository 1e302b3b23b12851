"""Pre-training text about the world of Countdown: facts of arithmetic, legal moves, judgements, derivations."""

from __future__ import annotations

import random

from clew.initialize.countdown_world import choices, moves, outcomes, reachable
from clew.initialize.countdown_traces import _applied, _atoms, _move_words

LARGEST_OPERAND = 100


def document(rng: random.Random, numbers: int, low: int, high: int, length: int) -> list[str]:
    """About `length` words of one kind of text; `numbers`, `low` and `high` are those of the task."""
    kind = rng.choices((facts, judgements, derivation), weights=(3, 4, 3))[0]
    words: list[str] = []
    while len(words) < length:
        words += [*kind(rng, numbers, low, high), ";"]
    return words


def facts(rng: random.Random, numbers: int, low: int, high: int) -> list[str]:
    """`15 * 2 = 30`."""
    a, b = _operand(rng, high), _operand(rng, high)
    x, op, y, result = rng.choice(outcomes(a, b))
    return [str(x), op, str(y), "=", str(result)]


def judgements(rng: random.Random, numbers: int, low: int, high: int) -> list[str]:
    """`want 24 = 15 left 9 try 15 + 9 = 24 yes`, or `want 24 = 15 left 2 no`: what follows a second step."""
    left = tuple(sorted((_operand(rng, high), _operand(rng, high)), reverse=True))
    options = moves(left)
    if rng.random() < 0.5:
        move = rng.choice(options)
        target = move.result
    else:
        target = max(1, rng.choice(options).result + rng.choice((-3, -2, -1, 1, 2, 3)))
    target = min(target, 255)
    first, second = rng.sample(left, 2)
    words = ["want", str(target), "=", str(first), "left", str(second)]
    good = choices(left, target).good
    return [*words, *_move_words("try", rng.choice(good)), "yes"] if good else [*words, "no"]


def derivation(rng: random.Random, numbers: int, low: int, high: int) -> list[str]:
    """Random legal moves down to one number, and the expression they make; there is no target."""
    left = tuple(sorted((rng.randint(low, high) for _ in range(numbers)), reverse=True))
    words = ["have", *map(str, left)]
    expressions = _atoms(left)
    while len(left) > 1:
        move = rng.choice(moves(left))
        words += _move_words("try", move)
        expressions = _applied(expressions, move)
        left = move.left
    return [*words, "answer", *expressions[left[0]][0].split(" ")]


def _operand(rng: random.Random, high: int) -> int:
    """Small numbers more often than large ones, as derivations meet them."""
    return rng.randint(1, high) if rng.random() < 0.5 else rng.randint(0, LARGEST_OPERAND)
