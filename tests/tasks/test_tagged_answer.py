"""Finding the answer in a response that may have lines and symbols."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.tasks.tagged_answer import MAX_ANSWER, tagged_answer, tidy


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>1 2\n3 4</answer>", "1 2\n3 4"),
        ("<answer>1</answer> no, <answer>2</answer>.", "2"),
        ("<answer>1</answer> and <answer>2", "1"),
        ("<answer>a <answer>b</answer>", "b"),
        ("<answer>the answer is</answer>", "the answer is"),
        (r"<answer>\boxed{3}</answer>", r"\boxed{3}"),
        (r"so \boxed{3} the answer", "3"),
        (r"\boxed{1} \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1", r"\boxed{1"),
        ("The answer: 7", "7"),
        ("a b  \n c ", "a b\n c"),
        ("1\r\n2\r\n", "1\n2"),
        ("<answer></answer>", None),
        ("", None),
        (" \n ", None),
        ("</answer><answer>", None),
    ],
)
def test_tagged_answer(text: str, answer: str | None) -> None:
    assert tagged_answer(text) == answer


@given(st.text(), st.text(alphabet="ab <>/\n{}\\", min_size=1, max_size=20))
def test_what_stands_in_the_last_tags_counts_whatever_is_around(before: str, inside: str) -> None:
    if "<answer>" not in inside and "</answer>" not in inside:
        assert tagged_answer(f"{before}<answer>{inside}</answer> done") == (tidy(inside) or None)


@given(st.text())
def test_an_answer_is_its_own_answer_in_tags(text: str) -> None:
    answer = tagged_answer(text)
    if answer is not None and "answer>" not in answer:
        assert tagged_answer(f"<answer>{answer}</answer>") == answer


def test_too_long_is_no_answer() -> None:
    assert tagged_answer("9" * MAX_ANSWER) == "9" * MAX_ANSWER
    assert tagged_answer("9" * (MAX_ANSWER + 1)) is None
    assert tagged_answer("\\boxed{" + "9" * (MAX_ANSWER + 1) + "}") is None


@pytest.mark.parametrize("unit", ["<answer>", "</answer>", "\\boxed{", "{", "answer ", "\n", " ", "x"])
def test_ten_megabytes_take_bounded_time(unit: str) -> None:
    start = time.perf_counter()
    tagged_answer(unit * (10_000_000 // len(unit)))
    assert time.perf_counter() - start < 5.0
