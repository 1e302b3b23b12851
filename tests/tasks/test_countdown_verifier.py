"""The Countdown verifier against answers that are wrong in every way found so far, and against all right ones."""

from __future__ import annotations

import time
from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.types import Outcome, Problem
from clew.tasks.countdown import Countdown
from clew.tasks.countdown_solver import reachable_integers, solutions

TASK = Countdown()
PROBLEM = TASK.problem({"numbers": [3, 5, 7, 11], "target": 26})  # 3 + 5 + 7 + 11
OTHER = TASK.problem({"numbers": [2, 3, 7], "target": 8})
TWIN = TASK.problem({"numbers": [2, 2, 4], "target": 8})
HALVES = TASK.problem({"numbers": [7, 2], "target": 3})
ONES = TASK.problem({"numbers": [1, 2, 3], "target": 36})
ZERO = TASK.problem({"numbers": [3, 3], "target": 0})

# fmt: off
GARBAGE = [
    # powers, floor division, modulo, shifts, bit operations
    "3**5+7+11", "3 ** 5", "3* *5+7+11", "3//5+7+11", "3/ /5", "3%5+7+11", "3^5+7+11", "3<<5", "3>>5", "3|5+7+11",
    "3&5", "3@5", "~3+5+7+11", "3+5+7+11!", "!3+5+7+11", "divmod(3,5)", "pow(3,5)", "2**3", "7//2",
    # decimals, exponents, other literals
    "3.0+5+7+11", "3.+5+7+11", ".3+5+7+11", "3e0+5+7+11", "3E0+5+7+11", "0x3+5+7+11", "0b11+5+7+11", "0o3+5+7+11",
    "3j+5+7+11", "3L+5+7+11", "3_+5+7+11", "1_1+3+5+7", "03+5+7+11", "003+5+7+11", "3,5,7,11", "3+5+7+1e1+1",
    "3+5+7+11.", "3+5+7+1_1", "inf", "nan", "NaN+3", "1/0",
    # unary tricks
    "+3+5+7+11", "-3+5+7+11", "3--5+7+11", "3+-5+7+11", "3++5+7+11", "3- -5+7+11", "-(3)+5+7+11", "(-3)+5+7+11",
    "+(3+5+7+11)", "3-(-5)+7+11", "--3+5+7+11", "3*-5", "3*+5+7+11", "-(-3-5-7-11)", "3+(+5)+7+11",
    # names, calls, python
    "x", "3+x", "abs(3)+5+7+11", "int(3)+5+7+11", "sum([3,5,7,11])", "(lambda:26)()", "__import__('os')",
    "26 if 3+5+7+11 else 0", "3+5+7+11 or 26", "3+5+7+11==26", "3+5+7+11=26", "26=3+5+7+11", "x=3+5+7+11",
    "(x:=3)+5+7+11", "True", "None", "[3+5+7+11]", "{3+5+7+11}", "(3+5+7+11,)", "3+5+7+11;", "3+5+7+11;0", "3+5+7+11#",
    "3+5+7+11 # make 26", "'3+5+7+11'", '"3+5+7+11"', "`3+5+7+11`", "$3+5+7+11$", "\\boxed{3+5+7+11}", "**3+5+7+11**",
    "3+5+7+11\\", "print(3+5+7+11)", "f'{3}'+5", "...", "3if 5else 7", "\\frac{3}{5}", "3 plus 5 plus 7 plus 11",
    "three + 5 + 7 + 11", "eval('3+5+7+11')", "3+5+7+11 is it", "is 3+5+7+11",
    # brackets
    "()", "(", ")", "(3+5+7+11", "3+5+7+11)", ")3+5+7+11(", "((3+5+7+11)", "3+5(+7+11)", "3(5)+7+11", "(3)(5)+7+11",
    "3+()+5+7+11", "[3+5]+7+11", "{3+5}+7+11", "(3+5]+7+11", "3+5+7+(11", "3+5+7+11()", "()3+5+7+11",
    # operators at the edges, missing operators
    "3+5+7+11+", "*3+5+7+11", "/3+5+7+11", "3 5 7 11", "3+5+7 11", "3+5 +7+ +11", "+", "-", "*", "/", "3+*5", "3*/5",
    "3/*5*/+7+11",
    # digits and operators of other scripts
    "\uff13+5+7+11", "\u0663+5+7+11", "\u0967+3+5+7", "\u00b3+5+7+11", "\u2083+5+7+11", "\u2462+5+7+11", "\u00bd+5",
    "\U0001d7d1+5+7+11", "\u4e09+5+7+11", "\u2162+5+7+11", "3\uff0b5\uff0b7\uff0b11", "3\u00d75+7+11", "3\u22125+7+11",
    "3\u00f75+7+11", "3\u22175+7+11", "3\u20135+7+11", "3\u20145+7+11", "3\u00b75+7+11", "3\u22c55+7+11",
    "3\u22155+7+11", "3\u20445+7+11", "\uff083+5\uff09+7+11", "3\ufe625+7+11", "3\u27155+7+11", "\u221a3+5+7+11",
    "3+5+7+11\u00b0",
    # invisible characters and other white space
    "3\u200b+5+7+11", "\u200b3+5+7+11", "3+5+7+11\u200b", "\ufeff3+5+7+11", "3\u00ad+5+7+11", "3\u2060+5+7+11",
    "\u202e3+5+7+11", "3\u00a0+5+7+11", "\u00a03+5+7+11", "3+5+7+11\u00a0", "3\u3000+5+7+11", "3\u2009+5+7+11",
    "3\t+5+7+11", "3\n+5+7+11", "3\r+5+7+11", "3\x0b+5+7+11", "3\x0c+5+7+11", "3\x1c+5+7+11", "3\x85+5+7+11",
    "3\u2028+5+7+11", "3+5+7+11\x0c", "3\u0301+5+7+11", "3\ufe0f\u20e3+5+7+11", "3\x00+5+7+11", "\x00", "3+5+7+11\x00",
    "\x1b[31m3+5+7+11", "3+5\x08+7+11", "3+5+7+11\x7f", "\ud800", "3\udcff+5+7+11", "\U0010ffff",
    # several lines or a comment after the right expression
    "3+5+7+11\n26", "3+5+7+11\n\n3+5+7+11", "3+5+7+11 26", "3+5+7+11 -> 26", "3+5+7+11, 3+5+7+11",
    "3+5+7+11 or 11+7+5+3", "", " ", "\n", "answer", "no", "I give up",
]
# fmt: on

