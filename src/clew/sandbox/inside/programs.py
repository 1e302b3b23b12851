"""The three kinds of program that a sandbox runs: a script, a function that answers calls, the tests of a function.

Each runs in a process of its own, forked from an interpreter that is warm and holds nothing.
"""

from __future__ import annotations

import atexit
import builtins
import json
import os
import sys
import types
from collections.abc import Mapping
from typing import Any, BinaryIO, NoReturn

from clew.sandbox.inside.values import Opaque, Unsendable, decode, encode

CALL, PASSED, FAILED = b"C", b"P", b"F"
"""First byte of a line that the tests write: a call of the function, or how they ended."""
_NOT_RAISED_AGAIN = (StopIteration, StopAsyncIteration, Warning)
"""In the tests these would end a loop early instead of failing it."""


class CandidateError(Exception):
    """The function under test raised something that is not a built-in exception."""


def run_to_the_end(job: Mapping[str, Any]) -> NoReturn:
    """Run the program of `job` and end the process as `python program.py` would, without taking Python apart."""
    status = 1
    try:
        run(job)
        status = 0
    except SystemExit as error:
        status = _status(error.code)
    except BaseException as error:  # noqa: BLE001 - what a program does not catch is printed and is its end
        sys.excepthook(type(error), error, error.__traceback__)
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _status(code: object) -> int:
    if code is None or isinstance(code, int):
        return int(code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def run(job: Mapping[str, Any]) -> None:
    """Run the program of `job`."""
    match job["kind"]:
        case "script":
            run_script(job["source"])
        case "function":
            answer_calls(job["source"], job["entry"])
        case "tests":
            run_tests(job["context"], job["tests"], job["entry"])
        case _:
            raise ValueError("no such kind of program")


def run_script(source: str) -> None:
    """Run `source` as the main program; it has standard input and output to itself."""
    _execute(source, _module("__main__"), "program.py")


def answer_calls(source: str, entry: str) -> NoReturn:
    """Define what `source` defines, then answer calls of its function `entry` until there are no more."""
    requests, replies = _private_channel()
    namespace = _module("__main__")
    _execute(source, namespace, "program.py")
    function = namespace.get(entry)
    if not callable(function):
        sys.exit(f"the program defines no function {entry}")
    for line in requests:
        given = decode(json.loads(line))
        try:
            reply = {"v": encode(function(*given[0], **given[1]))}
        except Exception as error:  # noqa: BLE001 - whatever a program under test raises is its answer
            reply = {"e": [type(error).__name__[:80], str(error)[:200]]}
        _write_all(replies, json.dumps(reply).encode() + b"\n")
    os._exit(0)


def run_tests(context: str, tests: str, entry: str) -> None:
    """Run `tests` with the name `entry` standing for the function under test, which lives in another sandbox."""
    requests, replies = _private_channel()
    namespace = _module("tests")
    checked = compile(tests, "tests.py", "exec", dont_inherit=True)
    _execute(context, namespace, "context.py")
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        sent = json.dumps(encode([list(args), kwargs]))
        _write_all(replies, CALL + sent.encode() + b"\n")
        return _answer(requests.readline())

    namespace[entry] = call
    try:
        exec(checked, namespace)  # noqa: S102 - inside the sandbox
    except Exception as error:  # noqa: BLE001 - any exception fails a test
        _write_all(replies, FAILED + f"{type(error).__name__} in or after call {calls}".encode() + b"\n")
    else:
        _write_all(replies, PASSED + str(calls).encode() + b"\n")


def _answer(line: bytes) -> Any:
    """The plain value that the function gave; raises what it raised, if that is a built-in exception."""
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        raise CandidateError("the answer is not JSON") from None
    if not isinstance(reply, dict) or reply.keys() not in ({"v"}, {"e"}):
        raise CandidateError("the answer is no reply")
    if "v" in reply:
        return decode(reply["v"])
    raise _exception(reply["e"])


def _exception(told: Any) -> Exception:
    match told:
        case [str(name), str(message)]:
            kind = getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_RAISED_AGAIN):
                try:
                    return kind(message)
                except TypeError:  # UnicodeDecodeError wants five arguments.
                    return CandidateError(name)
            return CandidateError(name)
    return CandidateError("no exception")


def _module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module.__dict__


def _execute(source: str, namespace: dict[str, Any], file: str) -> None:
    exec(compile(source, file, "exec", dont_inherit=True), namespace)  # noqa: S102 - inside the sandbox


def _private_channel() -> tuple[BinaryIO, int]:
    """What were standard input and output; what the program prints goes to standard error instead."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


__all__ = ["CALL", "FAILED", "PASSED", "CandidateError", "Opaque", "Unsendable", "run", "run_to_the_end"]
