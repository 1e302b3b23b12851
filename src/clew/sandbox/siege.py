"""Run attacks and look from outside whether they succeeded: files, sockets, processes, memory, the next program."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from clew.sandbox.attack import Attack
from clew.sandbox.errors import SandboxBroken
from clew.sandbox.functions import FunctionTests
from clew.sandbox.limits import Limits
from clew.sandbox.pool import Pool
from clew.sandbox.programs import Ran
from clew.sandbox.worker import Isolation

LIMITS = Limits(cpu_s=2, wall_s=3.0, memory_mib=256, threads=4, files_mib=8, output_kib=512)
_SLACK_S = 12.0
_OTHER_MIB = 256
"""Memory of warm interpreters, files and pipes."""
_NEXT = (
    "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
    "print(6 * 7, os.listdir('/tmp'), libc.shmget(4711, 1, 0) < 0, libc.msgget(4711, 0) < 0, os.getpid())"
)
_NEXT_SAYS = b"42 [] True True 1\n"


@final
@dataclass(frozen=True, slots=True)
class Assault:
    """What became of one attack."""

    name: str
    escapes: tuple[str, ...]
    """What an attack achieved, in words; empty if nothing."""
    outcome: str
    """What the check said of the program."""
    seconds: float


@dataclass(slots=True)
class _Canaries:
    """What an attack may try to touch, all outside the sandbox."""

    directory: Path
    token: str
    secret: int
    tcp: socket.socket
    listening: tuple[socket.socket, ...]
    victim: subprocess.Popen[bytes]

    def filled(self, text: str) -> str:
        """`text` with the places that an attack may know."""
        for name, value in (
            ("@DIRECTORY@", str(self.directory)),
            ("@PORT@", str(self.tcp.getsockname()[1])),
            ("@ABSTRACT@", f"clew-{self.token}"),
            ("@TOKEN@", self.token),
        ):
            text = text.replace(name, value)
        return text

    def touched(self) -> Iterator[str]:
        """What was reached, in words."""
        for listener in self.listening:
            with suppress(BlockingIOError):
                if listener.type == socket.SOCK_DGRAM:
                    listener.recv(64)
                else:
                    listener.accept()[0].close()
                yield "a socket outside was reached"
        if sorted(path.name for path in self.directory.iterdir()) != ["secret", "socket"]:
            yield "the directory outside was changed"
        for place in (tempfile.gettempdir(), "/var/tmp", "/dev/shm", str(Path.home()), "/"):
            if os.path.exists(f"{place}/{self.token}"):
                yield f"a file was written to {place}"
        if self.victim.poll() is not None:
            yield "a process outside was ended"


@contextmanager
def _canaries() -> Iterator[_Canaries]:
    # Not in /tmp, which every sandbox has one of its own of.
    where = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="clew-siege-", dir=where) as name:
        token, secret = secrets.token_hex(8), secrets.randbelow(2**61) + 2**61
        directory = Path(name)
        (directory / "secret").write_text(str(secret), encoding="ascii")
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(tcp.getsockname())
        unix = [socket.socket(socket.AF_UNIX, kind) for kind in (1, 1, 2)]
        addresses = (f"\0clew-{token}", f"{name}/socket", f"\0clew-{token}-datagrams")
        for listener, address in zip(unix, addresses, strict=True):
            listener.bind(address)
        for listener in unix[:2]:
            listener.listen()
        for listener in (tcp, udp, *unix):
            listener.setblocking(False)
        victim = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
        os.environ["CLEW_CANARY"] = str(secret)
        try:
            yield _Canaries(directory, token, secret, tcp, (tcp, udp, *unix), victim)
        finally:
            del os.environ["CLEW_CANARY"]
            victim.kill()
            victim.wait()
            for listener in (tcp, udp, *unix):
                listener.close()


def besiege(attack: Attack, isolation: Isolation) -> Assault:
    """Run one attack in sandboxes of its own."""
    others = _own_processes()
    pool = Pool(isolation, lanes=1)
    try:
        with _canaries() as canaries:
            pool.run("pass", limits=LIMITS)
            before, started = _own_processes(), time.monotonic()
            with _memory_watch(others) as most_mib:
                outcome, escapes = _run(pool, attack, canaries)
            seconds = time.monotonic() - started
            escapes += canaries.touched()
            if seconds > LIMITS.wall_s + _SLACK_S:
                escapes.append(f"it lasted {seconds:.0f} s")
            processes = 1 if isolation.filter_calls else 1 + LIMITS.threads
            if most_mib[0] > processes * LIMITS.memory_mib + LIMITS.files_mib + _OTHER_MIB:
                escapes.append(f"it used {most_mib[0]} MiB")
            escapes += _after(pool, before)
    finally:
        pool.close()
    return Assault(attack.name, tuple(escapes), outcome, seconds)


def _run(pool: Pool, attack: Attack, canaries: _Canaries) -> tuple[str, list[str]]:
    program = canaries.filled(attack.program)
    secret = str(canaries.secret)
    try:
        if attack.tests:
            tests = FunctionTests(entry="answer", context="", tests=attack.tests.replace("@SECRET@", secret))
            tested = pool.check(program, tests, LIMITS)
            return tested.reason, ["the tests passed"] if tested.passed else []
        ran = pool.run(program, limits=LIMITS)
    except SandboxBroken as error:
        return f"unscored: {error}", []
    return ran.failure or "ended well", list(_printed(ran, secret))


def _printed(ran: Ran, secret: str) -> Iterator[str]:
    said = (ran.stdout + ran.stderr).decode(errors="replace")
    if "ESCAPED" in said:
        yield said[said.index("ESCAPED") :][:200]
    for what in (secret, "root:", os.environ.get("HOME", "/no home") + "/.ssh", socket.gethostname() + "\n"):
        if what in said:
            yield "it read something outside"


def _after(pool: Pool, before: set[int]) -> Iterator[str]:
    """Escapes that show only later: survivors, and what the next program finds."""
    ran = pool.run(_NEXT, limits=LIMITS)
    if ran.stdout != _NEXT_SAYS:
        yield f"the next program found {ran.stdout[:80]!r} {ran.failure}"
    pool.close()
    time.sleep(0.05)
    left = {pid for pid in _own_processes() - before if _command(pid)}
    if left:
        yield f"processes {sorted(left)} survived"
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _own_processes() -> set[int]:
    """All processes below this one."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError, IndexError, ValueError):
                stat = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def _command(pid: int) -> bool:
    """Whether the process still runs: one that ended and waits to be noticed has no command."""
    with suppress(OSError):
        return bool(Path("/proc", str(pid), "cmdline").read_bytes())
    return False


@contextmanager
def _memory_watch(others: set[int]) -> Iterator[list[int]]:
    """Most MiB that all processes below this one held at once, without `others`, of which it is one."""
    most, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            held = 0
            for pid in _own_processes() - others:
                with suppress(OSError, IndexError, ValueError):
                    pages = int(Path("/proc", str(pid), "statm").read_text(encoding="ascii").split()[1])
                    held += pages * os.sysconf("SC_PAGE_SIZE")
            most[0] = max(most[0], held // 2**20)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        stop.set()
        watcher.join()