WRONG_USE = [
    # (problem, answer, reason)
    (PROBLEM, "26", "uses 26, which is not given"),
    (PROBLEM, "3+5+7", "does not use 11"),
    (PROBLEM, "11+5+3", "does not use 7"),
    (PROBLEM, "3+3+5+7+11", "uses 3 twice"),
    (PROBLEM, "3+3+3+5+7+11", "uses 3 3 times"),
    (PROBLEM, "3+5+7+11+0", "uses 0, which is not given"),
    (PROBLEM, "0+3+5+7+11", "uses 0, which is not given"),
    (PROBLEM, "0*9+3+5+7+11", "uses 0, which is not given"),
    (PROBLEM, "(3+5+7+11)*1", "uses 1, which is not given"),
    (PROBLEM, "(3+5+7+11)/1", "uses 1, which is not given"),
    (PROBLEM, "3+5+7+11-11+11", "uses 11 3 times"),
    (PROBLEM, "3+5+7+1+1+9", "uses 1, which is not given"),
    (PROBLEM, "35-7-2", "uses 35, which is not given"),
    (PROBLEM, "3+5+711", "uses 711, which is not given"),
    (PROBLEM, "3+5+7+11*(5-5+1)", "uses 5 3 times"),
    (PROBLEM, "3*5+7+11", "equals 33, not 26"),
    (PROBLEM, "3+5+7-11", "equals 4, not 26"),
    (PROBLEM, "3-5-7-11", "equals -20, not 26"),
    (PROBLEM, "3+5/7+11", "equals 103/7, not 26"),
    (OTHER, "2+3*7", "equals 23, not 8"),
    (OTHER, "7+3-2*1", "uses 1, which is not given"),
    (OTHER, "23-7", "uses 23, which is not given"),
    (OTHER, "7+2-3", "equals 6, not 8"),
    (TWIN, "2*4", "uses 2 once, not twice"),
    (TWIN, "2*2*2", "uses 2 3 times, not twice"),
    (TWIN, "4+4", "uses 4 twice"),
    (TWIN, "22-4", "uses 22, which is not given"),
    (HALVES, "7/2", "equals 7/2, not 3"),
    (ONES, "12*3", "uses 12, which is not given"),
    (ZERO, "3/(3-3)", "uses 3 3 times, not twice"),
    (TASK.problem({"numbers": [3, 3, 5], "target": 5}), "5/(3-3)", "divides by zero"),
    (TASK.problem({"numbers": [3, 3, 5], "target": 0}), "(3-3)/5/1", "uses 1, which is not given"),
    (TASK.problem({"numbers": [1, 2, 3, 3], "target": 1}), "1/(2/(3-3))", "divides by zero"),
    (TASK.problem({"numbers": [1, 3], "target": 9999}), "9" * 200, "uses 999999999..., which is not given"),
    # Close, but floating point would call it equal.
    (TASK.problem({"numbers": [9999, 9998, 9997, 9996], "target": 1}), "9999*9996/9998/9997", None),
]  # fmt: skip


