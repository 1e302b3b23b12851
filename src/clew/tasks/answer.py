"""Find the final answer in a response. Every task uses this one rule, so one prompt habit serves them all."""

from __future__ import annotations

import re

# What may not stand before the word is looked at after it matched: a pattern that begins with letters scans faster.
_MARKER = re.compile(r"(?:[Aa]nswer|ANSWER)(?<![\w/].{6})(?!\w)(?:>|[ \t\r\n]*:)?", re.DOTALL)
_CLOSING = "</answer>"
_SPACE = " \t\r\n"


def extract_answer(text: str) -> str:
    """What follows the last word `answer` (or stands in the last `<answer>` tag), else all of `text`; stripped.

    Only ASCII white space is stripped. Time is linear in the length of `text`.

    >>> extract_answer("try 3 + 5 = 8 no answer 3 * 5")
    '3 * 5'
    >>> extract_answer("<answer>3 * 5</answer> as asked")
    '3 * 5'
    """
    start = 0
    for marker in _MARKER.finditer(text):
        start = marker.end()
    if start:
        stop = text.find(_CLOSING, start)
        text = text[start : stop if stop >= 0 else None]
    return text.strip(_SPACE)
