"""The other end of `clew.tasks.killable`: a program that runs one function, call after call, under limits.

It is run as a file and imports nothing of clew, so that it starts fast and needs nothing installed. Arguments come in
as a pickle, from the parent, which is trusted; results go back as JSON, because whatever untrusted text has made of
this process must not be able to make the parent run anything.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

LENGTH = struct.Struct("!Q")
_GRACE = 5.0
"""Seconds after which a call that its parent did not end, because it was killed itself, ends all the same."""


def main() -> None:
    """Serve calls on the socket whose descriptor is the first argument, until its other end is closed."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    opening = _receive(connection)
    if opening is None:
        return
    sys.path[:] = opening["path"]
    _limit(opening["memory"])
    try:
        function: Any = importlib.import_module(opening["module"])
        for part in opening["name"].split("."):
            function = getattr(function, part)
        if opening["warm_up"] is not None:
            function(*opening["warm_up"])
    except BaseException as error:  # noqa: BLE001  told to the parent, which raises
        _send(connection, {"failed": _told(error)})
        return
    _send(connection, {"ready": True})
    while (arguments := _receive(connection)) is not None:
        _send(connection, _answer(function, arguments, opening))


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], opening: dict[str, Any]) -> dict[str, Any]:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 2 * opening["seconds"] + _GRACE)
    signal.setitimer(signal.ITIMER_PROF, opening["cpu_seconds"])
    try:
        reply = {"result": function(*arguments)}
        json.dumps(reply)
    except BaseException as error:  # noqa: BLE001  told to the parent, which raises
        reply = {"failed": _told(error), "memory": isinstance(error, MemoryError)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    reply["full"] = _address_space() > opening["memory"] // 2
    return reply


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # systems that have no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _address_space() -> int:
    """Bytes that count against the limit; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _told(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()[:500]


def _send(connection: socket.socket, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode()
    connection.sendall(LENGTH.pack(len(data)) + data)


def _receive(connection: socket.socket) -> Any:
    """The next message; None when the other end is closed."""
    head = _exactly(connection, LENGTH.size)
    data = head and _exactly(connection, LENGTH.unpack(head)[0])
    return pickle.loads(data) if data else None  # noqa: S301  from the parent


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(min(count - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)


if __name__ == "__main__":
    main()
