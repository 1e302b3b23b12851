"""Programs are found in responses without being parsed, in linear time, whatever the text is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.tasks.code_answer import program_of, whole_program

PROMPT = 'import math\n\ndef helper(x):\n    return x\n\ndef f(x):\n    """Doc."""\n'


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("x = 1", "x = 1"),
        ("    return x", "    return x"),
        ("So:\n```python\nx = 1\n```\n", "x = 1"),
        ("```python\nx = 1\n```\nbetter\n```py\nx = 2\n```", "x = 2"),
        ("```Python\nx = 1\n```\nprints\n```\n1\n```", "x = 1"),
        ("```\nx = 1\n```\n```text\ny\n```", "y"),
        ("```python\nx = 1\n", "x = 1"),
        ("```python\nx = 1\n```\n```python\nx = ", "x = 1"),
        ("  ```python\n    x = 1\n  ```", "    x = 1"),
        ("", None),
        (" \n\t", None),
        ("```python\n\n```", None),
        ("```", None),
    ],
)
def test_which_block_is_the_program(text, program):
    assert program_of(text) == program


@given(st.text(alphabet="`\n \tab", max_size=60) | st.text())
def test_any_text_has_a_program_that_stands_in_it_or_none(text):
    program = program_of(text)
    assert program is None or (program.strip() and program in text)


def test_long_texts_take_linear_time():
    started = time.perf_counter()
    for text in ("`" * 5_000_000, "```\n" * 500_000, "def f(x):\n" * 400_000, " " * 5_000_000):
        whole_program(PROMPT, "f", program_of(text) or "")
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    "code",
    [
        "    return helper(2 * x)",
        "    y = 2 * x\n    return helper(y)",
        "y = 2 * x\n    return helper(y)",
        "y = 2 * x\n\nreturn helper(y)",
        "if x:\n    return helper(2 * x)\nreturn 0",
        "for _ in [0]:\n    return helper(2 * x)",
        "def f(x):\n    return helper(2 * x)",
        "from math import pi\ndef g(x):\n    return 2 * x\n\ndef f(x):\n    return g(x)",
        "f = None\ndef f(x) :\n    return math.floor(2 * x)",
    ],
)
def test_completions_and_whole_functions_become_programs(code):
    namespace: dict = {}
    exec(whole_program(PROMPT, "f", code), namespace)  # noqa: S102 - the programs above
    assert namespace["f"](4) == 8
