"""New questions: a task's settings varied over a grid, and texts with their numbers changed.

A procedural task makes a problem of any setting and knows its answer. A text does not: whoever changes a number in it
must find the new answer, and `accepted` takes one only where independent solutions agree. What they do not agree on is
refused, and so is every change of a text whose own, known answer they do not find.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed

_NUMBER = re.compile(r"(?<![\w.,/^_\\-])(?:[1-9][0-9]{0,8}|0)(?:\.[0-9]{1,4})?(?![\w/^]|[.,][0-9])")
MOST_SETTINGS = 64


def settings_grid(task: str, grid: str) -> list[str]:
    """The task once for each combination of the values in `grid`, `name=a|b|c,name=a|b`; they replace its own settings.

    >>> settings_grid("countdown:count=4,whole=true", "count=3|4,high=9")
    ['countdown:whole=true,count=3,high=9', 'countdown:whole=true,count=4,high=9']
    >>> settings_grid("rg:chain_sum,min_terms=2", "max_terms=2|4")
    ['rg:chain_sum,min_terms=2,max_terms=2', 'rg:chain_sum,min_terms=2,max_terms=4']
    """
    axes: dict[str, list[str]] = {}
    for part in _split(grid):
        name, equals, values = (piece.strip() for piece in part.partition("="))
        if not (name and equals and values) or name in axes:
            advice = "write for example count=3|4|5,high=9|13"
            raise InvalidValue("settings to choose from", grid, "each setting once, as name=value|value|...", advice)
        axes[name] = [value.strip() for value in values.split("|")]
    combinations = list(itertools.product(*axes.values()))
    if not 2 <= len(combinations) <= MOST_SETTINGS:
        accepted = f"2 to {MOST_SETTINGS} combinations"
        raise InvalidValue("settings to choose from", f"{grid}: {len(combinations)}", accepted, "change the values")
    head, _, rest = task.partition(":")
    kept = [part for part in _split(rest) if part.partition("=")[0].strip() not in axes]
    return [
        f"{head}:{','.join([*kept, *(f'{name}={value}' for name, value in zip(axes, values, strict=True))])}"
        for values in combinations
    ]


def _split(text: str) -> list[str]:
    """`text` at the commas outside of brackets and quotes, without empty parts."""
    pieces, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0 and not quoted:
            pieces.append("")
        else:
            pieces[-1] += letter
    return [piece.strip() for piece in pieces if piece.strip()]


def numbers_in(question: str) -> list[str]:
    """Numbers that may be changed: whole or decimal, by themselves; none that is part of a word, fraction or formula.

    >>> numbers_in("Ann has 12 apples and 3.5 kg of flour; x2 and 1/2 stay, as 1,234 does.")
    ['12', '3.5']
    """
    return _NUMBER.findall(question)


def mutated(question: str, seed: int) -> str | None:
    """`question` with some of its numbers, at least one, replaced by others of about their size; None if it has none.

    A number n of 2 or more becomes one of 2 to 2n, another than before, with as many digits behind the point: what is
    counted stays countable, and a text about several things does not come to speak of one. 0 and 1 stay: they are often
    words rather than quantities. Equal numbers stay equal.
    """
    rng = random.Random(derive_seed(seed, "mutation", question))
    free = [text for text in dict.fromkeys(numbers_in(question)) if float(text) >= 2]
    if not free:
        return None
    changed = {text: _other(text, rng) for text in rng.sample(free, rng.randint(1, len(free)))}
    return _NUMBER.sub(lambda match: changed.get(match.group(), match.group()), question)


def _other(text: str, rng: random.Random) -> str:
    places = len(text.partition(".")[2])
    unit = 10**places
    now = round(float(text) * unit)
    drawn = rng.randint(2 * unit, max(2 * now, 3 * unit) - 1)
    value = drawn + (drawn >= now)
    return f"{value / unit:.{places}f}"


class Vote(NamedTuple):
    """The answer of the most solutions, and the share of all that gave it; one without an answer agrees with nobody."""

    answer: str | None
    share: float


def vote(answers: Sequence[str | None]) -> Vote:
    """
    >>> vote(["7", "7", None, "8"])
    Vote(answer='7', share=0.5)
    """
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return Vote(None, 0.0)
    answer, votes = counts.most_common(1)[0]
    return Vote(answer, votes / len(answers))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """When a majority's answer to a changed text is taken for its answer."""

    least: float = 0.75
    """Share of the solutions that must agree, above 1/2."""
    solutions: int = 8
    """Fewest solutions."""

    def __post_init__(self) -> None:
        if not 0.5 < self.least <= 1.0:
            raise InvalidValue("least agreement", self.least, "a share above 0.5 up to 1", "use 0.75")
        if self.solutions < 2:
            raise InvalidValue("solutions that must agree", self.solutions, "at least 2", "raise it")

    def accepted(self, original: Sequence[bool], answers: Sequence[str | None]) -> str | None:
        """The answer to a changed text, from the `answers` of its solutions; None: refused.

        `original` says of solutions of the text before it was changed whether they were right: solvers that do not get
        a known answer right so often are not believed on an unknown one.
        """
        enough = min(len(original), len(answers)) >= self.solutions
        if not enough or sum(original) < self.least * len(original):
            return None
        answer, share = vote(answers)
        return answer if share >= self.least else None


def row_of(question: str, answer: str, verifier: str, of: str) -> str:
    """A line of a file of problems (`file:PATH`); `of` is the id of the problem that was changed."""
    return json.dumps({"question": question, "answer": answer, "verifier": verifier, "source": of}, ensure_ascii=False)
