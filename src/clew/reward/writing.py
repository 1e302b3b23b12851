"""Rewards of how a response is written: its format, its repetitions, its language. All in time linear in its length."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, final

from clew.core.errors import InvalidValue
from clew.core.types import Group

EACH_A_WORD = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"})
"""Scripts written without spaces: each letter of them counts as a word."""


def markers_in_order(text: str, markers: Sequence[str]) -> bool:
    """Whether each of `markers` stands in `text` exactly once, and they come in this order.

    >>> markers_in_order("<think> 3 * 5 </think> answer 15", ["<think>", "</think>", "answer"])
    True
    """
    start = 0
    for marker in markers:
        if text.count(marker) != 1:
            return False
        at = text.find(marker, start)
        if at < 0:
            return False
        start = at + len(marker)
    return True


def repeated_share(tokens: Sequence[int], n: int) -> float:
    """1 - distinct n-grams / n-grams of `tokens`; 0 if there are fewer than n of them.

    >>> repeated_share([1, 2, 1, 2, 1, 2], 2)
    0.6
    """
    grams = len(tokens) - n + 1
    return 1.0 - len(set(zip(*(tokens[i:] for i in range(n)), strict=False))) / grams if grams > 0 else 0.0


def script_share(text: str, scripts: frozenset[str]) -> float:
    """Share of the words of `text` that are written in one of `scripts`; 1 for a text without words.

    Scripts are the first words of Unicode's names of letters (LATIN, CYRILLIC, CJK); numbers and signs are of none. A
    word is a run of letters of one script, except in scripts without spaces, where it is a letter.

    >>> script_share("nine times 五 is 45", frozenset({"LATIN"}))
    0.75
    """
    words = list(_words(text))
    return sum(script in scripts for script in words) / len(words) if words else 1.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Term: `weight` for a finished response in which every marker stands once, in their order; else 0."""

    name: ClassVar[str] = "format"

    markers: str = "answer"
    """Separated by spaces, such as `<think> </think> <answer> </answer>`."""
    weight: float = 0.1

    def __post_init__(self) -> None:
        if not self.markers.split():
            raise InvalidValue("format markers", self.markers, "at least one marker", "use answer")

    def rate(self, group: Group) -> list[float]:
        markers = self.markers.split()
        return [self.weight * (t.state.finished and markers_in_order(t.text, markers)) for t in group.trajectories]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """Term: minus the share of the response's n-grams that occurred before, in [-weight, 0]."""

    name: ClassVar[str] = "repetition"

    n: int = 3
    """Tokens of an n-gram."""
    weight: float = 0.1

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InvalidValue("repetition n", self.n, "an integer of at least 1", "use 3")

    def rate(self, group: Group) -> list[float]:
        return [-self.weight * repeated_share(t.state.tokens, self.n) for t in group.trajectories]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """Term: the share of words in the script of the language asked for (DeepSeek-R1, arXiv 2501.12948, section 2.3.2).

    Scripts, not languages: it sees Chinese in an English text, not French.
    """

    name: ClassVar[str] = "language"

    scripts: str = "latin"
    """Separated by spaces, such as `hiragana katakana cjk`."""
    weight: float = 0.1

    def __post_init__(self) -> None:
        if not self.scripts.split():
            raise InvalidValue("language scripts", self.scripts, "at least one script", "use latin")

    def rate(self, group: Group) -> list[float]:
        scripts = frozenset(self.scripts.upper().split())
        return [self.weight * script_share(t.text, scripts) for t in group.trajectories]


def _words(text: str) -> Iterator[str]:
    """The script of each word."""
    before = ""
    for letter in text:
        script = _script(letter)
        if script == "COMBINING":
            continue
        if script and (script != before or script in EACH_A_WORD):
            yield script
        before = script


@lru_cache(maxsize=1 << 12)
def _script(letter: str) -> str:
    """First word of the letter's name; empty for what is no letter."""
    kind = unicodedata.category(letter)
    if kind[0] == "M":
        return "COMBINING"
    return unicodedata.name(letter, "").partition(" ")[0] if kind[0] == "L" else ""
