"""What the tests of `killable` have run in another process."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from typing import Any

CALLS: list[int] = []


def echo(*values: Any) -> Any:
    return values[0] if len(values) == 1 else values


def count() -> int:
    CALLS.append(1)
    return len(CALLS)


def misbehave(how: str) -> Any:
    return {
        "sleep": lambda: time.sleep(60),
        "power": lambda: 9**9**9,  # one bytecode: no Python-level limit interrupts it
        "spin": lambda: [None for _ in iter(int, 1)],
        "memory": lambda: len(bytearray(1 << 33)),
        "exit": lambda: os._exit(3),
        "system exit": lambda: sys.exit(4),
        "segfault": lambda: ctypes.string_at(0),
        "recursion": lambda: misbehave("recursion"),
        "raise": lambda: 1 // 0,
        "not json": lambda: {1, 2},
        "kill group": lambda: os.killpg(0, 9),
        "print": lambda: print("x" * 1_000_000) or "printed",
        "close": lambda: os.closerange(3, 100),
        "nap": lambda: time.sleep(0.4) or "rested",
        "fine": lambda: "fine",
    }[how]()


def leave_a_child() -> int:
    """The id of a process that would outlive its parent."""
    return subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL).pid


def environment() -> dict[str, str]:
    return dict(os.environ)


def fill(mebibytes: int) -> int:
    CALLS.append(len(bytearray(mebibytes << 20)))
    KEPT.append(bytearray(mebibytes << 20))
    return len(CALLS)


KEPT: list[bytearray] = []
