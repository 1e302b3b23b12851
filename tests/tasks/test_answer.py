"""Finding the answer in a response."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.tasks.answer import extract_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("answer 3 + 5", "3 + 5"),
        ("answer: 3 + 5", "3 + 5"),
        ("Answer : 3 + 5\n", "3 + 5"),
        ("ANSWER 3", "3"),
        ("<answer>3 + 5</answer>", "3 + 5"),
        ("<answer> 3 </answer> trailing words", "3"),
        ("<answer>1</answer> no <answer>2</answer>", "2"),
        ("answer 1 no back answer 2", "2"),
        ("answer 1 </answer> 2", "1"),
        ("the answers are 3", "the answers are 3"),
        ("unanswered 3", "unanswered 3"),
        ("answer_ 3", "answer_ 3"),
        ("aNsWeR 3", "aNsWeR 3"),
        ("  3 + 5 \r\n", "3 + 5"),
        ("answer", ""),
        ("answer:", ""),
        ("", ""),
        ("try 3 no answer\n3 * 5", "3 * 5"),
        ("3</answer>", "3</answer>"),
        ("answer \u00a03", "\u00a03"),
        ("answer :: 3", ": 3"),
    ],
)
def test_extract_answer(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@given(st.text(), st.text(alphabet="0123456789+-*/() ", max_size=30))
def test_whatever_came_before_the_last_marker_does_not_matter(before: str, answer: str) -> None:
    assert extract_answer(f"{before} answer {answer}") == answer.strip()


@given(st.text())
def test_any_text_is_handled(text: str) -> None:
    assert extract_answer(text) in text


@pytest.mark.parametrize("unit", ["answer ", "answer", "x", "(", " ", "<answer>", "</answer>", "\n", "\u00e4nswer"])
def test_ten_megabytes_take_bounded_time(unit: str) -> None:
    text = unit * (10_000_000 // len(unit))
    start = time.perf_counter()
    extract_answer(text)
    assert time.perf_counter() - start < 5.0
