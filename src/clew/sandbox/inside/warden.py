"""The first process of a sandbox: a warm interpreter that forks a keeper for each program and holds nothing else.

    host --(a byte and four descriptors)--> warden --fork--> keeper --fork--> program

The warden never reads a program, so no program finds an earlier one in its memory. The keeper reads it, makes a new
world for it (process numbers, mounts, /tmp), lets it go, kills it at the deadline or when the host hangs up, and says
how it ended. When anything fails the warden ends too, and with it the sandbox; the host then starts another.
"""

from __future__ import annotations

import collections
import contextlib
import decimal
import fractions
import functools
import gc
import heapq
import itertools
import json
import math
import os
import platform
import random
import re
import select
import signal
import socket
import string
import struct
import sys
import time
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from clew.sandbox.inside import programs
from clew.sandbox.inside.confine import become_nobody, hide_memory, new_world, no_new_privileges, set_limits
from clew.sandbox.inside.system_calls import filter_program, filter_system_calls

WARM = (collections, contextlib, decimal, fractions, functools, heapq, itertools, math, random, re, string, typing)
"""What programs import most is imported once, here."""
LENGTH = struct.Struct("!I")
_OWN_PROCESSES = 3
"""Those of bubblewrap, the warden and the keeper."""
DESCRIPTORS = 4
"""A job's control socket, standard input, output and error."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """Which of the layers that a keeper adds are on."""

    isolated: bool
    """Capabilities, mounts and process numbers can be changed, because bubblewrap made this process their owner."""
    switch_user: bool
    filter_calls: bool


def main(arguments: list[str]) -> None:
    """Serve the socket whose number comes first; then which layers are on."""
    host = socket.socket(fileno=int(arguments[0]))
    confinement = Confinement("isolated" in arguments, "switch-user" in arguments, "filter-calls" in arguments)
    sys.path = [path for path in sys.path if "clew" not in path]
    sys.argv = ["program.py"]
    hide_memory()
    if confinement.filter_calls:
        filter_program(platform.machine(), several_processes=False)  # Made once, for all that are forked.
    gc.collect()
    gc.freeze()
    host.sendall(b"R")
    while True:
        go, descriptors, _, _ = socket.recv_fds(host, 1, DESCRIPTORS)
        if not go:
            return
        keeper = os.fork()
        if keeper == 0:
            host.close()
            _keep(descriptors, confinement)
        for descriptor in descriptors:
            os.close(descriptor)
        if os.waitpid(keeper, 0)[1] != 0:
            return


def _keep(descriptors: list[int], confinement: Confinement) -> NoReturn:
    """Run one job. Never returns, neither in the keeper's process nor in that of the program."""
    control = socket.socket(fileno=descriptors[0])
    job = _receive(control)
    limits = job["limits"]
    if confinement.isolated:
        new_world(limits["files_mib"])
    program = os.fork()
    if program == 0:
        control.close()
        for standard, descriptor in enumerate(descriptors[1:]):
            os.dup2(descriptor, standard)
        os.closerange(3, 256)
        _confine(limits, confinement)
        programs.run_to_the_end(job)
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    ended = _wait(program, control, limits["wall_s"], alone=confinement.isolated)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        control.sendall(json.dumps(ended).encode())
    os._exit(0)


def _confine(limits: Mapping[str, int], confinement: Confinement) -> None:
    os.environ.clear()
    if confinement.isolated:
        os.chdir("/tmp")
        become_nobody(confinement.switch_user)
    else:
        os.setsid()
        no_new_privileges()
    set_limits(limits, others=0 if confinement.switch_user else _OWN_PROCESSES)
    if confinement.filter_calls:
        filter_system_calls(several_processes=limits["processes"] > 1)


def _wait(program: int, control: socket.socket, wall_s: float, alone: bool) -> dict[str, Any]:
    """Until the program ends, its time is up, or the host hangs up; then nothing of it is left."""
    ends, started = select.poll(), time.monotonic()
    handle = os.pidfd_open(program)
    ends.register(handle, select.POLLIN)
    ends.register(control, select.POLLIN)
    ready = ends.poll(wall_s * 1000)
    over = not ready
    if alone:
        # The program is the first process of its numbers: all others end with it.
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program, signal.SIGKILL)
    _, status, usage = os.wait4(program, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "timed_out": over,
        "wall_s": time.monotonic() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def _receive(control: socket.socket) -> Any:
    (length,) = LENGTH.unpack(_exactly(control, LENGTH.size))
    return json.loads(_exactly(control, length))


def _exactly(control: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = control.recv(length - len(data))
        if not part:
            raise EOFError("the host hung up in the middle of a job")
        data += part
    return bytes(data)


if __name__ == "__main__":
    main(sys.argv[1:])
