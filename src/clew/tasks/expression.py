"""Exact arithmetic over written expressions: a strict parser, the value, and one canonical form for equal answers.

The grammar is ASCII digits, `+ - * /`, brackets and spaces, and no more: no unary sign, no decimals, no
power, no names. Text is parsed, never evaluated by Python. Every input is judged in bounded time.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final, Literal, NamedTuple, cast

Operator = Literal["+", "-", "*", "/"]
OPERATORS: Final[tuple[Operator, ...]] = ("+", "-", "*", "/")
MAX_LENGTH: Final = 256
"""Characters; eight numbers of four digits with every bracket and space take about 110."""
MAX_DEPTH: Final = 32
"""Brackets inside brackets."""
TOO_LONG: Final = f"longer than {MAX_LENGTH} characters"

_TOKEN = re.compile(r" *([0-9]+|[-+*/()])")
_OPERATIONS: dict[Operator, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


class NotAnExpression(ValueError):
    """The text is outside the grammar; the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class Number:
    value: int


@dataclass(frozen=True, slots=True)
class Binary:
    op: Operator
    left: Node
    right: Node


Node = Number | Binary


def parse(text: str) -> Node:
    """The tree of `text`; raises `NotAnExpression` for anything outside the grammar.

    >>> parse("3 * (5 - 2)")
    Binary(op='*', left=Number(value=3), right=Binary(op='-', left=Number(value=5), right=Number(value=2)))
    """
    tokens = tokenize(text)
    node, position = _sum(tokens, 0, 0)
    if position < len(tokens):
        raise NotAnExpression(f"unexpected {tokens[position]!r}")
    return node


def tokenize(text: str) -> list[str]:
    """Numbers, operators and brackets of `text` in order; raises `NotAnExpression` for anything else."""
    if len(text) > MAX_LENGTH:
        raise NotAnExpression(TOO_LONG)
    tokens: list[str] = []
    position, text = 0, text.rstrip(" ")
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotAnExpression(f"unexpected {text[position:].lstrip(' ')[0]!a}")
        token = match[1]
        if len(token) > 1 and token[0] == "0":
            raise NotAnExpression(f"{_short(token)!r} has a leading zero")
        if tokens and tokens[-1] == token and token in "*/":
            raise NotAnExpression(f"unexpected {token * 2!r}")
        tokens.append(token)
        position = match.end()
    if not tokens:
        raise NotAnExpression("nothing is written")
    return tokens


def _short(token: str) -> str:
    return token if len(token) <= 12 else token[:9] + "..."


def _sum(tokens: list[str], position: int, depth: int) -> tuple[Node, int]:
    node, position = _product(tokens, position, depth)
    while position < len(tokens) and tokens[position] in "+-":
        op = cast(Operator, tokens[position])
        right, position = _product(tokens, position + 1, depth)
        node = Binary(op, node, right)
    return node, position


def _product(tokens: list[str], position: int, depth: int) -> tuple[Node, int]:
    node, position = _atom(tokens, position, depth)
    while position < len(tokens) and tokens[position] in "*/":
        op = cast(Operator, tokens[position])
        right, position = _atom(tokens, position + 1, depth)
        node = Binary(op, node, right)
    return node, position


def _atom(tokens: list[str], position: int, depth: int) -> tuple[Node, int]:
    if position == len(tokens):
        raise NotAnExpression("it ends too early")
    token = tokens[position]
    if token[0].isdigit():
        return Number(int(token)), position + 1
    if token != "(":
        raise NotAnExpression(f"unexpected {token!r}")
    if depth == MAX_DEPTH:
        raise NotAnExpression(f"more than {MAX_DEPTH} brackets deep")
    node, position = _sum(tokens, position + 1, depth + 1)
    if position == len(tokens) or tokens[position] != ")":
        found = "a bracket is not closed" if position == len(tokens) else f"unexpected {tokens[position]!r}"
        raise NotAnExpression(found)
    return node, position + 1


