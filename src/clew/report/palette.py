"""Colours, by role: one table that the plots, the page and the terminal all read.

A plot is drawn in the light colours; each is then replaced by a CSS variable, so that the same SVG is
readable on a dark page. The categorical hues are those of Okabe and Ito (2008), which colour-blind readers
can tell apart; where order matters (stages) one hue goes from pale to strong instead.
"""

from __future__ import annotations

from typing import NamedTuple

from clew.initialize.behaviours import Behaviour


class Ink(NamedTuple):
    """A colour role: its CSS variable, and its hex value on a light and on a dark page."""

    name: str
    light: str
    dark: str

    @property
    def css(self) -> str:
        return f"var(--{self.name}, {self.light})"


PAPER = Ink("paper", "#fdfdfb", "#14171a")
TEXT = Ink("text", "#1b1f23", "#e8e6e1")
MUTED = Ink("muted", "#5f666d", "#a2a8ae")
RULE = Ink("rule", "#dedcd6", "#30353a")

BLUE = Ink("blue", "#0072b2", "#5cb3ec")
VERMILION = Ink("vermilion", "#be4a06", "#f29160")
GREEN = Ink("green", "#00805d", "#3fc6a0")
PURPLE = Ink("purple", "#b0558a", "#e5a0c6")
ORANGE = Ink("orange", "#b07d00", "#e9b94d")
SLATE = Ink("slate", "#5b6b8c", "#a9b6d3")

SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SLATE)
MARKERS = ("o", "s", "D", "^", "v", "P")

RAMP = (
    Ink("ramp-1", "#c3ccd4", "#66727e"),
    Ink("ramp-2", "#9fbfd8", "#4c7da5"),
    Ink("ramp-3", "#5a9bc9", "#4f93c4"),
    Ink("ramp-4", "#1f6da6", "#83c3ef"),
    Ink("ramp-5", "#0b3556", "#d3ebff"),
)

ROLES = (PAPER, TEXT, MUTED, RULE, *SERIES, *RAMP)

BEHAVIOUR: dict[Behaviour, Ink] = {
    Behaviour.ANALYSIS: SLATE,
    Behaviour.DECOMPOSITION: PURPLE,
    Behaviour.COMPLETION: BLUE,
    Behaviour.ALTERNATIVE: ORANGE,
    Behaviour.EVALUATION: GREEN,
    Behaviour.CORRECTION: VERMILION,
}


def ramp(n: int) -> list[Ink]:
    """`n` inks from pale to strong; the last is always the strongest.

    >>> [ink.name for ink in ramp(2)]
    ['ramp-2', 'ramp-5']
    """
    spread = {1: [4], 2: [1, 4], 3: [1, 2, 4], 4: [0, 1, 3, 4]}
    places = spread.get(n) or [round(i * (len(RAMP) - 1) / max(n - 1, 1)) for i in range(n)]
    return [RAMP[i] for i in places]
