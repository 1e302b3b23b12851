"""Many threads, dead sandboxes, missing bubblewrap."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from clew.sandbox import siege
from clew.sandbox.errors import SandboxBroken, SandboxUnavailable
from clew.sandbox.functions import FunctionTests
from clew.sandbox.limits import Limits
from clew.sandbox.pool import Pool
from clew.sandbox.worker import Isolation


def test_threads_share_sandboxes_and_answers_do_not_mix(pool, limits):
    def work(number: int) -> bool:
        tests = FunctionTests(entry="f", context="", tests=f"assert f() == {number}")
        return (
            pool.run(f"print({number})", "", limits).stdout == f"{number}\n".encode()
            and pool.check(f"def f(): return {number}", tests, limits).passed is True
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(24)))
    assert len(pool._idle) <= 2 * pool.lanes


def test_a_sandbox_that_died_is_replaced(pool, limits):
    pool.run("pass", "", limits)
    for worker in pool._idle:
        worker.process.kill()
        worker.process.wait()
    assert pool.run("print(1)", "", limits).stdout == b"1\n"


def test_a_sandbox_that_dies_during_a_check_leaves_it_unscored(pool, limits):
    pool.close()
    before = siege._own_processes()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(pool.run, "import time; time.sleep(60)", "", replace(limits, wall_s=60.0))
        for pid in _started(before):
            os.kill(pid, 9)
        with pytest.raises(SandboxBroken):
            running.result()
    assert pool.run("print(1)", "", limits).stdout == b"1\n"


def _started(before: set[int]) -> set[int]:
    """The processes that started after `before`, once a program runs in a sandbox."""
    for _ in range(200):
        time.sleep(0.1)
        started = siege._own_processes() - before
        if len(started) >= 4:  # Bubblewrap's, the warden, the keeper and the program.
            return started
    raise AssertionError("no program started")


def test_sandboxes_and_programs_end_with_the_process_that_started_them(pool):
    program = "import time\nwhile True: time.sleep(0.01)"
    host = "from clew.sandbox.pool import Pool\nfrom clew.sandbox.limits import Limits\n"
    host += f"Pool().run({program!r}, '', Limits(wall_s=100.0))"
    before = siege._own_processes()
    killed = subprocess.Popen([sys.executable, "-c", host], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        started = _started({*before, killed.pid})
    finally:
        killed.kill()
        killed.wait()
    for _ in range(50):
        left = [pid for pid in started if siege._command(pid)]
        if not left:
            break
        time.sleep(0.1)
    assert left == []


def test_without_bubblewrap_nothing_runs_and_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable) as caught:
        Pool().run("print(1)")
    message = str(caught.value)
    assert "bwrap is not on the PATH" in message
    assert "apt-get install bubblewrap" in message
    assert "dangerously_without_isolation" in message


def test_a_bubblewrap_that_fails_is_quoted(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: no permissions to create a new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SandboxUnavailable, match="no permissions to create a new namespace"):
        Pool().run("print(1)")


def test_the_dangerous_way_runs_without_bubblewrap_under_limits(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    pool = Pool(Isolation(dangerously_without_isolation=True), lanes=1)
    limits = Limits(cpu_s=1, wall_s=2.0, memory_mib=256)
    try:
        assert pool.run("print(input())", "hello\n", limits).stdout == b"hello\n"
        assert pool.run("x = bytearray(10**9)", "", limits).failure == "ended with status 1: MemoryError"
        assert pool.run("import time; time.sleep(60)", "", limits).failure == "took longer than 2 s"
        tests = FunctionTests(entry="f", context="", tests="assert f(2) == 4")
        assert pool.check("def f(x): return x * x", tests, limits).passed is True
    finally:
        pool.close()
