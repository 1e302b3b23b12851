"""How moves and expressions of Countdown are worded: what traces and pre-training text share."""

from __future__ import annotations

from clew.initialize.countdown_world import Move, Numbers, Plan

Expressions = dict[int, list[str]]
"""By value, what has been made of it so far; bracketed where it must be when it is used again."""


def move_words(cue: str, move: Move) -> list[str]:
    """The step, and what it leaves untouched if that is more than one number: a single one is easily kept in mind.

    >>> " ".join(move_words("try", Move(5, "*", 3, 15, (15, 9, 7))))
    'try 5 * 3 = 15 left 9 7'
    """
    untouched = list(move.left)
    untouched.remove(move.result)
    words = [cue, str(move.a), move.op, str(move.b), "=", str(move.result)]
    return [*words, "left", *map(str, untouched)] if len(untouched) > 1 else words


def plan_words(target: int, plan: Plan) -> list[str]:
    """The last step, what it needs, and what there is to make it from.

    >>> " ".join(plan_words(24, Plan(20, "+", 4, False, (9, 3, 2))))
    'plan 24 = 20 + 4 need 20 left 9 3 2'
    """
    first, second = (plan.given, plan.need) if plan.given_first else (plan.need, plan.given)
    words = ["plan", str(target), "=", str(first), plan.op, str(second), "need", str(plan.need)]
    return [*words, "left", *map(str, plan.left)]


def atoms(numbers: Numbers) -> Expressions:
    """The numbers themselves as expressions."""
    found: Expressions = {}
    for number in numbers:
        found.setdefault(number, []).append(str(number))
    return found


def applied(expressions: Expressions, move: Move) -> Expressions:
    """Expressions after `move`; those with brackets are used up before plain numbers of equal value."""
    after = {value: list(made) for value, made in expressions.items()}
    first, second = (_bracketed(after[n].pop()) for n in (move.a, move.b))
    after.setdefault(move.result, []).append(f"{first} {move.op} {second}")
    return {value: made for value, made in after.items() if made}


def planned(plan: Plan, made: str) -> str:
    """The whole expression, once `made` equals what the plan needs."""
    first, second = str(plan.given), _bracketed(made)
    if not plan.given_first:
        first, second = second, first
    return f"{first} {plan.op} {second}"


def _bracketed(expression: str) -> str:
    return f"( {expression} )" if " " in expression else expression
