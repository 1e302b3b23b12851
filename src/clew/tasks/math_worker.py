"""Compare two mathematical expressions with math-verify's parser and sympy. Runs inside `clew.tasks.killable` only.

What is compared are single values and the sides of equations, without free text (`math_shape` and `math_text` see to
that). Values are equal if they are numerically, at random points of their variables, to 40 digits: unlike a rounding to
six decimals, this does not take 0.0000001 for 0. Matrices go to math-verify's own comparison.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from clew.tasks.math_shape import same, shape
from clew.tasks.number_answer import MIN_SIGNIFICANT, read_number, same_number

DIGITS = 60
_AGREEING = 40
_POINTS = 3
_MAX_BITS = 20_000
"""Integers in an answer beyond which it counts as not computable."""


class NotReadable(ValueError):
    """The parser makes nothing of the text."""


def judge(gold: str, answer: str) -> list[Any]:
    """`["right"]`, `["wrong"]`, or `["gold"]` and `["answer"]` for the one that is not readable."""
    try:
        read_all(gold)
    except NotReadable as error:
        return ["gold", str(error)]
    try:
        read_all(answer)
        return ["right" if same(shape(gold), shape(answer), equal, proportional) else "wrong", ""]
    except NotReadable as error:
        return ["answer", str(error)]


def read_all(text: str) -> None:
    """Raise `NotReadable` if some part of `text` cannot be read."""
    todo = [shape(text)]
    while todo:
        part = todo.pop()
        todo += part.parts
        if part.kind == "value" and read_number(part.text) is None:
            _read(part.text)


def equal(gold: str, answer: str) -> bool:
    """Whether two values are the same, by the rules of numbers where both are numbers."""
    numbers = read_number(gold), read_number(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return same_number(numbers[0], numbers[1])
    if numbers[0] is not None:
        return False  # something that is to be computed does not answer a question for a number
    if _cases(gold, answer):
        return False
    first, second = (_complex(_read(text), gold) for text in (gold, answer))
    if numbers[1] is not None and numbers[1].form == "decimal":
        exact = _number(first)
        return exact is not None and numbers[1].significant >= MIN_SIGNIFICANT and _rounds(exact, numbers[1])
    return _same(first, second)


def proportional(gold_left: str, gold_right: str, left: str, right: str) -> bool:
    """Whether two equations differ by a constant factor only. One that holds for everything equals none."""
    if _cases(gold_left + gold_right, left + right):
        return False
    first, second = (_read(a) - _read(b) for a, b in ((gold_left, gold_right), (left, right)))
    if first.free_symbols != second.free_symbols or not first.free_symbols:
        return False
    ratios = []
    for point in _points(first.free_symbols):
        above, below = _value(first, point), _value(second, point)
        if above is None or below is None or abs(below) < 10**-_AGREEING or abs(above) < 10**-_AGREEING:
            return False
        ratios.append(above / below)
    return all(_close(ratios[0], ratio) for ratio in ratios)


def _cases(gold: str, answer: str) -> bool:
    """Whether some letter has another case in the two texts: the parser, to which R and r are one, does not tell."""
    first, second = _letters(gold), _letters(answer)
    return any(letter.swapcase() in first ^ second for letter in first | second)


def _complex(expression: Any, gold: str) -> Any:
    """`expression` with i as the imaginary unit, where i is the only name in the reference."""
    from sympy import I

    if "i" not in _letters(gold) or _letters(gold) - {"i", "e"}:
        return expression
    return expression.subs({name: I for name in expression.free_symbols if name.name == "i"})


def _letters(text: str) -> set[str]:
    return {letter for letter in re.sub(r"\\[A-Za-z]+", "", text) if letter.isalpha()}


def _same(first: Any, second: Any) -> bool:
    from sympy import Expr, oo

    if isinstance(first, Expr) and isinstance(second, Expr):
        if first in (oo, -oo) or second in (oo, -oo):
            return bool(first == second)
        if first.free_symbols != second.free_symbols:
            return False
        pairs = [(_value(first, at), _value(second, at)) for at in _points(first.free_symbols)]
        return all(a is not None and b is not None and _close(a, b) for a, b in pairs)
    from math_verify import verify

    return type(first) is type(second) and bool(
        verify(first, second, float_rounding=15, timeout_seconds=None, raise_on_error=True)
    )


def _points(symbols: Any) -> list[dict[Any, Any]]:
    """Random rational points, the same in every run; negative ones among them."""
    from sympy import Rational

    names = sorted(symbols, key=str)
    stream = random.Random("|".join(map(str, names)))
    signs: Sequence[int] = (1, -1, 1) if names else (1,)
    return [
        {name: sign * Rational(stream.randint(1_000, 9_999), stream.randint(1_000, 9_999)) for name in names}
        for sign in signs[: _POINTS if names else 1]
    ]


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    """The value at a point to `DIGITS` digits; None where there is none."""
    from sympy import nan, zoo

    value = expression.subs(point).doit().evalf(DIGITS)
    return value if value.is_number and not value.has(nan, zoo) else None


def _number(expression: Any) -> Any:
    from sympy import Expr

    if not isinstance(expression, Expr) or expression.free_symbols:
        return None
    value = _value(expression, {})
    return value if value is not None and value.is_real else None


def _close(first: Any, second: Any) -> bool:
    size = max(abs(first), abs(second))
    return bool(size == 0 or abs(first - second) <= size * 10**-_AGREEING)


def _rounds(exact: Any, written: Any) -> bool:
    from sympy import Rational

    value: Fraction = written.value
    return bool(abs(exact - Rational(value.numerator, value.denominator)) * 2 * 10**written.places < 1)


@lru_cache(maxsize=2048)
def _read(text: str) -> Any:
    """The sympy expression of `text`; raises `NotReadable`."""
    from latex2sympy2_extended.latex2sympy2 import latex2sympy
    from math_verify.grader import should_treat_as_complex
    from sympy import Basic, Float, Integer, MatrixBase, Rational

    logging.disable(logging.CRITICAL)
    letters = _letters(text)
    if any(letter.swapcase() in letters for letter in letters):
        raise NotReadable("a letter in both cases")
    try:
        read = latex2sympy(text, is_real=not should_treat_as_complex(text), normalization_config=None)
    except Exception as error:  # noqa: BLE001  the parser raises plain Exception, and whatever its actions raise
        raise NotReadable(str(error).splitlines()[0][:80] if str(error) else type(error).__name__) from None
    if not isinstance(read, Basic | MatrixBase):
        raise NotReadable(f"read as {type(read).__name__}")
    # Exact: 0.1 is a tenth, not the nearest binary number.
    read = read.xreplace({number: Rational(str(number)) for number in read.atoms(Float)})
    if any(int(number).bit_length() > _MAX_BITS for number in read.atoms(Integer)):
        raise NotReadable("too large to be computed")
    return read
