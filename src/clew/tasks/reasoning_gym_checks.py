"""Comparisons of an answer with the right one, stricter than scorers that accept more. Pure and in bounded time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from clew.tasks.expression import NotAnExpression, evaluate, leaves, parse
from clew.tasks.tagged_answer import tidy


class Given(NamedTuple):
    """An answer, the right answer that the task keeps (empty if none), and the question."""

    answer: str
    gold: str
    question: str


Check = Callable[[Given], bool]

_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,400})(?:\.[0-9]{1,400})?")
_SIGNED = re.compile(r"[-+]?[0-9]{1,400}(?:\.[0-9]{1,400})?")
_LEADING_MINUS = re.compile(r"(^|\() *-")


def by_scorer(given: Given) -> bool:
    """Whatever the scorer gives full marks to."""
    return True


def same(given: Given) -> bool:
    """The same text, but for white space at the ends of lines."""
    return tidy(given.answer) == tidy(given.gold)


def same_caseless(given: Given) -> bool:
    """The same text in any letter case."""
    return tidy(given.answer).lower() == tidy(given.gold).lower()


def same_letters(given: Given) -> bool:
    """The same text in any letter case, without spaces."""
    return given.answer.replace(" ", "").lower() == given.gold.replace(" ", "").lower()


def same_words(given: Given) -> bool:
    """The same words in the same order, in any letter case."""
    return given.answer.lower().split() == given.gold.lower().split()


def same_list(given: Given) -> bool:
    """The same items between commas, in the same order."""
    return [item.strip() for item in given.answer.split(",")] == [item.strip() for item in given.gold.split(",")]


def same_cells(given: Given) -> bool:
    """The same lines of the same cells."""
    return [line.split() for line in given.answer.split("\n")] == [line.split() for line in given.gold.split("\n")]


def same_number(given: Given) -> bool:
    """One plain number that equals the right one: digits, a sign, a point, commas between thousands."""
    number = _NUMBER.fullmatch(given.answer)
    return bool(number) and Decimal(given.answer.replace(",", "")) == Decimal(given.gold.replace(",", ""))


def same_numbers(given: Given) -> bool:
    """As many numbers as the right answer has, equal one by one, line by line."""
    ours, theirs = given.answer.split("\n"), given.gold.split("\n")
    return [_numbers(line) for line in ours] == [_numbers(line) for line in theirs]


def _numbers(line: str) -> list[Decimal]:
    return [Decimal(number) for number in _SIGNED.findall(line)]


def same_solutions(given: Given) -> bool:
    """The same numbers between commas, in any order."""
    ours, theirs = given.answer.split(","), given.gold.split(",")
    if not all(_SIGNED.fullmatch(number.strip()) for number in ours + theirs):
        return False
    return sorted(Decimal(number.strip()) for number in ours) == sorted(Decimal(number.strip()) for number in theirs)


def same_to_a_thousandth(given: Given) -> bool:
    """A number or fraction that differs from the right one by at most a thousandth of it."""
    try:
        ours, theirs = Fraction(given.answer.replace(" ", "")), Fraction(given.gold)
    except (ValueError, ZeroDivisionError):
        return False
    return abs(ours - theirs) * 1000 <= abs(theirs)


def same_json(given: Given) -> bool:
    """Equal as JSON, no key twice."""
    ours = read_json(given.answer)
    return ours is not None and ours == read_json(given.gold)


def as_many_items(given: Given) -> bool:
    """A list in JSON with as many items as the right one."""
    ours, theirs = _loaded(given.answer), _loaded(given.gold)
    return isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs)


def same_keys(given: Given) -> bool:
    """An object in JSON with the keys of the right one, each once, and whole numbers as values."""
    ours, theirs = _loaded(given.answer), _loaded(given.gold)
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return False
    return ours.keys() == theirs.keys() and all(type(value) is int for value in ours.values())


def read_json(text: str) -> str | None:
    """The canonical text of a JSON value; None if `text` is none, or says one key twice."""
    value = _loaded(text)
    try:
        return None if value is _NOTHING else json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        return None


_NOTHING = object()


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return _NOTHING


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def as_many_pairs(given: Given) -> bool:
    """As many `letter=digit` as the right answer, no letter twice."""
    letters = [pair.partition("=")[0].strip() for pair in given.answer.split(",")]
    return len(letters) == len(set(letters)) == given.gold.count("=")


def as_many_terms(given: Given) -> bool:
    """A sum of as many terms as the right one."""
    return _terms(given.answer) == _terms(given.gold)


def _terms(text: str) -> int:
    return len(re.findall(r"[-+]", text.replace(" ", "").lstrip("-+")))


def as_many_statements(given: Given) -> bool:
    """As many statements as the right answer has."""
    return given.answer.count(" is ") == given.gold.count(" is ")


def same_arithmetic(given: Given) -> bool:
    """An expression with exactly the right one's value, over exactly its numbers."""
    ours, theirs = _exact(given.answer), _exact(given.gold)
    return ours is not None and ours == theirs


def _exact(text: str) -> tuple[Fraction, list[int]] | None:
    """Value and sorted numbers; a minus in front of a bracket or of all becomes `0 -`, whose zero is not counted."""
    text, signs = _LEADING_MINUS.subn(r"\g<1>0 - ", text)
    try:
        node = parse(text)
    except NotAnExpression:
        return None
    value, numbers = evaluate(node), sorted(leaves(node))
    return None if value is None else (value, numbers[signs:])


def not_a_premise(given: Given) -> bool:
    """Not one of the statements that the question gives, with or without brackets around it."""
    ours = _bare(given.answer)
    premises = re.findall(r"^\.?[0-9]+\. (.+)$", given.question, re.MULTILINE)
    return all(ours != _bare(premise) for premise in premises)


def _bare(statement: str) -> str:
    text = re.sub(r"\s", "", statement)
    while text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    return text
