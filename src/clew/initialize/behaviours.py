"""The six reasoning behaviours (arXiv 2412.14135, section 3.3, table 1): tag them in any text, count, and chain.

A behaviour begins at a cue and lasts until the next cue. clew's own traces use one short word a
behaviour; cues of ordinary English are recognised too, so that other models' text can be tagged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple


class Behaviour(StrEnum):
    ANALYSIS = "analysis"
    DECOMPOSITION = "decomposition"
    COMPLETION = "completion"
    ALTERNATIVE = "alternative"
    EVALUATION = "evaluation"
    CORRECTION = "correction"


CUES: dict[Behaviour, tuple[str, ...]] = {
    Behaviour.ANALYSIS: ("have", "the problem asks", "the user is asking", "we are given", "we need to"),
    Behaviour.DECOMPOSITION: ("plan", "first,", "break this", "step 1", "working backwards", "sub-problem"),
    Behaviour.COMPLETION: ("try", "answer", "let me compute", "let's compute", "so we get"),
    Behaviour.ALTERNATIVE: ("or", "alternatively", "another way", "another option", "option 1", "option 2", "instead"),
    Behaviour.EVALUATION: ("no", "yes", "check", "verify", "let me test", "is that right", "does this"),
    Behaviour.CORRECTION: ("back", "wait", "actually", "that is wrong", "mistake", "let me fix"),
}

_BEHAVIOUR_OF_CUE = {cue: behaviour for behaviour, cues in CUES.items() for cue in cues}
# Case is ignored among ASCII letters only: Unicode rules would let the long s match, whose lower case is no cue.
_CUE = re.compile(
    r"(?<![\w-])(?ai:" + "|".join(sorted(map(re.escape, _BEHAVIOUR_OF_CUE), key=len, reverse=True)) + r")(?![\w-])"
)


class Span(NamedTuple):
    """`text[start:stop]` shows `behaviour`; None before the first cue."""

    behaviour: Behaviour | None
    start: int
    stop: int


def tag(text: str) -> list[Span]:
    """Spans that cover `text` exactly once, in order.

    >>> [s.behaviour.value for s in tag("try 2 + 3 = 5 no back try 2 * 3 = 6 yes answer 2 * 3")]
    ['completion', 'evaluation', 'correction', 'completion', 'evaluation', 'completion']
    """
    cues = [(m.start(), _BEHAVIOUR_OF_CUE[m.group().lower()]) for m in _CUE.finditer(text)]
    if not cues:
        return [Span(None, 0, len(text))] if text else []
    spans = [Span(None, 0, cues[0][0])] if cues[0][0] > 0 else []
    ends = [start for start, _ in cues[1:]] + [len(text)]
    spans += [Span(behaviour, start, stop) for (start, behaviour), stop in zip(cues, ends, strict=True)]
    return spans


def count(texts: Iterable[str]) -> Counter[Behaviour]:
    """How often each behaviour occurs in all of `texts`."""
    return Counter(span.behaviour for text in texts for span in tag(text) if span.behaviour)


def transitions(texts: Iterable[str]) -> Counter[tuple[Behaviour, Behaviour]]:
    """How often one behaviour is followed by another (roadmap section 3.4: the orchestration of behaviours)."""
    chains = ([s.behaviour for s in tag(text) if s.behaviour] for text in texts)
    return Counter(pair for chain in chains for pair in pairwise(chain))
