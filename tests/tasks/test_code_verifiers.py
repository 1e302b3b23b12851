"""Programs judged by standard streams and by tests of a function, in real sandboxes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.core.types import Outcome
from clew.sandbox.errors import SandboxBroken, SandboxUnavailable
from clew.sandbox.pool import Pool
from clew.tasks.code_verifiers import CodeSettings, FunctionUnderTest, StandardStreams

SHORT = CodeSettings(seconds=2, memory_mib=256)
STREAMS, FUNCTION = StandardStreams(settings=SHORT), FunctionUnderTest(settings=SHORT)
SUM = json.dumps([{"stdin": "3 4\n", "stdout": "7\n"}, {"stdin": "-1 1\n", "stdout": "0"}])
ADD = json.dumps({"entry": "add", "tests": "assert add(3, 4) == 7\nassert add(-1, 1) == 0"})


@pytest.fixture(scope="module", autouse=True)
def sandboxes() -> None:
    try:
        SHORT.pool().run("pass")
    except SandboxUnavailable as error:
        pytest.skip(f"no sandbox can be made here: {error.given}")


@pytest.mark.parametrize(
    ("text", "outcome", "reason"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", Outcome.RIGHT, "passed all tests (2)"),
        ("```python\na, b = map(int, input().split())\nprint(a + b, end='  \\n\\n')\n```", Outcome.RIGHT, "passed"),
        ("print(7)", Outcome.WRONG, "test 2 of 2: printed something else"),
        ("print(7)\nexit(1)", Outcome.WRONG, "test 1 of 2: ended with status 1"),
        ("print(' 7')", Outcome.WRONG, "test 1 of 2: printed something else"),
        ("print(7)\nprint()\nprint(0)", Outcome.WRONG, "printed something else"),
        ("import os; os.write(1, b'7\\xff')", Outcome.WRONG, "printed something else"),
        ("while True: pass", Outcome.WRONG, "test 1 of 2: "),
        ("x = '\ud800'\nprint(x)", Outcome.WRONG, "test 1 of 2: "),
        ("", Outcome.WRONG, "no program"),
        ("def f(: pass", Outcome.WRONG, "SyntaxError"),
    ],
)
def test_standard_streams(text, outcome, reason):
    verdict = STREAMS.judge(text, SUM, "")
    assert verdict.outcome is outcome, verdict
    assert reason in verdict.reason
    assert verdict.value == float(outcome is Outcome.RIGHT)
    assert verdict.answer == STREAMS.extract(text)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("def add(a, b): return a + b", Outcome.RIGHT),
        ("def add(a, b): return 7", Outcome.WRONG),
        ("def sub(a, b): return a + b", Outcome.WRONG),
        ("", Outcome.WRONG),
    ],
)
def test_functions(text, outcome):
    assert FUNCTION.judge(text, ADD, "").outcome is outcome


@pytest.mark.parametrize("gold", ["", "7", "{}", "[]", '[{"stdin": 1, "stdout": ""}]', "[" * 100_000])
def test_unusable_tests_leave_any_program_unscored(gold):
    assert STREAMS.gold_fault(gold)
    assert STREAMS.judge("print(1)", gold, "").outcome is Outcome.UNSCORED
    assert FUNCTION.gold_fault(gold)
    assert FUNCTION.judge("print(1)", gold, "").outcome is Outcome.UNSCORED
    assert not STREAMS.gold_fault(SUM)
    assert not FUNCTION.gold_fault(ADD)


def test_a_function_whose_tests_are_broken_is_unscored():
    gold = json.dumps({"entry": "add", "tests": "not Python at all"})
    verdict = FUNCTION.judge("def add(a, b): return a + b", gold, "")
    assert (verdict.outcome, verdict.value) == (Outcome.UNSCORED, None)


def test_a_sandbox_that_fails_leaves_the_answer_unscored(monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise SandboxBroken("gone")

    monkeypatch.setattr(Pool, "run", broken)
    monkeypatch.setattr(Pool, "check", broken)
    for verdict in (STREAMS.judge("print(1)", SUM, ""), FUNCTION.judge("print(1)", ADD, "")):
        assert (verdict.outcome, verdict.value, verdict.reason) == (Outcome.UNSCORED, None, "gone")


@settings(max_examples=15)
@given(st.text() | st.text(alphabet="()[]{}:=`\n xy0", max_size=80))
def test_garbage_is_wrong_and_never_raises(text):
    assert STREAMS.judge(text, SUM, "").outcome is Outcome.WRONG
    assert FUNCTION.judge(text, ADD, "").outcome is Outcome.WRONG


def test_what_is_expected_is_not_in_the_sandbox():
    secret = "918273645546372819"
    gold = json.dumps([{"stdin": "", "stdout": secret}])
    program = "import gc, sys\nfor held in gc.get_objects():\n    for part in gc.get_referents(held):\n"
    program += "        if isinstance(part, (str, bytes)) and '9182' + '7364' in str(part): print(part)"
    assert STREAMS.judge(program, gold, "").outcome is Outcome.WRONG
    assert STREAMS.judge(f"print({secret})", gold, "").outcome is Outcome.RIGHT


@pytest.mark.parametrize("bad", [{"seconds": 0}, {"memory_mib": 1}])
def test_settings_that_no_program_can_meet_are_refused(bad):
    with pytest.raises(InvalidValue):
        CodeSettings(**bad)
