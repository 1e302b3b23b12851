r"""The outermost shape of a mathematical answer: one value, a set or list, a tuple or interval, a union, an equation.

Parsers of LaTeX confuse these: `(1,2)` and `\{1,2\}` are one to them, `(2,1)` is the empty set, `5 = 6` is 6. They are
told apart here, from the brackets, and only values and the two sides of equations go to a parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

MAX_PARTS = 40

Kind = Literal["value", "set", "tuple", "union", "equation", "relation"]

_RELATIONS = re.compile(r"\\(?:le|ge|ne)(?![A-Za-z])|[<>]")
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?[A-Za-z0-9]{1,3}\}?)?|[a-zA-Z]\([a-z]\)")
_MEMBER = re.compile(rf"({_VARIABLE.pattern})\\in(?![A-Za-z])(.*)", re.DOTALL)
_SEPARATOR = re.compile(r"(?<![A-Za-z])(?:,?\s*\b(?:and|or)\b)(?![A-Za-z])")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


@dataclass(frozen=True, slots=True)
class Shape:
    """A normalised answer taken apart once."""

    kind: Kind
    text: str = ""
    """Of a value."""
    parts: tuple[Shape, ...] = ()
    brackets: str = ""
    """Of a tuple or interval: `()`, `[)`, ..."""
    variable: str = ""
    """That the set or interval is said to be of: `x` in `x > 3`."""
    operator: str = ""


def shape(text: str) -> Shape:
    r"""The shape of normalised `text`.

    >>> shape(r"x\in(1,2]").brackets, shape("1<x\\le 2").brackets, shape("3,4").kind, shape("x=3").kind
    ('(]', '(]', 'set', 'equation')
    """
    text = text.strip()
    if member := _MEMBER.fullmatch(text):
        return replace(shape(member[2]), variable=member[1])
    if text == r"\emptyset" or text == r"\{\}":
        return Shape("set")
    if text.startswith(r"\{") and text.endswith(r"\}") and "|" not in text and r"\}" not in text[2:-2]:
        return Shape("set", parts=tuple(map(shape, split(text[2:-2], ","))))
    if len(unions := split(text, r"\cup")) > 1:
        return Shape("union", parts=tuple(map(shape, unions)))
    if _encloses(text) and len(inner := split(text[1:-1], ",")) > 1:
        return Shape("tuple", parts=tuple(map(shape, inner)), brackets=text[0] + text[-1])
    if len(listed := split(_SEPARATOR.sub(",", text), ",")) > 1:
        return Shape("set", parts=tuple(map(shape, listed)))
    if len(re.findall(r"\\(?:pm|mp)(?![A-Za-z])", text)) == 1:
        return Shape("set", parts=tuple(shape(re.sub(r"\\(?:pm|mp)\s*", sign, text)) for sign in "+-"))
    return _statement(text)


def _statement(text: str) -> Shape:
    if len(sides := split(text, "=")) == 2:
        return Shape("equation", parts=(Shape("value", sides[0]), Shape("value", sides[1])))
    operators = _RELATIONS.findall(text)
    if not operators:
        return Shape("value", text)
    sides = [side.strip() for side in _RELATIONS.split(text)]
    if r"\ne" in operators or not 2 <= len(sides) <= 3 or any(_VARIABLE.fullmatch(s) for s in sides[::2] if sides[2:]):
        return Shape("relation", text)
    return _range(sides, operators) or Shape("relation", text)


def _range(sides: Sequence[str], operators: Sequence[str]) -> Shape | None:
    """The interval that `x > 3` or `1 < x <= 2` says."""
    if len(sides) == 2 and _VARIABLE.fullmatch(sides[1]):
        sides, operators = (sides[1], sides[0]), (_FLIPPED[operators[0]],)
    if len(sides) == 2:
        variable, bound = sides
        below = operators[0] in ("<", r"\le")
        ends = (r"-\infty", bound) if below else (bound, r"\infty")
        closed = operators[0] in (r"\le", r"\ge")
        brackets = "(" + ("]" if closed else ")") if below else ("[" if closed else "(") + ")"
    else:
        if operators[0] in (">", r"\ge"):
            sides, operators = tuple(reversed(sides)), tuple(_FLIPPED[operator] for operator in reversed(operators))
        if any(operator not in ("<", r"\le") for operator in operators):
            return None
        ends, variable = (sides[0], sides[2]), sides[1]
        brackets = ("[" if operators[0] == r"\le" else "(") + ("]" if operators[1] == r"\le" else ")")
    if not _VARIABLE.fullmatch(variable) or not all(ends):
        return None
    return Shape("tuple", parts=tuple(Shape("value", end) for end in ends), brackets=brackets, variable=variable)


def split(text: str, separator: str) -> list[str]:
    r"""`text` at each `separator` outside of all brackets; commas that group thousands separate nothing.

    >>> split("(1,2),3", ","), split("1,234", ",")
    (['(1,2)', '3'], ['1,234'])
    """
    if separator == "," and re.fullmatch(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?", text):
        return [text]
    parts, start, depth = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and text.startswith(separator, index):
            parts.append(text[start:index].strip())
            start = index + len(separator)
    parts.append(text[start:].strip())
    return parts if len(parts) <= MAX_PARTS else [text]


def _encloses(text: str) -> bool:
    """Whether the first bracket, round or square, is closed by the last character."""
    if len(text) < 2 or text[0] not in "([" or text[-1] not in ")]":
        return False
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return index == len(text) - 1
    return False


def same(gold: Shape, answer: Shape, equal: Callable[[str, str], bool], proportional: Callable[..., bool]) -> bool:
    """Whether the answer says what the reference says.

    Sets and unions compare without order and must not repeat an element; tuples and intervals compare in order and by
    their brackets. `equal` compares two values; `proportional` two equations, each given as its two sides.
    """
    return _alike(*_named_alike(gold, answer), equal, proportional)


def _alike(gold: Shape, answer: Shape, equal: Callable[[str, str], bool], proportional: Callable[..., bool]) -> bool:
    if gold.kind != answer.kind or (gold.variable and answer.variable and gold.variable != answer.variable):
        return False
    match gold.kind:
        case "value":
            return equal(gold.text, answer.text)
        case "relation":
            return gold.text == answer.text
        case "equation":
            return _same_equation(gold, answer, equal, proportional)
        case "tuple":
            alike = gold.brackets == answer.brackets and len(gold.parts) == len(answer.parts)
            return alike and all(
                _alike(g, a, equal, proportional) for g, a in zip(gold.parts, answer.parts, strict=True)
            )
        case "set" | "union":
            return _same_elements(list(gold.parts), list(answer.parts), equal, proportional)


def _named_alike(gold: Shape, answer: Shape) -> tuple[Shape, Shape]:
    """Both without the name of the one unknown, where only one of the two gives it: `x = 5` and `5`."""
    if answer.kind == "equation" and gold.kind != "equation":
        return gold, _assigned(answer) or answer
    if gold.kind == "equation" and answer.kind != "equation":
        return _assigned(gold) or gold, answer
    if gold.kind == answer.kind == "set" and all(part.kind != "equation" for part in gold.parts):
        names = {part.parts[0].text for part in answer.parts if part.kind == "equation"}
        values = tuple(_assigned(part) or part for part in answer.parts)
        return gold, replace(answer, parts=values) if len(names) == 1 else answer
    return gold, answer


def _assigned(equation: Shape) -> Shape | None:
    """The right side of an equation whose left side is one name."""
    if equation.kind == "equation" and _VARIABLE.fullmatch(equation.parts[0].text):
        return shape(equation.parts[1].text)
    return None


def _same_equation(
    gold: Shape, answer: Shape, equal: Callable[[str, str], bool], proportional: Callable[..., bool]
) -> bool:
    name = gold.parts[0].text
    if _VARIABLE.fullmatch(name) and not re.search("[a-z]", re.sub(r"\\[A-Za-z]+", "", gold.parts[1].text)):
        # Where the unknown is to be found, 2x = 10 leaves that to the reader.
        return answer.parts[0].text == name and equal(gold.parts[1].text, answer.parts[1].text)
    return proportional(*(part.text for part in (*gold.parts, *answer.parts)))


def _same_elements(
    gold: list[Shape], answer: list[Shape], equal: Callable[[str, str], bool], proportional: Callable[..., bool]
) -> bool:
    if len(gold) != len(answer):
        return False
    for part in gold:
        found = next((i for i, other in enumerate(answer) if _alike(part, other, equal, proportional)), None)
        if found is None:
            return False
        answer.pop(found)
    return True
