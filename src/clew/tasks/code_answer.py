"""Find the program in a response, without parsing it: that happens in the sandbox."""

from __future__ import annotations

import re

_FENCE = "```"
_PYTHON = ("python", "python3", "py")


def program_of(text: str) -> str | None:
    """The last fenced block called Python, else the last fenced block, else all of `text`; None if that is blank.

    A block that is not closed is one if there is no other. Time is linear in the length of `text`.

    >>> program_of("First\\n```python\\nx = 1\\n```\\nIt prints\\n```\\n1\\n```")
    'x = 1'
    """
    python: str | None = None
    other: str | None = None
    called = ""
    lines: list[str] | None = None
    for line in text.split("\n"):
        fence = line.strip().startswith(_FENCE)
        if fence and lines is None:
            called, lines = line.strip().removeprefix(_FENCE).strip().lower(), []
        elif fence and lines is not None:
            if called in _PYTHON:
                python = "\n".join(lines)
            else:
                other = "\n".join(lines)
            lines = None
        elif lines is not None:
            lines.append(line)
    for found in (python, other, "\n".join(lines) if lines is not None else None, text):
        if found is not None:
            return found.strip("\r\n") if found.strip() else None
    return None


def whole_program(prompt: str, entry: str, code: str) -> str:
    """`code` as a program that defines `entry`: it may be the whole function, or what follows the open `prompt`.

    A whole function gets what stands in the prompt before its `def` (imports, helpers) in front.

    >>> whole_program("import math\\ndef f(x):\\n", "f", "return x")
    'import math\\ndef f(x):\\n    return x\\n'
    """
    definition = re.compile(rf"^(?:async )?def {re.escape(entry)}\b", re.MULTILINE)
    if definition.search(code):
        start = definition.search(prompt)
        return prompt[: start.start() if start else 0] + code + "\n"
    return prompt + _indented(code) + "\n"


def _indented(code: str) -> str:
    """A body whose indentation a chat template stripped, from all of it or from its first line, with it again."""
    lines = code.split("\n")
    if lines[0][:1] in (" ", "\t"):
        return code
    rest = [line for line in lines[1:] if line.strip()]
    if rest and all(line[:1] in (" ", "\t") for line in rest) and not lines[0].rstrip().endswith(":"):
        return "    " + code
    return "\n".join("    " + line if line.strip() else line for line in lines)
