"""One sandbox, kept warm: it runs one program at a time, each as if nothing had run there before."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import struct
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, final

from clew.sandbox.bubblewrap import INSTALL, start_dangerously, start_isolated, warden_command
from clew.sandbox.errors import SandboxBroken, SandboxUnavailable
from clew.sandbox.limits import Limits

START_S = 20.0
_END_S = 0.5
_LENGTH = struct.Struct("!I")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """Which walls stand. Programs that nobody has read need the default."""

    dangerously_without_isolation: bool = False
    """Run programs as the present user, with limits on time and memory alone: they can read and destroy all it can."""
    filter_calls: bool = True
    """Refuse system calls that no program needs. Off only to test the other walls."""


@dataclass(slots=True)
class Session:
    """A program that runs: its standard streams, and the line that says how it ended."""

    control: socket.socket
    stdin: int
    stdout: int
    stderr: int
    _open: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._open = {self.stdin, self.stdout, self.stderr}

    def close(self, descriptor: int) -> None:
        """Close one stream; again is no error."""
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)

    def hang_up(self) -> None:
        """Close everything; the keeper kills what still runs."""
        for descriptor in tuple(self._open):
            self.close(descriptor)
        self.control.close()


@final
@dataclass(slots=True)
class Worker:
    """A sandbox and the line to its warden. Not for several threads at once."""

    process: subprocess.Popen[bytes]
    host: socket.socket
    directory: str | None = None
    """Where programs without isolation start."""

    def start(self, job: dict[str, Any], limits: Limits) -> Session:
        """Start the program of `job`; raises `SandboxBroken` if the sandbox is gone."""
        ours, theirs = socket.socketpair()
        stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
        given = [theirs.fileno(), stdin[0], stdout[1], stderr[1]]
        session = Session(ours, stdin[1], stdout[0], stderr[0])
        ours.settimeout(START_S)
        self.host.settimeout(START_S)
        try:
            socket.send_fds(self.host, [b"G"], given)
            sent = json.dumps({**job, "limits": asdict(limits)}).encode()
            ours.sendall(_LENGTH.pack(len(sent)) + sent)
        except OSError as error:
            session.hang_up()
            raise SandboxBroken(f"the sandbox is gone: {error}") from None
        finally:
            theirs.close()
            for descriptor in given[1:]:
                os.close(descriptor)
        for descriptor in (session.stdin, session.stdout, session.stderr):
            os.set_blocking(descriptor, False)
        return session

    def stop(self) -> None:
        """End the sandbox and everything in it."""
        self.host.close()  # The warden ends when its line is cut; what it waits for ends in its grace.
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)


def start_worker(isolation: Isolation) -> Worker:
    """A new sandbox; raises `SandboxUnavailable` if none can be made here.

    It is started by a thread that lives as long as this process, because the kernel ends a sandbox with the thread
    that started it.
    """
    return _starter().submit(_start, isolation).result()


@cache
def _starter() -> ThreadPoolExecutor:
    os.register_at_fork(after_in_child=_starter.cache_clear)
    return ThreadPoolExecutor(1, thread_name_prefix="sandbox-starter")


def _start(isolation: Isolation) -> Worker:
    ours, theirs = socket.socketpair()
    layers = ["filter-calls"] if isolation.filter_calls else []
    directory = None
    try:
        if isolation.dangerously_without_isolation:
            directory = tempfile.mkdtemp(prefix="clew-unsafe-")
            process = start_dangerously(warden_command(theirs.fileno(), ()), theirs.fileno(), directory)
        else:
            layers += ["isolated", *(["switch-user"] if os.geteuid() == 0 else [])]
            process = start_isolated(warden_command(theirs.fileno(), layers), theirs.fileno())
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    worker = Worker(process, ours, directory)
    if not select.select([ours], [], [], START_S)[0] or ours.recv(1) != b"R":
        assert process.stderr is not None
        process.kill()
        said = process.stderr.read().decode(errors="replace").strip()[-300:]
        worker.stop()
        raise SandboxUnavailable(
            f"bubblewrap could not make a sandbox: {said or 'it did not start in time'}",
            "a kernel that lets this user make user namespaces (`bwrap --unshare-user --ro-bind / / true` works)",
            f"allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
            f"kernel.apparmor_restrict_unprivileged_userns=0), or run as root; {INSTALL} if it is older than 0.5",
        )
    return worker
