"""A model's thinking on a terminal: laid out idea by idea, behaviours coloured, written at a pace one can follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from clew.initialize.behaviours import Behaviour, Span, tag

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

INDENT = "  "


def laid_out(text: str) -> list[str]:
    """Lines whose words are those of `text`, in order: each idea on its own line, other proposals indented below it.

    A text that has lines keeps them.

    >>> laid_out("have 3 2 try 3 + 2 = 5 no or 3 - 2 = 1 no back try 3 * 2 = 6 yes answer 3 * 2")
    ['have 3 2', 'try 3 + 2 = 5 no', '  or 3 - 2 = 1 no', 'back try 3 * 2 = 6 yes', 'answer 3 * 2']
    """
    if "\n" in text.strip():
        return text.strip().splitlines()
    lines: list[str] = []
    before: Span | None = None
    for span in tag(text):
        words = " ".join(text[span.start : span.stop].split())
        if before is None or _begins_a_line(span, before, words):
            lines.append("")
        if span.behaviour is Behaviour.ALTERNATIVE:
            words = INDENT + words
        lines[-1] += f" {words}" if lines[-1] else words
        before = span
    return [line for line in lines if line.strip()]


def _begins_a_line(span: Span, before: Span, words: str) -> bool:
    return (
        span.behaviour in (Behaviour.CORRECTION, Behaviour.ALTERNATIVE)
        or before.behaviour is Behaviour.ANALYSIS
        or words.lower().startswith("answer")
    )


def write(text: str, console: Console, *, pace: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Print `text` laid out and coloured; on a terminal word by word, `pace` words a second (0: at once)."""
    for line in _wrapped(_printable(text), console):
        if console.is_terminal and pace > 0:
            for word in _words(line):
                console.print(word, end="", soft_wrap=True)
                sleep(1.0 / pace)
            console.print()
        else:
            console.print(line, soft_wrap=True)


def _wrapped(text: str, console: Console) -> Iterator[Text]:
    """Lines that fit on the terminal, continued further in; for a file or pipe, one line an idea."""
    from rich.text import Text

    from clew.report.colour import coloured

    for line in laid_out(text):
        margin = INDENT + line[: len(line) - len(line.lstrip())]
        words = coloured(line.lstrip())
        if not console.is_terminal:
            yield Text(margin) + words
            continue
        first, *rest = words.wrap(console, max(20, console.width - len(margin) - 2 * len(INDENT)))
        yield Text(margin) + first
        for more in rest:
            yield Text(margin + 2 * INDENT) + more


def _words(line: Text) -> list[Text]:
    """`line` in pieces that end after each word, the margin being part of the first; pieces join to the line."""
    plain = line.plain.rstrip()
    margin = len(plain) - len(plain.lstrip())
    return list(line.divide([at + 1 for at in range(margin, len(plain)) if plain[at] == " "]))


def _printable(text: str) -> str:
    """`text` without the escape sequences that a model's stray bytes could send to the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
