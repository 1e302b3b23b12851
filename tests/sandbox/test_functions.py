"""Functions tested across two sandboxes: right ones pass, wrong ones fail, broken tests say nothing."""

from __future__ import annotations

import pytest

from clew.sandbox.functions import FunctionTests


def check(pool, limits, program, tests, context=""):
    return pool.check(program, FunctionTests(entry="f", context=context, tests=tests), limits)


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(a, b=2): return a + b", "assert f(1) == 3\nassert f(1, b=5) == 6"),
        ("def f(x): return {(1, 2): {3}, 'a': [None, 1.5, b'x', 2**100]}",
         "assert f(0) == {(1, 2): {3}, 'a': [None, 1.5, b'x', 2**100]}"),
        ("def f(xs): return (x * 2 for x in xs)", "assert list(f([1, 2])) == [2, 4]"),
        ("f = lambda s: s[::-1]", "assert f('a\\ud800\\n\"') == '\"\\n\\ud800a'"),
        ("class F:\n    def __call__(self, x): return x\nf = F()", "assert f(()) == ()"),
        ("def f(x): raise KeyError(x)", "try:\n    f(1)\nexcept KeyError:\n    pass\nelse:\n    assert 0"),
        ("n = 0\ndef f():\n    global n\n    n += 1\n    return n", "assert [f(), f(), f()] == [1, 2, 3]"),
        ("print('noise')\ndef f(x):\n    print('more' * 99)\n    return input is not None", "assert f(1) is True"),
    ],
)  # fmt: skip
def test_right_functions_pass(pool, limits, program, tests):
    tested = check(pool, limits, program, tests)
    assert tested.passed is True, tested.reason


@pytest.mark.parametrize(
    ("program", "tests", "reason"),
    [
        ("def f(a): return a", "assert f(1) == 1\nassert f(2) == 3", "AssertionError in or after call 2"),
        ("def f(a): return (a,)", "assert f(1) == [1]", "AssertionError"),
        ("def f(a): return 1 / 0", "assert f(1) == 1", "ZeroDivisionError"),
        ("def g(a): return a", "assert f(1) == 1", "defines no function f"),
        ("f = 3", "assert f(1) == 1", "defines no function f"),
        ("def f(a:", "assert f(1) == 1", "SyntaxError"),
        ("def f(a): return open('/etc/passwd').read()", "assert f(1)", "FileNotFoundError"),
    ],
)
def test_wrong_functions_fail(pool, limits, program, tests, reason):
    tested = check(pool, limits, program, tests)
    assert tested.passed is False
    assert reason in tested.reason


@pytest.mark.parametrize(
    "tests", ["", "assert True", "this is no Python", "import sys; sys.exit(0)", "import os; os._exit(0)", "1\0"]
)
def test_tests_that_ask_nothing_or_are_broken_say_nothing(pool, limits, tests):
    assert check(pool, limits, "def f(x): return x", tests).passed is None


def test_a_broken_context_says_nothing(pool, limits):
    assert check(pool, limits, "def f(x): return x", "assert f(1) == 1", context="1 / 0").passed is None


def test_tests_use_the_helpers_of_the_context_and_not_of_the_program(pool, limits):
    context = "def double(x): return 2 * x\ndef f(x): pass"
    program = "def double(x): return 0\ndef f(x): return 0"
    assert check(pool, limits, program, "assert f(3) == double(3)", context).passed is False
    assert check(pool, limits, "def f(x): return 2 * x", "assert f(3) == double(3)", context).passed is True


def test_reasons_tell_no_expected_value(pool, limits):
    tested = check(pool, limits, "def f(x): return x", "assert f(1) == 987654321, 987654321")
    assert "987654321" not in tested.reason