def apply(op: Operator, left: Fraction, right: Fraction) -> Fraction | None:
    """The exact value of one operation; None if it divides by zero."""
    if op == "/" and right == 0:
        return None
    return _OPERATIONS[op](left, right)


def evaluate(node: Node) -> Fraction | None:
    """The exact value; None if some division is by zero.

    >>> evaluate(parse("7 / 2 - 3"))
    Fraction(1, 2)
    """
    ratio = _ratio(node)
    return None if ratio is None else Fraction(*ratio)


def _ratio(node: Node) -> tuple[int, int] | None:
    """Numerator and denominator, not reduced: several times faster than a `Fraction` at every step."""
    if isinstance(node, Number):
        return node.value, 1
    left, right = _ratio(node.left), _ratio(node.right)
    if left is None or right is None:
        return None
    (a, b), (c, d) = left, right
    match node.op:
        case "+":
            return a * d + c * b, b * d
        case "-":
            return a * d - c * b, b * d
        case "*":
            return a * c, b * d
        case "/":
            return (a * d, b * c) if c else None


def leaves(node: Node) -> list[int]:
    """The numbers as written, from left to right."""
    return [node.value] if isinstance(node, Number) else leaves(node.left) + leaves(node.right)


class Form(NamedTuple):
    """A number, a sum of signed items or a product of items and divisors, with sorted operands.

    Forms are equal exactly if their `text` is; the order of the fields is their sorting order.
    """

    compound: bool
    number: int
    text: str
    kind: Literal["number", "sum", "product"]
    upper: tuple[Form, ...] = ()
    """Items that are added, or multiplied."""
    lower: tuple[Form, ...] = ()
    """Items that are subtracted, or divided by."""


def number_form(value: int) -> Form:
    """The form of a single number."""
    return Form(False, value, str(value), "number")


def combine(op: Operator, left: Form, right: Form) -> Form:
    """The form of `left op right`: nested sums, and nested products, become flat."""
    kind: Literal["sum", "product"] = "sum" if op in "+-" else "product"
    left_upper, left_lower = (left.upper, left.lower) if left.kind == kind else ((left,), ())
    right_upper, right_lower = (right.upper, right.lower) if right.kind == kind else ((right,), ())
    if op in "-/":
        right_upper, right_lower = right_lower, right_upper
    upper, lower = tuple(sorted(left_upper + right_upper)), tuple(sorted(left_lower + right_lower))
    joiner, remover = (" + ", " - ") if kind == "sum" else (" * ", " / ")
    texts = [f"({form.text})" if form.kind == "sum" else form.text for form in upper + lower]
    text = remover.join([joiner.join(texts[: len(upper)]), *texts[len(upper) :]])
    return Form(True, 0, text, kind, upper, lower)


def form(node: Node) -> Form:
    """The canonical form of a tree."""
    return number_form(node.value) if isinstance(node, Number) else combine(node.op, form(node.left), form(node.right))


def canonical(node: Node) -> str:
    """One text for all trees that differ only by the commutative and associative laws of + with - and * with /.

    Brackets are the fewest possible, and the text parses to an equal tree. Signs are not moved between
    factors: `(a - b) * (c - d)` and `(b - a) * (d - c)` stay different answers.

    >>> canonical(parse("6 / (2 / 3)")), canonical(parse("(9 - 5) + 2"))
    ('3 * 6 / 2', '2 + 9 - 5')
    """
    return form(node).text


class Reading(NamedTuple):
    """What a verifier wants to know of an expression: its canonical form, its numbers as written, and its value."""

    canonical: str
    numbers: tuple[int, ...]
    value: Fraction | None
    """None if some division is by zero."""


def read(text: str) -> Reading | str:
    """The expression in `text`, or in few words why there is none. Cached: policies repeat themselves."""
    # Checked here too, so that the cache never holds on to a long text.
    return TOO_LONG if len(text) > MAX_LENGTH else _read(text)


@lru_cache(maxsize=1 << 14)
def _read(text: str) -> Reading | str:
    try:
        node = parse(text)
    except NotAnExpression as error:
        return str(error)
    return Reading(canonical(node), tuple(leaves(node)), evaluate(node))
