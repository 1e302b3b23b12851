"""Scripts in a real sandbox: what goes in, what comes out, how they end, what bounds them."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from clew.core.errors import InvalidValue
from clew.sandbox.limits import Limits


def test_input_and_output(pool, limits):
    ran = pool.run("import sys\nfor line in sys.stdin: print(int(line) ** 2)", "3\n-4\n", limits)
    assert (ran.failure, ran.stdout, ran.odd) == ("", b"9\n16\n", False)


def test_output_larger_than_a_pipe_and_input_too(pool, limits):
    text = "x" * 300_000
    ran = pool.run("print(input()[::-1])", text + "\n", replace(limits, output_kib=512))
    assert ran.stdout == text.encode() + b"\n"


def test_input_that_is_not_read_does_no_harm(pool, limits):
    assert pool.run("print(1)", "x" * 2_000_000, limits).stdout == b"1\n"


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("import sys; sys.exit(0)", ""),
        ("raise SystemExit", ""),
        ("import os; os._exit(0)", ""),
        ("import sys; sys.exit(3)", "ended with status 3"),
        ("import sys; sys.exit('no')", "ended with status 1: no"),
        ("1 / 0", "ended with status 1: ZeroDivisionError: division by zero"),
        ("def f(:", "ended with status 1: SyntaxError: invalid syntax"),
        ("import ctypes; ctypes.string_at(0)", "was ended by signal 11"),
        ("x = bytearray(10**9)", "ended with status 1: MemoryError"),
        ("print('x' * 10**6)", "wrote more than 64 KiB"),
        ("import sys; sys.stderr.write('x' * 10**6)", "wrote more than 64 KiB"),
        ("#" * 300_000, "is longer than 256 KiB"),
        ("#" + "€" * 90_000, "is longer than 256 KiB"),
        ("import os; os.fork()", "ended with status 1: PermissionError: [Errno 1] Operation not permitted"),
    ],
)
def test_how_programs_end(pool, limits, program, failure):
    assert pool.run(program, "", limits).failure == failure


def test_time_by_the_processor_and_by_the_clock(pool, limits):
    assert pool.run("while True: pass", "", replace(limits, cpu_s=1, wall_s=60.0)).failure == (
        "used more than 1 s of processor time"
    )
    started = time.monotonic()
    ran = pool.run("import time; print(1, flush=True); time.sleep(60)", "", replace(limits, wall_s=0.5))
    assert (ran.failure, ran.stdout, ran.odd) == ("took longer than 0.5 s", b"1\n", True)
    assert time.monotonic() - started < 10


def test_it_ends_as_python_would_end_it(pool, limits):
    program = """
import atexit, threading, time
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()
print("main", __name__, end="")
"""
    assert pool.run(program, "", limits).stdout == b"main __main__thread\nat exit\n"


def test_programs_may_use_threads_and_deep_recursion(pool, limits):
    program = """
import sys, threading
sys.setrecursionlimit(10**6)
threading.stack_size(64 * 2**20)
def deep(n): return 0 if n == 0 else 1 + deep(n - 1)
def main(): print(deep(20000))
t = threading.Thread(target=main)
t.start()
t.join()
"""
    assert pool.run(program, "", limits).stdout == b"20000\n"


def test_the_standard_library_is_there_and_packages_are_not(pool, limits):
    program = "import hashlib, sqlite3, asyncio, json\nasync def f(): return 1\nprint(asyncio.run(f()))"
    assert pool.run(program, "", limits).stdout == b"1\n"
    assert "ModuleNotFoundError" in pool.run("import pytest", "", limits).failure


def test_nothing_is_left_for_the_next_program(pool, limits):
    assert pool.run("import builtins, os\nbuiltins.len = None\nopen('/tmp/x', 'w')", "", limits).failure == ""
    for _ in range(4):
        ran = pool.run("import os\nprint(len(os.listdir('/tmp')), dict(os.environ), os.getpid())", "", limits)
        assert ran.stdout == b"0 {} 1\n"


def test_several_processes_only_if_asked_for_and_no_more(pool, limits):
    program = """
import os, time
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except OSError as error:
    print(made, type(error).__name__)
"""
    ran = pool.run(program, "", replace(limits, processes=3, threads=2))
    assert ran.stdout in (b"4 BlockingIOError\n", b"5 BlockingIOError\n")


@pytest.mark.parametrize("bad", [{"cpu_s": 0}, {"wall_s": -1.0}, {"wall_s": float("nan")}, {"processes": 0}])
def test_limits_that_bound_nothing_are_refused(bad):
    with pytest.raises(InvalidValue):
        Limits(**bad)
