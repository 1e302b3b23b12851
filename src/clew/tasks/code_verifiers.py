"""Verifiers of programs: by what they print for what they read, or by tests of a function. All run in the sandbox.

The reference answer of a row is its tests, as the text of a JSON value:

    stdio      [{"stdin": "3 4\\n", "stdout": "7\\n"}, ...]
    function   {"entry": "add", "tests": "assert add(3, 4) == 7", "context": ""}

A program that takes too long, uses too much or crashes is wrong, and the reason says which. A sandbox that failed, or
tests that give no verdict, leave the answer unscored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.types import Outcome, Verdict
from clew.sandbox.errors import SandboxBroken
from clew.sandbox.functions import FunctionTests
from clew.sandbox.limits import Limits
from clew.sandbox.pool import Pool, shared_pool
from clew.sandbox.worker import Isolation
from clew.tasks.code_answer import program_of


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSettings:
    """What a program may use, and where it runs."""

    seconds: int = 10
    """Processor seconds of a run; it may take twice as long by the clock."""
    memory_mib: int = 512
    """Memory of a run, in MiB."""
    dangerously_without_isolation: bool = False
    """Run programs without a sandbox, as the present user, who may lose everything."""

    def __post_init__(self) -> None:
        if self.seconds < 1:
            raise InvalidValue("seconds", self.seconds, "a whole number of at least 1", "raise it")
        if self.memory_mib < 128:
            raise InvalidValue("memory_mib", self.memory_mib, "at least 128, which Python itself needs", "raise it")

    def limits(self) -> Limits:
        """The limits of a run."""
        return Limits(cpu_s=self.seconds, wall_s=2.0 * self.seconds, memory_mib=self.memory_mib)

    def pool(self) -> Pool:
        """The sandboxes of this process."""
        return shared_pool(Isolation(dangerously_without_isolation=self.dangerously_without_isolation))


def judge_function(code: str, program: str, tests: FunctionTests, settings: CodeSettings) -> Verdict:
    """The verdict on the function of `program`, which the answer `code` was made into."""
    try:
        tested = settings.pool().check(program, tests, settings.limits())
    except SandboxBroken as error:
        return Verdict(Outcome.UNSCORED, None, code, str(error))
    if tested.passed is None:
        return Verdict(Outcome.UNSCORED, None, code, tested.reason)
    return Verdict(Outcome.RIGHT if tested.passed else Outcome.WRONG, float(tested.passed), code, tested.reason)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StandardStreams:
    """Right only if the program prints what each test expects, and ends with status 0.

    Spaces at the ends of lines and empty lines at the end do not count; everything else does. What is expected never
    enters the sandbox. The value is 0 or 1, never the share of tests passed.
    """

    settings: CodeSettings = CodeSettings()

    def judge(self, text: str, gold: str, question: str) -> Verdict:
        del question
        code = program_of(text)
        if code is None:
            return Verdict(Outcome.WRONG, 0.0, None, "no program")
        if self.gold_fault(gold):
            return Verdict(Outcome.UNSCORED, None, code, f"the tests are unusable: {self.gold_fault(gold)}")
        tests = json.loads(gold)
        for number, test in enumerate(tests, 1):
            try:
                ran = self.settings.pool().run(code, test["stdin"], self.settings.limits())
            except SandboxBroken as error:
                return Verdict(Outcome.UNSCORED, None, code, str(error))
            wrong = ran.failure or ("" if _same(ran.stdout, test["stdout"]) else "printed something else")
            if wrong:
                return Verdict(Outcome.WRONG, 0.0, code, f"test {number} of {len(tests)}: {wrong}")
        return Verdict(Outcome.RIGHT, 1.0, code, f"passed all tests ({len(tests)})")

    def extract(self, text: str) -> str | None:
        return program_of(text)

    def gold_fault(self, gold: str) -> str:
        tests = _json(gold)
        if not isinstance(tests, list) or not tests:
            return "not a JSON list of tests"
        for test in tests:
            if not isinstance(test, dict) or not all(isinstance(test.get(key), str) for key in ("stdin", "stdout")):
                return "a test without the texts stdin and stdout"
        return ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionUnderTest:
    """Right only if the tests of a function pass (`clew.sandbox.functions` says why nothing else passes them)."""

    settings: CodeSettings = CodeSettings()

    def judge(self, text: str, gold: str, question: str) -> Verdict:
        del question
        code = program_of(text)
        if code is None:
            return Verdict(Outcome.WRONG, 0.0, None, "no program")
        if self.gold_fault(gold):
            return Verdict(Outcome.UNSCORED, None, code, f"the tests are unusable: {self.gold_fault(gold)}")
        given = json.loads(gold)
        tests = FunctionTests(entry=given["entry"], context=given.get("context", ""), tests=given["tests"])
        return judge_function(code, code, tests, self.settings)

    def extract(self, text: str) -> str | None:
        return program_of(text)

    def gold_fault(self, gold: str) -> str:
        given = _json(gold)
        if not isinstance(given, dict) or not all(isinstance(given.get(key), str) for key in ("entry", "tests")):
            return "not a JSON object with the texts entry and tests"
        if not given["entry"].isidentifier():
            return "entry is not the name of a function"
        return "" if isinstance(given.get("context", ""), str) else "context is not a text"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _same(printed: bytes, expected: str) -> bool:
    try:
        return _lines(printed.decode("utf-8")) == _lines(expected)
    except UnicodeDecodeError:
        return False


def _lines(text: str) -> list[str]:
    lines = [line.rstrip(" \t\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
