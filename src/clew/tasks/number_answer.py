r"""Numbers as people write them: `1,234`, `-0.5`, `3/4`, `\frac{3}{4}`, `2 1/2`, `1.5 \times 10^{3}`, `12\%`.

They are read exactly and nothing is computed: `7*8` is not a number, it is a question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

MIN_SIGNIFICANT = 6
"""Digits that a rounded number must show to stand for one that is not a finite decimal."""

_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|0|[1-9][0-9]{0,399})"
_POWER_OF_TEN = r"\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*(?P<braced>[+-]?[0-9]{1,3})\s*\}|(?P<bare>[0-9]{1,3}))"
_DECIMAL = re.compile(
    rf"(?P<whole>{_INTEGER})?(?:\.(?P<after>[0-9]{{1,400}}))?(?:[eE](?P<e>[+-]?[0-9]{{1,3}})|{_POWER_OF_TEN})?"
)
_SLASH = r"(?P<n>[0-9]{1,400})\s*/\s*(?P<d>[0-9]{1,400})"
_FRAC = r"\\frac\s*\{\s*(?P<fn>[+-]?[0-9]{1,400})\s*\}\s*\{\s*(?P<fd>[0-9]{1,400})\s*\}"
_FRACTION = re.compile(rf"{_SLASH}|{_FRAC}")
_MIXED = re.compile(rf"(?P<units>[1-9][0-9]{{0,399}})(?:\s+{_SLASH}|\s*{_FRAC})")
_PERCENT = re.compile(r"\s*(?:\\?%|\bpercent|\bper cent)$", re.IGNORECASE)

Form = Literal["integer", "decimal", "fraction", "scientific"]


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written."""

    value: Fraction
    """Without regard to a percent sign."""
    form: Form
    places: int = 0
    """Digits behind the point."""
    significant: int = 0
    """Digits from the first that is not zero, of a decimal."""
    percent: bool = False

    @property
    def exact(self) -> Fraction:
        """The value; a percent is a hundredth."""
        return self.value / 100 if self.percent else self.value

    def __str__(self) -> str:
        return f"{self.value}%" if self.percent else str(self.value)


def read_number(text: str) -> Number | None:
    r"""The number that `text` is, all of it; None if it is none.

    >>> read_number("1,234.50").value, read_number(r"2\frac{1}{2}").value, read_number("7*8"), read_number("1 2")
    (Fraction(2469, 2), Fraction(5, 2), None, None)
    """
    text = text.strip()
    negative = text[:1] == "-"
    if text[:1] in ("-", "+"):
        text = text[1:].lstrip()
    bare = _PERCENT.sub("", text)
    number = _decimal(bare) or _fraction(bare)
    if number is None:
        return None
    value = -number.value if negative else number.value
    return Number(value, number.form, number.places, number.significant, bare != text)


def _decimal(text: str) -> Number | None:
    match = _DECIMAL.fullmatch(text)
    if match is None or (match["whole"] is None and match["after"] is None):
        return None
    whole, after = (match["whole"] or "0").replace(",", ""), match["after"] or ""
    value = Fraction(int(whole + after), 10 ** len(after))
    exponent = match["e"] or match["braced"] or match["bare"]
    if exponent is not None:
        return Number(value * Fraction(10) ** int(exponent), "scientific")
    if match["after"] is None:
        return Number(value, "integer")
    return Number(value, "decimal", len(after), len((whole + after).lstrip("0")))


def _fraction(text: str) -> Number | None:
    match = _FRACTION.fullmatch(text) or _MIXED.fullmatch(text)
    if match is None:
        return None
    above = int(match["n"] or match["fn"])
    below = int(match["d"] or match["fd"])
    units = int(match["units"]) if "units" in match.re.groupindex else None
    if below == 0 or (units is not None and not 0 < above < below):
        return None
    return Number(Fraction(above, below) + (units or 0), "fraction")


def same_number(gold: Number, answer: Number) -> bool:
    """Whether `answer` is the number `gold`.

    Equality is exact. One tolerance: for a number that is no finite decimal (1/3), a decimal is right that is this
    number correctly rounded and shows at least six significant digits (0.333333), and the other way round. Percent are
    hundredths (50% is 0.5); if `gold` is in percent, the sign may be left out. A fraction is no answer where the
    number is whole: 10/2 leaves the division to the reader.
    """
    if answer.form == "fraction" and gold.form != "fraction" and answer.value.denominator == 1:
        return False
    if answer.exact == gold.exact:
        return True
    if gold.percent and not answer.percent:
        return answer.value == gold.value
    if gold.percent != answer.percent:
        return False
    if gold.form == "decimal" and answer.form != "decimal":
        return rounds_to(answer.value, gold)
    return answer.form == "decimal" and gold.form != "decimal" and rounds_to(gold.value, answer)


def rounds_to(exact: Fraction, written: Number) -> bool:
    """Whether `written` is `exact`, which no finite decimal is, rounded to the digits shown, of which there are enough.

    >>> [rounds_to(Fraction(2, 3), read_number(text)) for text in ("0.666667", "0.666666", "0.6667")]
    [True, False, False]
    """
    if written.significant < MIN_SIGNIFICANT or is_finite_decimal(exact):
        return False
    return bool(abs(exact - written.value) * 2 * 10**written.places < 1)


def is_finite_decimal(value: Fraction) -> bool:
    """Whether some finite decimal is `value`."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1
