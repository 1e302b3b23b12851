"""Test a function that a program defines: the program in one sandbox, its tests in another, the host between them.

The tests call the function by sending its arguments as plain values, and judge the plain value that comes back. What a
program may do to its own process (other builtins, objects that equal everything, reading frames, exits, writing to
any descriptor) therefore changes its answers and nothing else: there is no verdict in its reach.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import final

from clew.sandbox.exchange import GRACE_S, Exchange, pump
from clew.sandbox.inside.programs import CALL, FAILED, PASSED
from clew.sandbox.limits import Limits
from clew.sandbox.programs import too_long
from clew.sandbox.worker import Worker


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTests:
    """How a function is tested."""

    entry: str
    """Name of the function."""
    context: str
    """Python that the tests need and that is no part of the program, such as helper functions of the question."""
    tests: str
    """Python that calls the function by its name and raises an exception if an answer is not right."""


@final
@dataclass(frozen=True, slots=True)
class Tested:
    """The result of the tests."""

    passed: bool | None
    """None if the tests themselves failed, which says nothing about the program."""
    reason: str
    odd: bool = False
    """Something had to be stopped: the sandboxes are not used again."""


def check_function(program: Worker, tester: Worker, source: str, tests: FunctionTests, limits: Limits) -> Tested:
    """Run `tests` against the function of `source`; raises `SandboxBroken` if a sandbox failed."""
    refused = too_long(source, limits)
    if refused:
        return Tested(False, refused)
    longer = replace(limits, wall_s=limits.wall_s + GRACE_S / 2, cpu_s=limits.cpu_s + 1)
    deadline = time.monotonic() + limits.wall_s + GRACE_S
    job = {"kind": "tests", "context": tests.context, "tests": tests.tests, "entry": tests.entry}
    asking = Exchange(tester.start(job, longer), longer)
    try:
        job = {"kind": "function", "source": source, "entry": tests.entry}
        answering = Exchange(program.start(job, limits), limits)
        try:
            return _relay(asking, answering, deadline)
        finally:
            answering.session.hang_up()
    finally:
        asking.session.hang_up()


def _relay(asking: Exchange, answering: Exchange, deadline: float) -> Tested:
    """Carry calls one way and answers the other, a line at a time, until the tests give their verdict."""
    both, waiting = (asking, answering), False
    while True:
        speaker = answering if waiting else asking
        pump(both, lambda: b"\n" in speaker.out or asking.over or answering.over, deadline)  # noqa: B023
        line = speaker.line()
        if line is None:
            return _died(asking, answering, waiting)
        if waiting:
            asking.send(line + b"\n")
            waiting = False
        elif line[:1] == CALL:
            answering.send(line[1:] + b"\n")
            waiting = True
        else:
            return _verdict(line)


def _verdict(line: bytes) -> Tested:
    kind, told = line[:1], line[1:].decode("ascii", "replace")
    if kind == FAILED:
        return Tested(False, f"a test failed: {told}")
    if kind == PASSED and told.isdecimal() and int(told) > 0:
        return Tested(True, f"passed all tests ({told} calls)")
    return Tested(None, "the tests never called the function")


def _died(asking: Exchange, answering: Exchange, waiting: bool) -> Tested:
    """The verdict when a side ended or wrote too much before there was one."""
    if asking.over:
        why = asking.end.reason(asking.limits, bytes(asking.err)) if asking.end else "they wrote too much"
        return Tested(None, f"the tests gave no verdict: {why or 'they ended early'}", odd=True)
    if answering.flooded or answering.end is None:
        return Tested(False, f"wrote more than {answering.limits.output_kib} KiB", odd=True)
    if answering.end.timed_out and not waiting:
        return Tested(None, "the tests took longer than the program may", odd=True)
    why = answering.end.reason(answering.limits, bytes(answering.err))
    return Tested(False, why or "ended before it had answered", odd=answering.end.status < 0)
