"""Arithmetic: its verifier and its problems."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue, UnknownName
from clew.core.task import split_of
from clew.core.types import Outcome, Problem
from clew.tasks.arithmetic import Arithmetic

TASK = Arithmetic()


def problem_of(expression: str) -> Problem:
    return TASK.problem({"expression": expression})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3 + 5 * 7 - 2", "36"),
        ("2-9", "-7"),
        ("4-4", "0"),
        ("(3+5)*7", "56"),
        ("8/4", "2"),
        ("9*9*9*9", "6561"),
        ("2-3*4-5", "-15"),
    ],
)
def test_gold(expression: str, value: str) -> None:
    problem = problem_of(expression)
    assert TASK.gold(problem) == value
    verdict = TASK.verify(problem, f"so answer {value}")
    assert (verdict.outcome, verdict.value, verdict.answer) == (Outcome.RIGHT, 1.0, value)
    assert not TASK.verify(problem, f"answer {int(value) + 1}").right


@pytest.mark.parametrize(
    "answer",
    [
        "+36",
        "36.",
        "36.0",
        "036",
        "3_6",
        "3 6",
        "0x24",
        "36e0",
        "3.6e1",
        "=36",
        "36 or 37",
        "36\n36",
        "36\u200b",
        "\uff13\uff16",
        "\u0663\u0666",
        "36\u00a0",
        "(36)",
        "--36",
        "- 36",
        "\u221236",
        "37",
        "-36",
        "",
        "thirty-six",
        "36!",
        "35+1",
        "72/2",
        "36,",
        "36\x00",
        "\ud800",
        "9" * 10_000_000,
        "0" * 100 + "36",
        "6**2",
        "'36'",
        "36 # it",
        "$36$",
        "-0",
        "00",
    ],
)
def test_all_but_the_plain_integer_is_wrong(answer: str) -> None:
    verdict = TASK.verify(problem_of("3 + 5 * 7 - 2"), f"answer {answer}")
    assert (verdict.outcome, verdict.value) == (Outcome.WRONG, 0.0)
    assert verdict.answer == TASK.extract(answer) == (answer if answer in ("37", "-36") else None)


def test_zero_has_one_spelling() -> None:
    assert TASK.verify(problem_of("4 - 4"), "answer 0").right
    assert not TASK.verify(problem_of("4 - 4"), "answer -0").right
    assert not TASK.verify(problem_of("4 - 4"), "answer 00").right


@given(st.integers(-(10**60), 10**60))
def test_extract_round_trips(value: int) -> None:
    assert TASK.extract(f"try 3 no answer {value}") == str(value)


@given(st.lists(st.sampled_from("+-*"), min_size=1, max_size=9), st.data())
def test_gold_is_what_python_computes(operators: list[str], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 99), min_size=len(operators) + 1, max_size=len(operators) + 1))
    text = str(numbers[0]) + "".join(f" {op} {n}" for op, n in zip(operators, numbers[1:], strict=True))
    assert TASK.gold(problem_of(text)) == str(eval(text))


def test_reordered_operands_are_the_same_problem_in_the_same_split() -> None:
    assert problem_of("3 + 5 * 7 - 2").id == problem_of("7*5 - 2 + 3").id == "arithmetic:3+5*7-2"
    assert problem_of("8 - 3").id != problem_of("3 - 8").id
    train = {p.id for p in TASK.problems("train", 3000, seed=0)}
    for problem in TASK.problems("test", 500, seed=0):
        assert split_of(problem.id) == "test"
        first, op, rest = problem.metadata["expression"].partition(" + ")
        if op and "-" not in rest:
            assert problem_of(f"{rest} + {first}").id == problem.id
        assert problem.id not in train


def test_settings_are_respected() -> None:
    for problem in Arithmetic(operations=2, low=5, high=7).problems("train", 50, seed=0):
        terms = problem.metadata["expression"].split()
        assert len(terms) == 5
        assert all(term in ("5", "6", "7") for term in terms[::2])
        assert problem.prompt[1].content == "compute " + " ".join(terms)
        assert TASK.difficulty(problem) == "2 operations"
    assert TASK.difficulty(problem_of("1+1")) == "1 operation"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"expression": 3},
        {"expression": "3"},
        {"expression": "3/2"},
        {"expression": "3/(2-2)"},
        {"expression": "2**3"},
        {"expression": "1" + "+1" * 10},
        {"expression": "10000+1"},
        {"expression": "x" * 10_000_000},
        {"expression": "-3+5"},
    ],
)
def test_bad_facts(metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidValue) as caught:
        TASK.problem(metadata)
    assert len(str(caught.value)) < 500


def test_unknown_fact_and_bad_settings() -> None:
    with pytest.raises(UnknownName, match="did you mean 'expression'"):
        TASK.problem({"expresion": "3+5"})
    for settings in ({"operations": 0}, {"operations": 10}, {"low": -1}, {"low": 9, "high": 8}, {"high": 10000}):
        with pytest.raises(InvalidValue):
            Arithmetic(**settings)
    with pytest.raises(InvalidValue, match="widen"):
        Arithmetic(operations=1, low=1, high=2).problems("train", 100, seed=0)
