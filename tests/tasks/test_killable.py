"""Calls in a process that can be killed: results, limits, what is left behind."""

from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import killable_functions as functions
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.errors import ClewError, InvalidValue
from clew.tasks.killable import CallCrashed, CallTimedOut, CannotStart, Killable

NASTY = "\0 \ud800 \U0010ffff 10^{9} \r\n"


def children() -> set[str]:
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        found |= set(path.read_text().split())
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.fixture(scope="module")
def echo():
    with Killable(functions.echo) as made:
        yield made


@settings(deadline=None, max_examples=30)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_values_come_back_as_they_went(echo, value):
    assert echo.call(value) == value


def test_nasty_texts_and_large_ones(echo):
    assert echo.call(NASTY) == NASTY
    assert echo.call("x" * 10_000_000) == "x" * 10_000_000
    assert math.isnan(echo.call(math.nan))
    assert echo.call(1, (2, 3)) == [1, [2, 3]]


def test_the_process_persists_until_it_is_closed():
    with Killable(functions.count) as killable:
        assert [killable.call() for _ in range(3)] == [1, 2, 3]
        killable.close()
        assert killable.call() == 1


@pytest.mark.parametrize("how", ["sleep", "power", "spin"])
def test_what_takes_too_long_is_killed_in_time_and_the_next_call_works(how):
    with Killable(functions.misbehave, seconds=0.3) as killable:
        assert killable.call("fine") == "fine"
        before, start = children(), time.monotonic()
        with pytest.raises(CallTimedOut, match=r"at most 0\.3 seconds"):
            killable.call(how)
        assert 0.3 <= time.monotonic() - start < 3.0
        assert len(children()) == len(before) - 1
        assert killable.call("fine") == "fine"


def test_a_limit_on_what_is_computed_leaves_out_what_is_waited_for():
    with Killable(functions.misbehave, seconds=60, cpu_seconds=0.2) as killable:
        assert killable.call("nap") == "rested"
        with pytest.raises(CallTimedOut, match=r"0\.2 of them computed"):
            killable.call("spin")
        assert killable.call("fine") == "fine"


def test_the_warm_up_is_called_first_without_limits_in_every_new_process():
    with Killable(functions.count, cpu_seconds=5, warm_up=()) as killable:
        assert (killable.call(), killable.call()) == (2, 3)
        killable.close()
        assert killable.call() == 2
    with pytest.raises(CannotStart, match="ZeroDivisionError"):
        Killable(functions.misbehave, warm_up=("raise",)).call("fine")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("memory", "MemoryError"),
        ("exit", "exit status 3"),
        ("system exit", "SystemExit: 4"),
        ("segfault", "signal 11"),
        ("recursion", "RecursionError"),
        ("raise", "ZeroDivisionError"),
        ("not json", "not JSON serializable"),
        ("kill group", "signal 9"),
    ],
)
def test_what_crashes_says_how_and_the_next_call_works(how, told):
    with Killable(functions.misbehave, memory_mib=512) as killable:
        with pytest.raises(CallCrashed, match=told) as caught:
            killable.call(how)
        assert isinstance(caught.value, ClewError) and caught.value.accepted and caught.value.advice
        assert killable.call("fine") == "fine"


def test_output_is_swallowed_and_a_closed_socket_is_a_crash(capfd):
    with Killable(functions.misbehave) as killable:
        assert killable.call("print") == "printed"
        with pytest.raises(CallCrashed):
            killable.call("close")
        assert killable.call("fine") == "fine"
    assert capfd.readouterr() == ("", "")


def test_a_process_that_is_half_full_is_replaced_before_it_can_fail_the_next_call():
    with Killable(functions.fill, memory_mib=512) as killable:
        assert killable.call(10) == 1
        assert killable.call(10) == 2
        assert killable.call(240) == 3
        assert killable.call(10) == 1


def test_it_sees_no_secret(monkeypatch):
    monkeypatch.setenv("SECRET_API_KEY", "hunter2")
    with Killable(functions.environment) as killable:
        seen = killable.call()
    assert "hunter2" not in seen.values() and seen["OMP_NUM_THREADS"] == "1" and seen["PATH"] == os.environ["PATH"]


def test_what_the_function_started_ends_with_it():
    with Killable(functions.leave_a_child) as killable:
        orphan = killable.call()
        assert alive(orphan)
    assert until(lambda: not alive(orphan))


def test_threads_wait_for_each_other(echo):
    answers: dict[int, object] = {}

    def ask(number: int) -> None:
        for step in range(20):
            answers[number * 100 + step] = echo.call(number * 100 + step)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 80 and all(key == value for key, value in answers.items())


def test_no_process_is_left_when_the_object_goes():
    before = children()
    killable = Killable(functions.echo)
    killable.call(1)
    (child,) = children() - before
    del killable
    gc.collect()
    assert not alive(int(child)) and children() == before


def script(body: str) -> str:
    return textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        sys.path[:0] = {[path for path in sys.path if path]!r}
        import killable_functions as functions
        from clew.tasks.killable import Killable
    """) + textwrap.dedent(body)


def run(body: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", script(body)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_no_process_is_left_when_the_interpreter_ends():
    done = run("""
        killable = Killable(functions.echo)
        killable.call(1)
        print(Path("/proc/self/task", str(os.getpid()), "children").read_text())
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert until(lambda: not alive(int(done.stdout)))


def test_a_fork_gets_a_process_of_its_own_and_leaves_the_first_alone():
    done = run("""
        killable = Killable(functions.count)
        assert killable.call() == 1
        pid = os.fork()
        if pid == 0:
            assert killable.call() == 1 and killable.call() == 2
            killable.close()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert killable.call() == 2
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_whose_parent_was_killed_ends():
    body = """
        import threading, time
        killable = Killable(functions.misbehave, seconds=0.2)
        killable.call("fine")
        print(Path("/proc/self/task", str(os.getpid()), "children").read_text(), flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", script(body)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert until(lambda: not alive(child))


@pytest.mark.parametrize(
    ("seconds", "memory_mib"), [(0.0, 512), (-1.0, 512), (math.nan, 512), (math.inf, 512), (1.0, 0), (1.0, 63)]
)
def test_limits_that_make_no_sense(seconds, memory_mib):
    with pytest.raises(InvalidValue):
        Killable(functions.echo, seconds=seconds, memory_mib=memory_mib)


def test_functions_that_no_other_process_can_import(monkeypatch):
    with pytest.raises(InvalidValue, match="importable module"):
        Killable(lambda: 1)
    monkeypatch.setattr(functions.count, "__module__", "no_such_module")
    with pytest.raises(CannotStart, match="no_such_module") as caught:
        Killable(functions.count).call()
    assert caught.value.advice
