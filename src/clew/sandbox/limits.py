"""What one run of an untrusted program may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from clew.core.errors import InvalidValue


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Everything is bounded. All memory of a run is at most `processes` * `memory_mib` + `files_mib`."""

    cpu_s: int = 10
    """Seconds of processor time of a process."""
    wall_s: float = 20.0
    """Seconds from start to end; then every process of the run is killed."""
    memory_mib: int = 512
    """Address space of a process, in MiB."""
    processes: int = 1
    """Processes at once. With 1 the kernel refuses to make or start another one; threads can be made."""
    threads: int = 32
    """Threads at once, beyond the first of each process."""
    files_mib: int = 16
    """All files of the run, in MiB; they are gone after it."""
    output_kib: int = 1024
    """Standard output, and standard error, each in KiB. A program that writes more is killed."""
    source_kib: int = 256
    """Size of the program."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise InvalidValue(f"limit {name}", getattr(self, name), "a number above 0", "raise it")
