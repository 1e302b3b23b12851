"""What an attack is: a program, and what would count as its success.

A program that finds itself successful prints `ESCAPED`. Beside that the besieger looks from outside: at canary files,
sockets that listen, a victim process, surviving processes, memory, and at the next program in the same sandbox.

In programs and tests, `@DIRECTORY@` is a directory outside that holds the file `secret`, `@PORT@` and `@ABSTRACT@`
are where sockets listen, `@TOKEN@` names what an attack writes or sends, `@SECRET@` (tests only) is the right answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

PREAMBLE = """
import ctypes, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def tries(action, *arguments):
    try:
        return action(*arguments)
    except BaseException as error:
        print("refused:", type(error).__name__)
def escaped(what):
    print("ESCAPED", what, flush=True)
"""
ANSWER_TESTS = "assert answer(7) == @SECRET@"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One program that tries to do what it must not."""

    name: str
    program: str
    success: str
    """What would count as an escape, in words."""
    tests: str = ""
    """Tests of a function `answer`, which must not pass; empty for a script."""
    lasts: bool = False
    """It runs into a limit of time on purpose."""


def script(name: str, success: str, program: str, *, lasts: bool = False) -> Attack:
    """An attack on the machine."""
    return Attack(name=name, program=PREAMBLE + program, success=success, lasts=lasts)


def forgery(name: str, program: str, *, tests: str = ANSWER_TESTS, lasts: bool = False) -> Attack:
    """An attack on a verdict."""
    success = "tests that ask for a number it cannot know pass"
    return Attack(name=name, program=program, success=success, tests=tests, lasts=lasts)
