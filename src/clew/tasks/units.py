r"""Units behind an answer (`5 \text{ cm}`, `\$5`, `30^\circ`): taken off, named alike, and never just dropped."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAMES = {
    "mm": "mm millimeter millimetre",
    "cm": "cm centimeter centimetre",
    "m": "m meter metre",
    "km": "km kilometer kilometre",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard",
    "mi": "mi mile",
    "g": "g gram",
    "kg": "kg kilogram kilo",
    "lb": "lb lbs pound",
    "oz": "oz ounce",
    "l": "l liter litre",
    "ml": "ml milliliter millilitre",
    "s": "s sec second",
    "min": "min minute",
    "h": "h hr hour",
    "day": "day",
    "year": "year yr",
    "mph": "mph",
    "km/h": "km/h kmh kph",
    "m/s": "m/s",
    "degree": "degree deg °",
    "dollar": "dollar usd $",
    "cent": "cent ¢",
    "euro": "euro eur €",
    "sterling": "gbp £",
}
_CANONICAL = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_PREFIXES = {r"\$": "dollar", "$": "dollar", "£": "sterling", "€": "euro"}
_DEGREE = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|°)$")
_TEXT = re.compile(r"\s*\\text\s*\{\s*(?P<unit>[^{}\\$]{1,60}?)\s*\}(?:\s*\^\s*\{?\s*(?P<power>[23])\s*\}?)?$")
_PLAIN = re.compile(
    r"(?<=[0-9.}])\s+(?P<unit>[A-Za-z]{1,20}(?:[ /][A-Za-z]{1,20}){0,3})(?:\s*\^\s*\{?(?P<power>[23])\}?)?$"
)
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_NOT_UNITS = frozenset(("and", "or", "not", "but", "if", "is", "to", "maybe", "percent"))


class Measured(NamedTuple):
    """A value, and the canonical name of its unit, empty if it has none."""

    value: str
    unit: str


def measured(text: str) -> Measured:
    r"""`text` in two: its value and its unit.

    >>> measured(r"5\text{ centimeters}"), measured("3 square meters")
    (Measured(value='5', unit='cm'), Measured(value='3', unit='m^2'))
    """
    for prefix, unit in _PREFIXES.items():
        if text.startswith(prefix):
            return Measured(text[len(prefix) :].strip(), unit)
    if degree := _DEGREE.search(text):
        return Measured(text[: degree.start()], "degree")
    match = _TEXT.search(text) or _PLAIN.search(text)
    if match is None or not text[: match.start()].strip():
        return Measured(text, "")
    words = match["unit"].lower().split()
    if any(word in _NOT_UNITS for word in words):
        return Measured(text, "")
    return Measured(text[: match.start()].rstrip(" ~"), _canonical(words, match["power"]))


def _canonical(words: list[str], power: str | None) -> str:
    if len(words) > 1 and words[0] in _POWERS:
        words, power = words[1:], _POWERS[words[0]]
    unit = " ".join(_CANONICAL.get(word) or _CANONICAL.get(_singular(word)) or _singular(word) for word in words)
    return f"{unit}^{power}" if power else unit


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 2 and word.endswith("s") else word


def unit_fits(answer: str, gold: str, question: str) -> bool:
    """Whether a unit of the answer may stand there: none, that of the reference answer, or one that the question names.

    Degrees need no naming: whoever asks for an angle seldom does.
    """
    if answer in ("", gold):
        return True
    return not gold and (answer == "degree" or answer in _units_of(question))


def _units_of(question: str) -> set[str]:
    found = {unit for sign, unit in _PREFIXES.items() if sign in question}
    words = re.findall(r"[a-z]+(?:/[a-z]+)?", question.lower()[:20_000])
    for before, word in zip(["", *words], words, strict=False):
        unit = _canonical([word], None)
        found |= {unit, f"{unit}^2", f"{unit}^3", f"{_singular(before)} {unit}"}
    return found
