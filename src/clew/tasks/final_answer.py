r"""Find the one answer that a response commits itself to: its last `\boxed{}`, or what follows the word `answer`."""

from __future__ import annotations

import re

from clew.tasks.answer import extract_answer

MAX_LENGTH = 2000
"""Characters of an answer. Longer ones are none."""
_BOX = "\\boxed"
_MAX_BOXES = 8
_OPEN = re.compile(r"\\boxed\s{0,4}\{")
_BETWEEN_BOXES = re.compile(r"[\s$,;]*(?:and|or|\\text\{\s*,?\s*(?:and|or)\s*\}|\\quad|\\qquad)?[\s$,;]*")
_LEADING = re.compile(r"(?:is|are|=|:)(?![A-Za-z])\s*")
_HOPE = re.compile(r"\.?\s*I hope it is correct\.?$")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))


def final_answer(text: str) -> str | None:
    r"""The answer of `text`, without the marks around it; None if it gives none. Linear in the length of `text`.

    The last `\boxed{...}` counts, whatever else is written. Boxes that only a comma, `and` or `or` keeps apart are one
    list, so that `\boxed{1} or \boxed{2}` is not an answer 2. Without a box it is what follows the last word `answer`,
    or all of the text.

    >>> final_answer(r"so \boxed{3}, no: $\boxed{\frac{1}{2}}$ it is")
    '\\frac{1}{2}'
    >>> final_answer("The answer is $5$.")
    '5'
    """
    if (at := text.rfind(_BOX)) >= 0:
        answer = _boxed(text, at)
    else:
        answer = _LEADING.sub("", extract_answer(text)[: MAX_LENGTH + 1], count=1)
    if answer is None or len(answer) > MAX_LENGTH:
        return None
    return unwrapped(_HOPE.sub("", answer)) or None


def unwrapped(answer: str) -> str:
    """`answer` without dollars, brackets of LaTeX or stars around all of it, and without a full stop."""
    before = None
    while answer != before:
        before, answer = answer, answer.strip()
        if answer.endswith(".") and not answer.endswith(".."):
            answer = answer[:-1]
        for left, right in _WRAPPERS:
            inner = answer[len(left) : -len(right)]
            if answer.startswith(left) and answer.endswith(right) and inner and left not in inner:
                answer = inner
                break
    return answer


def _boxed(text: str, at: int) -> str | None:
    """The content of the box at `at`, and before it that of those which make a list with it."""
    box = _content(text, at)
    if box is None:
        return None
    found = [box[0]]
    while len(found) < _MAX_BOXES and (earlier := text.rfind(_BOX, 0, at)) >= 0:
        box = _content(text, earlier)
        if box is None or box[1] > at or not _BETWEEN_BOXES.fullmatch(text[box[1] : at][:40]) or at - box[1] > 40:
            break
        if box[0] != found[0]:
            found.insert(0, box[0])
        at = earlier
    return ", ".join(found)


def _content(text: str, at: int) -> tuple[str, int] | None:
    """What the box at `at` holds and where it ends; None if it is not closed within `MAX_LENGTH` characters."""
    opening = _OPEN.match(text, at)
    if opening is None:
        return None
    depth = 1
    for index in range(opening.end(), min(len(text), opening.end() + MAX_LENGTH + 1)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return text[opening.end() : index], index + 1
    return None
