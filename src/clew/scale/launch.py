"""One command in several processes: start them, let each find its place among them, end them together.

`clew VERB --ranks N` starts them on this machine; torchrun starts them on several. Either way a rank finds where it
stands in the environment variables of torch.distributed. The first rank writes the run directory and talks to the user;
the others keep their books in a directory that is thrown away. When one fails, it alone says why.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from clew.core.errors import ClewError, InvalidValue, UsageError

STANDING = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun, or `launch`, gives to every rank."""
LAUNCHER = "CLEW_LAUNCHER"
"""Process id of `launch`, for the ranks that it started."""
SILENT = 75
"""Exit status of a rank that failed after another had said why, or because another was lost."""
TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: they sample and judge in between."""
GRACE = 20.0
"""Seconds that the other ranks have to end by themselves once one has failed."""
POLL = 0.05


def in_ranks(recipe: Callable[[Any], int], config: Any, arguments: Sequence[str]) -> int:
    """Run `recipe`, or `clew` with `arguments` in `config.ranks` processes of which each runs it; the exit status."""
    if config.ranks < 1:
        raise InvalidValue("--ranks", config.ranks, "an integer of at least 1", "use 1 for a process alone")
    place = standing(os.environ)
    if place is None:
        command = [sys.executable, "-m", "clew", *arguments]
        return recipe(config) if config.ranks == 1 else launch(command, config.ranks)
    rank, ranks = place
    if config.ranks not in (1, ranks):
        accepted = f"{ranks}, the number of processes that were started, or nothing"
        raise UsageError(f"--ranks {config.ranks}", accepted, "leave it out under torchrun")
    config = replace(config, ranks=ranks)
    if rank == 0:
        return as_rank(rank, lambda: recipe(config))
    with tempfile.TemporaryDirectory(prefix="clew-rank-") as aside:
        own = replace(config, out=Path(aside) / "run", overwrite=False)
        return as_rank(rank, lambda: recipe(own))


def standing(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Rank and number of ranks that `environ` tells; None for a process alone."""
    if any(name not in environ for name in STANDING) or int(environ["WORLD_SIZE"]) < 2:
        return None
    return int(environ["RANK"]), int(environ["WORLD_SIZE"])


def as_rank(rank: int, work: Callable[[], int], timeout: timedelta = TIMEOUT) -> int:
    """`work` as one of the processes that the environment tells of.

    What it raises comes out of the first rank that fails; the others exit with `SILENT`.
    """
    store: Any = None
    try:
        _end_with_launcher()
        store = _join(rank, timeout)
        with _quiet(rank):
            return work()
    except BaseException:
        if _tells(rank, store):
            raise
        raise SystemExit(SILENT) from None
    finally:
        _leave()


def launch(command: Sequence[str], ranks: int) -> int:
    """`command` in `ranks` processes of this machine, which share its threads; the exit status of all.

    Raises `ClewError` if one of them was killed.
    """
    told = {
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": str(max(1, _threads() // ranks)),
        LAUNCHER: str(os.getpid()),
    }
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(ranks):
            own = {**told, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            # In a session of its own, so that Ctrl-C reaches it once: from here.
            children.append(subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, start_new_session=True))
        codes = _codes(children)
    except KeyboardInterrupt:
        for child in children:
            child.send_signal(signal.SIGINT)
        codes = _codes(children, grace=GRACE)
    finally:
        _stop(children)
    return _status(codes)


def _codes(children: Sequence[subprocess.Popen[bytes]], grace: float = math.inf) -> list[int | None]:
    """Exit codes, None for those that are still running `GRACE` seconds after the first failed, or after `grace`."""
    until = time.monotonic() + grace
    while any(child.poll() is None for child in children) and time.monotonic() < until:
        if any(child.returncode for child in children):
            until = min(until, time.monotonic() + GRACE)
        time.sleep(POLL)
    return [child.returncode for child in children]


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(timeout=GRACE / 4)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _status(codes: Sequence[int | None]) -> int:
    """The status of the rank that said why it failed. Raises `ClewError` where none could."""
    if not any(code != 0 for code in codes):
        return 0
    told = [code for code in codes if code is not None and code > 0 and code != SILENT]
    if told:
        return told[0]
    killed = [(rank, -code) for rank, code in enumerate(codes) if code is not None and code < 0]
    given = "the processes of this run ended without saying why"
    if killed:
        rank, number = killed[0]
        given = f"process {rank + 1} of {len(codes)} was ended by signal {number} ({signal.strsignal(number)})"
    advice = "most often memory is short: use fewer --ranks or smaller batches"
    raise ClewError(given, "processes that run until they are done", advice)


def _join(rank: int, timeout: timedelta) -> Any:
    """Meet the other ranks; the store that all of them can write to."""
    import torch
    import torch.distributed

    dist: Any = torch.distributed
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
    try:
        store, _, ranks = next(dist.rendezvous("env://", timeout=timeout))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo",
            store=dist.PrefixStore("group", store),
            rank=rank,
            world_size=ranks,
            timeout=timeout,
        )
    except RuntimeError as error:
        given = f"rank {rank} could not meet the others ({str(error).splitlines()[0]})"
        accepted = f"an address that all ranks reach and a port that is free in {' and '.join(STANDING[2:])}"
        raise ClewError(given, accepted, "check the command that starts them") from error
    return store


def _leave() -> None:
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()


def _tells(rank: int, store: Any) -> bool:
    """Whether this rank is the first that fails, and so says why."""
    if store is None:
        return rank == 0
    try:
        return bool(store.add("failed", 1) == 1)
    except RuntimeError:
        # It was with a rank that has ended, which said why or was killed; `launch` and torchrun tell of the latter.
        return False


@contextlib.contextmanager
def _quiet(rank: int) -> Iterator[None]:
    """Ranks but the first write nothing."""
    if rank == 0:
        yield
        return
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _end_with_launcher() -> None:
    """End this process when `launch`, which started it, is no more: nobody else would."""
    launcher = os.getppid()
    if os.environ.get(LAUNCHER) != str(launcher):
        return

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _threads() -> int:
    """Threads that a process alone would take."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdecimal() and int(said):
        return int(said)
    # Where a process cannot be tied to cores, there is no such function.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