@pytest.mark.parametrize("answer", GARBAGE)
@pytest.mark.parametrize("frame", ["{}", "3 + 5 + 7 + 11 no answer {}", "answer: {}"])
def test_what_is_no_expression_is_wrong(answer: str, frame: str) -> None:
    text = frame.replace("{}", answer)
    verdict = TASK.verify(PROBLEM, text)
    assert (verdict.outcome, verdict.value) == (Outcome.WRONG, 0.0)
    assert 0 < len(verdict.reason) < 80
    assert verdict.reason.isascii()
    assert verdict.answer == TASK.extract(text)


def test_the_suite_is_large_and_without_repetition() -> None:
    assert len(set(GARBAGE)) == len(GARBAGE) >= 150


@pytest.mark.parametrize(("problem", "answer", "reason"), WRONG_USE)
def test_wrong_numbers_and_wrong_values_are_wrong(problem: Problem, answer: str, reason: str | None) -> None:
    verdict = TASK.verify(problem, f"answer {answer}")
    assert (verdict.outcome, verdict.value) == (Outcome.WRONG, 0.0)
    assert reason is None or verdict.reason == reason
    assert verdict.answer is not None


@pytest.mark.parametrize(
    "answer",
    [
        "3+5+7+11",
        "11 + 7 + 5 + 3",
        "((((3)+5)+7)+11)",
        " ( 3 + 5 ) + ( 7 + 11 ) ",
        "answer 3+5+7+11",
        "answer: 3+5+7+11\n",
        "<answer>3+5+7+11</answer>",
        "3*5*7 no answer 3+5+7+11",
        "answer 3*5 no back answer 3+5+7+11",
        "3+5+7+11\r\n",
    ],
)
def test_right_answers_in_every_accepted_dress(answer: str) -> None:
    verdict = TASK.verify(PROBLEM, answer)
    assert (verdict.outcome, verdict.value, verdict.answer) == (Outcome.RIGHT, 1.0, "3 + 5 + 7 + 11")


def test_a_later_wrong_answer_replaces_a_right_one() -> None:
    assert not TASK.verify(PROBLEM, "answer 3+5+7+11 answer 3*5*7*11").right
    assert not TASK.verify(PROBLEM, "answer 3+5+7+11 answer").right
    assert not TASK.verify(PROBLEM, "answer 3+5+7+11 is my answer").right


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000 + "3" + ")" * 100_000,
        "(" * 100_000,
        ")" * 100_000,
        "-" * 1_000_000 + "3",
        "3+" * 5_000_000,
        "9" * 10_000_000,
        "x" * 10_000_000,
        "answer " * 1_400_000,
        "answer " + "9" * 10_000_000,
        "\x00" * 10_000_000,
        "\U0001d7d1" * 10_000_000,
        "3+5+7+11" + " " * 10_000_000 + "x",
        "3*(" * 85 + "3" + ")" * 85,
        "9" * 256,
        "*".join(["9" * 30] * 8),
        "/".join(["9" * 30] * 8),
    ],
    ids=range(16),
)
def test_huge_input_is_wrong_in_bounded_time(text: str) -> None:
    start = time.perf_counter()
    verdict = TASK.verify(PROBLEM, text)
    assert time.perf_counter() - start < 5.0
    assert verdict.outcome is Outcome.WRONG
    assert len(verdict.reason) < 80


@given(st.text())
def test_any_text_gets_a_verdict(text: str) -> None:
    assert TASK.verify(PROBLEM, text).outcome is Outcome.WRONG or TASK.extract(text) is not None


@given(st.text(alphabet="357 1+-*/()0.2", max_size=24))
def test_only_the_four_numbers_and_the_target_are_right(text: str) -> None:
    """Python's arithmetic as the reference for what little random text is right."""
    verdict = TASK.verify(OTHER, text)
    if verdict.right:
        assert sorted("".join(c if c.isdigit() else " " for c in text).split()) == ["2", "3", "7"]
        assert "." not in text and "**" not in text and "//" not in text


@pytest.mark.parametrize("numbers", list(combinations_with_replacement(range(1, 10), 4)))
def test_every_gold_answer_is_accepted_and_its_mutants_are_not(numbers: tuple[int, ...]) -> None:
    targets = sorted(t for t in reachable_integers(numbers) if 1 <= t <= 100)
    for target in targets[:: max(1, len(targets) // 4)]:
        problem = TASK.problem({"numbers": list(numbers[::-1]), "target": target})
        for gold in solutions(numbers, target)[:5]:
            verdict = TASK.verify(problem, f"answer {gold}")
            assert (verdict.outcome, verdict.answer) == (Outcome.RIGHT, gold)
            assert TASK.extract(f"answer {gold}") == gold
            for mutant in (
                f"{gold} + 0",
                f"-({gold})",
                f"{gold} * 1",
                f"({gold}",
                gold.replace(" ", "\u00a0"),
                gold[:-1],
                f"{gold}.0",
            ):
                assert not TASK.verify(problem, f"answer {mutant}").right
            assert not TASK.verify(TASK.problem({"numbers": list(numbers), "target": target + 1}), gold).right
