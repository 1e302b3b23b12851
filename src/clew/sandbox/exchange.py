"""The streams of running programs, read and fed without ever waiting for one of them, up to their limits."""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import final

from clew.sandbox.errors import SandboxBroken
from clew.sandbox.limits import Limits
from clew.sandbox.worker import Session

GRACE_S = 10.0
"""How much longer than the limit the host waits for a keeper, which kills at the limit."""
_CHUNK = 65536
_LONGEST_END = 4096


@final
@dataclass(frozen=True, slots=True)
class End:
    """How a program ended, told by its keeper."""

    status: int
    """Exit status, or minus the number of the signal that ended it."""
    timed_out: bool
    wall_s: float
    cpu_s: float

    def reason(self, limits: Limits, said: bytes) -> str:
        """Why it failed, in words; empty if it ended well. `said` is its standard error."""
        if self.timed_out:
            return f"took longer than {limits.wall_s:g} s"
        if self.status == 0:
            return ""
        # What the kernel reports of the time it counted can be less by a fifth on a busy virtual machine.
        if self.status == -signal.SIGKILL and self.cpu_s >= limits.cpu_s * 0.7:
            return f"used more than {limits.cpu_s} s of processor time"
        if self.status < 0:
            return f"was ended by signal {-self.status}"
        lines = said[-2000:].decode(errors="replace").strip().splitlines()
        last = "".join(c for c in lines[-1][:200] if c.isprintable()) if lines else ""
        return f"ended with status {self.status}" + (f": {last}" if last else "")


@final
@dataclass(slots=True)
class Exchange:
    """One running program and everything it has said."""

    session: Session
    limits: Limits
    to_send: bytearray = field(default_factory=bytearray)
    close_when_sent: bool = False
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    end: End | None = None
    flooded: bool = False
    _closed: set[int] = field(default_factory=set)
    _told: bytearray = field(default_factory=bytearray)

    @property
    def over(self) -> bool:
        """It ended and all it wrote was read, or it wrote too much."""
        return self.flooded or self.end is not None

    def line(self) -> bytes | None:
        """Take the next whole line of its standard output, without the line's end; None if there is none yet."""
        stop = self.out.find(b"\n")
        if stop < 0:
            return None
        taken = bytes(self.out[:stop])
        del self.out[: stop + 1]
        return taken

    def send(self, data: bytes) -> None:
        """Queue `data` for its standard input."""
        self.to_send += data

    def events(self) -> list[tuple[int, int]]:
        """Which descriptors to watch, for what."""
        session, watched = self.session, []
        for descriptor in (session.stdout, session.stderr):
            if descriptor not in self._closed:
                watched.append((descriptor, selectors.EVENT_READ))
        if self.end is None:
            watched.append((session.control.fileno(), selectors.EVENT_READ))
        if session.stdin not in self._closed:
            if self.to_send:
                watched.append((session.stdin, selectors.EVENT_WRITE))
            elif self.close_when_sent:
                self._shut(session.stdin)
        return watched

    def ready(self, descriptor: int) -> None:
        """Read or write what one descriptor is ready for; raises `SandboxBroken` if the keeper is gone."""
        if descriptor in self._closed:
            return  # By the end of the program, a moment ago.
        if descriptor == self.session.control.fileno():
            self._read_end()
        elif descriptor == self.session.stdin:
            self._feed()
        elif descriptor == self.session.stdout:
            self._read(descriptor, self.out)
        else:
            self._read(descriptor, self.err)

    def _read(self, descriptor: int, into: bytearray) -> None:
        part = os.read(descriptor, _CHUNK)
        into += part
        if not part:
            self._shut(descriptor)
        if len(into) > self.limits.output_kib * 1024:
            self.flooded = True

    def _read_the_rest(self) -> None:
        """Nobody writes any more, so what is there is all. (A program can leave its end of a pipe open for ever, in a
        message that nobody receives: the end of the pipe is not waited for.)"""
        for descriptor, into in ((self.session.stdout, self.out), (self.session.stderr, self.err)):
            with suppress(BlockingIOError):
                while descriptor not in self._closed and not self.flooded:
                    self._read(descriptor, into)

    def _feed(self) -> None:
        try:
            del self.to_send[: os.write(self.session.stdin, self.to_send[:_CHUNK])]
        except BrokenPipeError:
            self.to_send.clear()
            self._shut(self.session.stdin)

    def _read_end(self) -> None:
        with suppress(ConnectionResetError):
            part = self.session.control.recv(_LONGEST_END)
            if part:
                self._told += part
                with suppress(json.JSONDecodeError):
                    self.end = End(**json.loads(self._told))
                    self._read_the_rest()
                return
        raise SandboxBroken("the sandbox ended without saying how the program had ended")

    def _shut(self, descriptor: int) -> None:
        self._closed.add(descriptor)
        self.session.close(descriptor)


def pump(exchanges: Sequence[Exchange], done: Callable[[], bool], deadline: float) -> None:
    """Move data until `done`; raises `SandboxBroken` at `deadline` (monotonic seconds)."""
    while not done():
        with selectors.PollSelector() as selector:
            for exchange in exchanges:
                for descriptor, events in exchange.events():
                    selector.register(descriptor, events, exchange)
            ready = selector.select(max(0.0, deadline - time.monotonic()))
        if not ready:
            raise SandboxBroken("the sandbox did not end the program in time")
        for key, _ in ready:
            with suppress(BlockingIOError):  # The end of a program emptied a stream that was ready with it.
                key.data.ready(key.fd)
