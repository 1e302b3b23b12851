"""Behaviours in colour on a terminal."""

from __future__ import annotations

from rich.text import Text

from clew.initialize.behaviours import Behaviour, tag

# The sixteen-colour names, not hex: a reader's terminal theme knows its own background.
STYLES: dict[Behaviour, str] = {
    Behaviour.ANALYSIS: "bright_black",
    Behaviour.DECOMPOSITION: "magenta",
    Behaviour.COMPLETION: "blue",
    Behaviour.ALTERNATIVE: "yellow",
    Behaviour.EVALUATION: "green",
    Behaviour.CORRECTION: "bold red",
}


def coloured(text: str) -> Text:
    """`text`, character for character, each behaviour in its colour; rich markup in it stays plain text."""
    out = Text()
    for span in tag(text):
        out.append(text[span.start : span.stop], style=STYLES[span.behaviour] if span.behaviour else "")
    return out


def legend() -> Text:
    """One line that names the colours."""
    return Text("  ").join(Text(behaviour.value, style=style) for behaviour, style in STYLES.items())
