"""Run a function in a process of its own that is killed when it takes too long or too much memory.

For verifiers that hand untrusted text to libraries which may hang, recurse or blow up on it. The process persists
from call to call, so that a call costs a tenth of a millisecond; after a kill the next call starts a new one. This is
a bound on time and memory, not a sandbox: programs that someone else wrote belong into `clew.sandbox`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clew.core.errors import ClewError, InvalidValue
from clew.tasks import killable_child
from clew.tasks.killable_child import LENGTH

_START_SECONDS = 120.0
"""For importing the function's module; on a busy machine sympy alone takes seconds."""
_LAST_WORDS_SECONDS = 0.5
"""For a process whose socket closed to end, so that its status can be told."""
_ENDED = os.WEXITED | os.WNOWAIT | os.WNOHANG
_LONGEST_REPLY = 1 << 26
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR", "TZ")
"""Variables of the environment that the process sees: none that could hold a secret."""
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
_SAME_EVERY_TIME = {"PYTHONHASHSEED": "0"}
"""What follows the order of a set comes out the same in every process."""


class CallFailed(ClewError):
    """A call gave no result: whatever it was to judge is unscored."""


class CallTimedOut(CallFailed, TimeoutError):
    """The call took longer than its time limit; its process was killed."""


class CallCrashed(CallFailed, RuntimeError):
    """The call raised, ran out of memory or took its process down."""


class CannotStart(ClewError, RuntimeError):
    """The process cannot be started or cannot import the function: no call will ever work."""


class Killable:
    """A function of a module, called in another process under limits. Safe to share between threads (calls queue).

    Arguments must be picklable, results JSON-able (tuples come back as lists). Works after a fork: each process gets a
    child of its own. The child ends with `close`, with the object, and with the interpreter.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        seconds: float = 5.0,
        cpu_seconds: float | None = None,
        memory_mib: int = 1024,
        warm_up: tuple[Any, ...] | None = None,
    ) -> None:
        """Limits of a call: `seconds` on the clock, and of `cpu_seconds` computed, which do not depend on what else the
        machine does. A new process is first called with `warm_up`, without limits, for what the function loads lazily.
        """
        for limit in (seconds, seconds if cpu_seconds is None else cpu_seconds):
            if not 0 < limit <= 86400:
                advice = "give the longest a call may take"
                raise InvalidValue("seconds", limit, "a number above 0, up to a day", advice)
        if memory_mib < 64:
            raise InvalidValue("memory_mib", memory_mib, "at least 64 MiB", "an interpreter alone needs half of that")
        self.module, self.name = function.__module__, function.__qualname__
        if self.module == "__main__" or "<" in self.name:
            accepted = "a function at the top of an importable module"
            raise InvalidValue("function", f"{self.module}.{self.name}", accepted, "move it into a module")
        self.seconds, self.cpu_seconds, self.memory_mib = seconds, cpu_seconds, memory_mib
        self._warm_up = warm_up
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def call(self, *arguments: Any) -> Any:
        """The result of the function. Raises `CallTimedOut`, `CallCrashed`; `CannotStart` if there is no process."""
        data = pickle.dumps(arguments)
        with self._lock:
            return self._answered(self._running(), data)

    def _answered(self, child: _Child, data: bytes) -> Any:
        try:
            reply = child.ask(data, self.seconds)
        except TimeoutError:
            self._drop()
            raise self._timed_out() from None
        except (OSError, EOFError, ValueError) as error:
            status = self._drop(patience=_LAST_WORDS_SECONDS)
            if status == -signal.SIGPROF:
                raise self._timed_out() from None
            advice = "leave it unscored, or report what it was called with"
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            given = f"the process of {self.name} ended ({how}) within a call"
            raise CallCrashed(given, "calls that return", advice) from error
        if reply.get("full") or reply.get("memory"):
            self._drop()
        if "failed" in reply:
            within = f"calls that return, within {self.memory_mib} MiB"
            raise CallCrashed(f"{self.name} raised {reply['failed']}", within, "leave it unscored")
        return reply["result"]

    def _timed_out(self) -> CallTimedOut:
        computed = f", {self.cpu_seconds:g} of them computed" if self.cpu_seconds is not None else ""
        accepted = f"calls of at most {self.seconds:g} seconds{computed}"
        return CallTimedOut(f"{self.name} did not end", accepted, "raise the limit, or leave it unscored")

    def _running(self) -> _Child:
        if self._child is not None and self._child.owner != os.getpid():
            self._child.forget()
            self._child = None
        if self._child is None:
            opening = {
                "path": sys.path,
                "module": self.module,
                "name": self.name,
                "seconds": self.seconds,
                "cpu_seconds": self.cpu_seconds or 0.0,
                "warm_up": self._warm_up,
                "memory": self.memory_mib << 20,
            }
            self._child = _Child()
            self._greet(self._child, pickle.dumps(opening))
        return self._child

    def _greet(self, child: _Child, opening: bytes) -> None:
        try:
            reply = child.ask(opening, _START_SECONDS)
        except (OSError, EOFError, ValueError) as error:
            reply = {"failed": f"{type(error).__name__}: {error}"}
        if "ready" not in reply:
            status = self._drop(patience=_LAST_WORDS_SECONDS)
            given = f"no process for {self.module}.{self.name}: {reply.get('failed')} (status {status})"
            within = f"a module that can be imported within {self.memory_mib} MiB and {_START_SECONDS:g} s"
            raise CannotStart(given, within, "import the module by hand, or raise memory_mib")

    def _drop(self, patience: float = 0.0) -> int:
        """Kill the child, if any, after `patience` seconds to end by itself; the status it ended with."""
        child, self._child = self._child, None
        return child.kill(patience) if child is not None else 0

    def close(self) -> None:
        """End the process; a later call starts another."""
        with self._lock:
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Child:
    """One process and the socket to it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._socket, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= _ONE_THREAD | _SAME_EVERY_TIME
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", str(Path(killable_child.__file__)), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
                start_new_session=True,  # an interrupt from the keyboard is the parent's business
            )
        self._end = weakref.finalize(self, _end, self._process, self._socket, self.owner)

    def ask(self, data: bytes, seconds: float) -> dict[str, Any]:
        """The reply; raises TimeoutError, or EOFError, OSError and ValueError for what is none."""
        deadline = time.monotonic() + seconds
        self._socket.settimeout(seconds)
        self._socket.sendall(LENGTH.pack(len(data)) + data)
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size, deadline))
        if length > _LONGEST_REPLY:
            raise ValueError(f"a reply of {length} bytes")
        reply = json.loads(self._exactly(length, deadline))
        if not isinstance(reply, dict):
            raise ValueError("not a reply")
        return reply

    def _exactly(self, count: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            piece = self._socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def kill(self, patience: float) -> int:
        """Kill the process, if it has not ended within `patience` seconds; the status it ended with."""
        deadline = time.monotonic() + patience
        # Not `wait`: until it is reaped, its number is its own and the group can be killed by it.
        while self._end.alive and not os.waitid(os.P_PID, self._process.pid, _ENDED) and time.monotonic() < deadline:
            time.sleep(0.002)
        self._end()
        return self._process.returncode or 0

    def forget(self) -> None:
        """Leave the process to the one that started it, from which this one was forked."""
        self._end.detach()
        self._socket.close()
        self._process.returncode = 0  # not this process's child: nothing to wait for


def _end(process: subprocess.Popen[bytes], connection: socket.socket, owner: int) -> None:
    if owner != os.getpid():
        return
    connection.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # The group, because the function may have started processes of its own.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
