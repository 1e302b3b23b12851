"""The words and phrases that clew's own small models write as single tokens. Anything else is spelled in bytes."""

from __future__ import annotations

LARGEST_NUMBER = 99
"""Whole numbers from 0 to this are one token each."""

PAD, END, USER, THINK, DIRECT, TEXT = "<|pad|>", "<|end|>", "<|user|>", "<|think|>", "<|direct|>", "<|text|>"
SPECIAL = (PAD, END, USER, THINK, DIRECT, TEXT)

PROMPT_WORDS = ("make", "from", "compute", "maze", "go")
BEHAVIOUR_WORDS = ("have", "plan", "need", "try", "left", "or", "no", "yes", "back", "answer")
SYMBOLS = ("+", "-", "*", "/", "(", ")", "=", ";", ",", ".", ":", "#", "S", "G", "up", "down", "right")
"""`left` is both a behaviour word (what is left) and a direction."""


OPERATORS = ("+", "-", "*", "/", "=")
"""What makes one token with a number after it: half of thinking is arithmetic, and `+ 8` is one thought."""


def words() -> tuple[str, ...]:
    """Every single-token word, without the space in front."""
    numbers = tuple(str(n) for n in range(LARGEST_NUMBER + 1))
    return PROMPT_WORDS + BEHAVIOUR_WORDS + SYMBOLS + numbers


def phrases() -> tuple[str, ...]:
    """Every pair of words that is one token, without the space in front: an operator and the number after it."""
    return tuple(f"{operator} {n}" for operator in OPERATORS for n in range(LARGEST_NUMBER + 1))
