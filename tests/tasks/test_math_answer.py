"""What the mathematical verifier accepts, refuses, and gives up on."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clew.core.types import Outcome
from clew.tasks.math_answer import Math
from clew.tasks.number_answer import read_number, same_number
from clew.tasks.verifiers import VERIFIERS

pytest.importorskip("math_verify")

RIGHT = [
    ("5", "5", ""),
    ("5", "\\boxed{5}", ""),
    ("5", "The answer is $5$.", ""),
    ("5", "answer: 5 cm", "how many cm?"),
    ("0.5", "\\boxed{\\frac12}", ""),
    ("\\frac{1}{3}", "\\boxed{0.333333}", ""),
    ("50%", "\\boxed{50\\%}", ""),
    ("50%", "answer 50", ""),
    ("1,000", "\\boxed{1{,}000}", ""),
    ("1000", "answer 1,000", ""),
    ("x=5", "\\boxed{5}", ""),
    ("5", "\\boxed{x = 5}", ""),
    ("\\frac{\\sqrt{2}}{2}", "\\boxed{\\frac{1}{\\sqrt2}}", ""),
    ("x^2+2x+1", "answer (x+1)^2", ""),
    ("(1,2)", "\\boxed{(1, 2)}", ""),
    ("[1,2)", "\\boxed{1 \\le x < 2}", ""),
    ("[1,2)", "\\boxed{2 > x \\ge 1}", ""),
    ("[3,\\infty)", "\\boxed{x \\ge 3}", ""),
    ("1,2", "\\boxed{1} or \\boxed{2}", ""),
    ("1,2", "\\boxed{2,1}", ""),
    ("\\{1,2\\}", "$\\boxed{x = 1 \\text{ or } x = 2}$", ""),
    ("no solution", "\\boxed{\\text{No solution}}", ""),
    ("\\text{(B)}", "answer (B)", ""),
    ("A", "\\boxed{A}", ""),
    ("A", "answer \\text{(A)}", ""),
    ("Monday", "\\boxed{\\text{Monday}}", ""),
    ("y=2x+1", "\\boxed{y = 2x + 1}", ""),
    ("30^\\circ", "\\boxed{30^{\\circ}}", ""),
    ("30", "\\boxed{30^\\circ}", ""),
    ("5\\text{ cm}", "\\boxed{5\\,\\mathrm{cm}}", ""),
    ("16\\pi", "\\boxed{16\\pi \\text{ square units}}", "area in square units?"),
    ("\\pi", "\\boxed{3.14159}", ""),
    ("3\\frac{1}{2}", "answer 7/2", ""),
    ("1.5\\times 10^3", "answer 1500", ""),
    ("(-\\infty,2)\\cup(3,\\infty)", "\\boxed{(-\\infty, 2) \\cup (3, \\infty)}", ""),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}", ""),
    ("2\\pm\\sqrt{3}", "\\boxed{2+\\sqrt3, 2-\\sqrt3}", ""),
    ("101_2", "\\boxed{101_{2}}", ""),
    ("\\$5", "answer $5", ""),
    ("3:2", "\\boxed{3:2}", ""),
    ("e^{2\\pi i/3}", "\\boxed{-\\frac12+\\frac{\\sqrt3}{2}i}", ""),
    ("0.5x", "\\boxed{\\frac{x}{2}}", ""),
    ("2^{100}", "\\boxed{2^{100}}", ""),
    ("x \\in [1,2]", "\\boxed{[1,2]}", ""),
    ("-\\sqrt{2}", "\\boxed{-\\sqrt{2}}", ""),
    ("\\frac{3}{4}", "0.75", ""),
    ("18", "$\\boxed{\\$18}$", "in $?"),
    ("\\text{no}", "\\boxed{no}", ""),
    ("12,34", "\\boxed{34, 12}", ""),
    ("\\sin x", "answer sin(x)", ""),
]
WRONG = [
    ("5", "1 or 5", ""),
    ("3", "1 2", ""),
    ("5", "7*8", ""),
    ("56", "7*8", ""),
    ("5", "\\boxed{}", ""),
    ("5", "", ""),
    ("5", "5 5", ""),
    ("5", "5 = 5", ""),
    ("5", "4 = 5", ""),
    ("1.2", "1,2", ""),
    ("12", "1,2", ""),
    ("(1,2)", "\\{1,2\\}", ""),
    ("\\{1,2\\}", "(1,2)", ""),
    ("5", "x>5", ""),
    ("[1,2)", "\\boxed{(1,2)}", ""),
    ("[1,2)", "\\boxed{[1,2]}", ""),
    ("(3,\\infty)", "\\boxed{x \\ge 3}", ""),
    ("x>3", "\\boxed{y>3}", ""),
    ("1,1", "\\boxed{1,2}", ""),
    ("x>5", "5", ""),
    ("5\\text{ cm}", "5 m", ""),
    ("5", "5 km", "in cm?"),
    ("Monday", "dayMon", ""),
    ("no", "on", ""),
    ("101_2", "101", ""),
    ("101", "101_2", ""),
    ("1/2", "1:2", ""),
    ("\\frac13", "0.333", ""),
    ("R", "r", ""),
    ("A", "a", ""),
    ("A", "A or B", ""),
    ("A", "A, B", ""),
    ("x^2+2x+1", "(x+1)^2", "Expand (x+1)^2."),
    ("y=2x", "x=x", ""),
    ("y=2x", "0=0", ""),
    ("\\emptyset", "(5,3)", ""),
    ("(2,1)", "(5,3)", ""),
    ("50", "50%", ""),
    ("0.0000001", "0", ""),
    ("\\pi", "3.14", ""),
    ("2", "\\pm 2", ""),
    ("3", "\\{3\\}", ""),
    ("\\{3\\}", "3", ""),
    ("5", "answer 5 or 6", ""),
    ("5", "answer not 5", ""),
    ("5", "answer ~5", ""),
    ("5", "answer \\approx 5", ""),
    ("5", "answer 5?", ""),
    ("5", "answer 5 (maybe 6)", ""),
    ("5", "\\boxed{5 \\text{ or } 6}", ""),
    ("5", "\\boxed{5", ""),
    ("5", "\\boxed 5", ""),
    ("\\sqrt{2}", "9^{9^{9^9}}", ""),
    ("\\sqrt{2}", "\ud800\x00", ""),
    ("\\sqrt{2}", "\\sqrt{2}, -\\sqrt{2}", ""),
    ("5", "\u4e94", ""),
    ("5", "\uff15", ""),
    ("5", "5\u200b", ""),
    ("2x", "2x+C", ""),
    ("x+1", "x+1 or x+2", ""),
    ("x+1", "x+1=x+1", ""),
    ("3", "|3|", ""),
    ("3", "--3", ""),
    ("(1,2)", "(1,2", ""),
    ("\\sqrt{2}", "9!!!!", ""),
    ("A", "B", ""),
    ("A", "none", ""),
    ("1,2", "1,2,2", ""),
    ("1,2", "1,2,3", ""),
    ("x=1,y=2", "x=2,y=1", ""),
    ("x=1,y=2", "1,2", ""),
    ("x=5", "y=5", ""),
    ("x=5", "2x=10", ""),
    ("\\sqrt{2}", "\\sum_{n=1}^{99999999} n", ""),
    ("\\sqrt{2}", "\\int x", ""),
    ("\\sqrt{2}", "\\sqrt{2} \\times 0", ""),
    ("\\sqrt{2}", "\\binom{99999999}{49999999}", ""),
    ("\\sqrt{2}", "\\binom{99999999}{9999}", ""),
    ("\\sqrt{2}", "(x+y)^{9999}", ""),
    ("10\\pi", "10\\pi\\text{ or }5\\pi", ""),
    ("10\\pi", "10\\pi, I think", ""),
    ("\\frac{1}{0}", "\\frac{2}{0}", ""),
    ("\\sqrt{2}", "\\frac{1}{0}", ""),
    ("0.1\\pi", "0.1000000000000000000001\\pi", ""),
]
BOMBS = [
    "answer 9^{9^{9^9}}",
    "answer " + "(" * 100_000,
    "x" * 10_000_000,
    r"\boxed{" + "{" * 100_000 + "}" * 100_000,
    "answer " + r"\frac{1}{" * 400 + "1" + "}" * 400,
    "answer \ud800\0",
    "answer 99999999!",
    r"answer \binom{99999999}{49999999}",
    r"answer ((2^{9999})^{9999})^{9999}",
    "answer " + "1+" * 900 + "1",
]


@pytest.mark.parametrize(("gold", "text", "question"), RIGHT)
def test_right(gold, text, question):
    verdict = Math().judge(text, gold, question)
    assert (verdict.outcome, verdict.value) == (Outcome.RIGHT, 1.0), verdict.reason


@pytest.mark.parametrize(("gold", "text", "question"), WRONG)
def test_wrong(gold, text, question):
    verdict = Math().judge(text, gold, question)
    assert (verdict.outcome, verdict.value) == (Outcome.WRONG, 0.0)
    assert verdict.reason


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:24].encode("ascii", "replace").decode())
def test_bombs_are_not_right_in_bounded_time_and_the_next_answer_is_judged(bomb):
    start = time.process_time()
    assert not Math().judge(bomb, r"\sqrt{2}", "").right
    assert time.process_time() - start < 5.0
    assert Math().judge(r"\boxed{\frac{2}{\sqrt2}}", r"\sqrt{2}", "").right


def test_a_reference_that_cannot_be_read_leaves_answers_unscored():
    assert Math().judge("answer 2x", "x+A+a", "").outcome is Outcome.UNSCORED
    assert VERIFIERS["numbers"].judge("answer 2", "two", "").outcome is Outcome.UNSCORED
    assert VERIFIERS["choice"].judge("answer A", "Paris", "").outcome is Outcome.UNSCORED


@settings(deadline=None)
@given(text=st.text(), gold=st.sampled_from(["5", "1/3", "B", "Rome"]))
def test_no_text_raises_or_is_right_by_chance(text, gold):
    for verifier in VERIFIERS.values():
        if not verifier.gold_fault(gold):
            verdict = verifier.judge(text, gold, "")
            assert verdict.outcome is not Outcome.UNSCORED
            assert not verdict.right or any(part in text.casefold() for part in (gold.casefold(), "333333"))


@given(st.integers(-(10**9), 10**9), st.sampled_from([3, 7, 9, 11, 13, 21, 999]), st.integers(0, 12))
def test_rounded_numbers_are_right_only_if_correctly_rounded_and_long_enough(above, below, places):
    value = Fraction(above, below)
    gold, rounded = read_number(f"{above}/{below}"), Fraction(round(value * 10**places), 10**places)
    assume(value.denominator != 1)
    for off in (0, 1, -1):
        units = rounded * 10**places + off
        digits = f"{abs(int(units)):0{places + 1}d}"
        text = ("-" if units < 0 else "") + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)
        enough = len(digits.lstrip("0")) >= 6 and places > 0
        assert same_number(gold, read_number(text)) == (off == 0 and enough), text
