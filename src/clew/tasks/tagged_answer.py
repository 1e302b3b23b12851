"""Find the answer in a response where answers are any text, with lines and symbols: in tags, or in a box."""

from __future__ import annotations

from clew.tasks.answer import extract_answer

MAX_ANSWER = 100_000
"""Characters; longer ones are no answers."""
_OPEN, _CLOSE = "<answer>", "</answer>"
_BOXED = "\\boxed{"
_SPACE = " \t\r\n"


def tagged_answer(text: str) -> str | None:
    r"""What stands in the last `<answer>...</answer>`, else in the last `\boxed{...}`, else after the last word answer.

    Without any of them it is all of `text`. Lines lose the white space at their ends, the answer that around it; None
    if nothing is left, or more than `MAX_ANSWER` characters. Time is linear in the length of `text`.

    >>> tagged_answer("I think <answer>1 2\n3 4</answer> is right")
    '1 2\n3 4'
    >>> tagged_answer(r"so it is \boxed{\frac{1}{2}}, the answer you want")
    '\\frac{1}{2}'
    >>> tagged_answer("Hence the final answer: 42")
    '42'
    """
    found = _in_tags(text)
    if found is None:
        found = _in_box(text)
    if found is None:
        found = extract_answer(text)
    return tidy(found) or None if len(found) <= MAX_ANSWER else None


def tidy(answer: str) -> str:
    """`answer` without white space around it or at the ends of its lines."""
    return "\n".join([line.rstrip(_SPACE) for line in answer.strip(_SPACE).split("\n")])


def _in_tags(text: str) -> str | None:
    """Between the last opening tag that is closed and the first closing tag after it."""
    last = text.rfind(_CLOSE)
    start = text.rfind(_OPEN, 0, last) if last >= 0 else -1
    if start < 0:
        return None
    start += len(_OPEN)
    return text[start : text.index(_CLOSE, start)]


def _in_box(text: str) -> str | None:
    """Between the brackets of the last box; None where they do not match."""
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    start += len(_BOXED)
    depth = 1
    for at in range(start, min(len(text), start + MAX_ANSWER + 1)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
    return None
