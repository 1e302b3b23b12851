"""The chat format of clew's own small models, as a Jinja template that every `transformers` tokenizer applies.

A prompt is `<|user|> make 24 from 3 5 7 9<|think|>`; a response is words up to `<|end|>`. The last
token of the prompt chooses the mode: `<|think|>` may try, check and retry; `<|direct|>` derives once.
System messages, which carry instructions for general models, are not shown to the small ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from clew.core.types import Message, Problem
from clew.initialize.vocabulary import DIRECT, END, THINK, USER

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}" + USER + "{{ ' ' + message['content'] }}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{ '"
    + DIRECT
    + "' if mode == 'direct' else '"
    + THINK
    + "' }}{{ ' ' + message['content'] }}"
    + END
    + "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '" + DIRECT + "' if mode == 'direct' else '" + THINK + "' }}{%- endif -%}"
)


def render(messages: Sequence[Message], mode: str = "think") -> str:
    """The prompt text that `CHAT_TEMPLATE` gives, with its generation prompt (without Jinja, which is slow)."""
    parts = []
    for message in messages:
        if message.role == "user":
            parts.append(f"{USER} {message.content}")
        elif message.role == "assistant":
            parts.append(f"{DIRECT if mode == 'direct' else THINK} {message.content}{END}")
    return "".join(parts) + (DIRECT if mode == "direct" else THINK)


def render_problem(problem: Problem, mode: str = "think") -> str:
    """The prompt of `problem` as the small models read it."""
    return render(problem.prompt, mode)
