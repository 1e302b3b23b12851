"""Answers that are words: equal after a stated normalisation, or the letter of a choice."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import final

from clew.core.types import Outcome, Verdict
from clew.tasks.final_answer import MAX_LENGTH, final_answer

_SPACE = " \t\r\n\u00a0\u202f\u3000"
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"(?:option|choice)?\s*(?P<open>\(?)(?P<letter>[A-Z])(?P<close>\)?)[.:]?", re.IGNORECASE)
_SPELLED = re.compile(r"(?P<open>\(?)(?P<letter>[A-Z])(?P<close>[).:])\s+(?P<rest>\S.*)", re.DOTALL)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    r"""Right only for the reference answer itself, up to case, width and composition of characters, and white space.

    Both are put into Unicode's NFKC, case-folded, and every run of white space becomes one space; quotation marks and
    one full stop around all of the answer are left out. Nothing else is: a zero-width space or an accent is a
    difference.

    >>> Exact().judge("The answer is  New   York.", "new york", "").outcome.value
    'right'
    """

    def judge(self, text: str, gold: str, question: str) -> Verdict:
        del question
        answer = self.extract(text)
        if answer is None:
            return Verdict(Outcome.WRONG, 0.0, None, "no answer")
        right = answer == folded(gold)
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), answer, "" if right else "differs")

    def extract(self, text: str) -> str | None:
        answer = final_answer(text)
        return (folded(_TEXT.sub(r"\1", answer)) or None) if answer is not None else None

    def gold_fault(self, gold: str) -> str:
        if not folded(gold):
            return "an empty answer"
        return f"more than {MAX_LENGTH} characters" if len(gold) > MAX_LENGTH else ""


def folded(text: str) -> str:
    """`text` as it is compared: NFKC, case-folded, single spaces, without quotation marks or one full stop around it.

    >>> folded("  \u201cNew\\n YORK\u201d. ")
    'new york'
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = re.sub(f"[{_SPACE}]+", " ", text).strip(" ")
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip(" ")
    for left, right in (('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\u2018", "\u2019"), ("\u00ab", "\u00bb")):
        if len(text) > 2 and text[0] == left and text[-1] == right and left not in text[1:-1]:
            text = text[1:-1].strip(" ")
    return text


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    r"""Right only for the letter of the reference choice: `B`, `(b)`, `B.`, `option B`, `\text{(B)}`.

    The letter may be followed by the text of its choice (`B) Paris`) only if the question says the same behind that
    letter. Two letters are none.

    >>> [Choice().judge(text, "B", "").outcome.value for text in ("(b)", "A or B", "B) or C)")]
    ['right', 'wrong', 'wrong']
    """

    def judge(self, text: str, gold: str, question: str) -> Verdict:
        answer, expected = self._letter(text, question), self._letter(gold, question)
        if expected is None:
            return Verdict(Outcome.UNSCORED, None, answer, "the reference answer is not a letter")
        if answer is None:
            return Verdict(Outcome.WRONG, 0.0, None, "not the letter of a choice")
        right = answer == expected
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), answer, f"is {answer}")

    def extract(self, text: str) -> str | None:
        return self._letter(text, "")

    def gold_fault(self, gold: str) -> str:
        return "" if self._letter(gold, "") else "not one letter from A to Z"

    def _letter(self, text: str, question: str) -> str | None:
        answer = final_answer(text)
        if answer is None:
            return None
        answer = _TEXT.sub(r"\1", answer).strip()
        match = _CHOICE.fullmatch(answer)
        if match is None and (match := _SPELLED.fullmatch(answer)):
            spelled = re.escape(folded(match["rest"]))
            if not re.search(rf"(?<!\w){match['letter'].lower()}[).:] ?{spelled}(?!\w)", folded(question[:20_000])):
                return None
        return match["letter"].upper() if match and (not match["open"] or match["close"] == ")") else None
