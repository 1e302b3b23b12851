"""Run a script in a sandbox: standard input in, standard output and the way it ended out. Comparing happens outside."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import final

from clew.sandbox.exchange import GRACE_S, Exchange, pump
from clew.sandbox.limits import Limits
from clew.sandbox.worker import Worker


@final
@dataclass(frozen=True, slots=True)
class Ran:
    """What a program did."""

    failure: str
    """Why it did not end well, in words; empty if it did."""
    stdout: bytes
    stderr: bytes
    odd: bool
    """It had to be stopped: the sandbox is not used again."""


def too_long(source: str, limits: Limits) -> str:
    """Why `source` is not even tried; empty if it is. Its size is what UTF-8 takes, lone surrogates included."""
    # A text of n characters takes between n and 4 n bytes: most are decided without encoding them.
    most = limits.source_kib * 1024
    if len(source) <= most and len(source.encode("utf-8", "surrogatepass")) <= most:
        return ""
    return f"is longer than {limits.source_kib} KiB"


def run_program(worker: Worker, source: str, stdin: str, limits: Limits) -> Ran:
    """Run `source` as a Python script; raises `SandboxBroken` if the sandbox failed, which says nothing about it."""
    refused = too_long(source, limits)
    if refused:
        return Ran(refused, b"", b"", odd=False)
    deadline = time.monotonic() + limits.wall_s + GRACE_S
    exchange = Exchange(worker.start({"kind": "script", "source": source}, limits), limits, close_when_sent=True)
    try:
        exchange.send(stdin.encode("utf-8", "surrogatepass"))
        pump([exchange], lambda: exchange.over, deadline)
    finally:
        exchange.session.hang_up()
    out, err, end = bytes(exchange.out), bytes(exchange.err), exchange.end
    if exchange.flooded or end is None:
        return Ran(f"wrote more than {limits.output_kib} KiB", out, err, odd=True)
    return Ran(end.reason(limits, err), out, err, odd=end.timed_out or end.status < 0)
