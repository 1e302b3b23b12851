"""Warm sandboxes that checks borrow: a check costs milliseconds instead of the start of an interpreter."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import final

from clew.sandbox.functions import FunctionTests, Tested, check_function
from clew.sandbox.limits import Limits
from clew.sandbox.programs import Ran, run_program
from clew.sandbox.worker import Isolation, Worker, start_worker


@final
@dataclass(slots=True)
class Pool:
    """At most `lanes` checks at once, from any thread. Whatever was odd in a sandbox, it is not used again."""

    isolation: Isolation = field(default_factory=Isolation)
    lanes: int = field(default_factory=lambda: os.cpu_count() or 1)
    _idle: list[Worker] = field(default_factory=list)
    _free: threading.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._free = threading.Semaphore(self.lanes)

    def run(self, source: str, stdin: str = "", limits: Limits | None = None) -> Ran:
        """Run a script (`clew.sandbox.programs.run_program`)."""
        with self._borrowed(1) as workers:
            ran = run_program(workers[0], source, stdin, limits or Limits())
            if ran.odd:
                _stop(workers)
            return ran

    def check(self, source: str, tests: FunctionTests, limits: Limits | None = None) -> Tested:
        """Test a function (`clew.sandbox.functions.check_function`)."""
        with self._borrowed(2) as workers:
            tested = check_function(workers[0], workers[1], source, tests, limits or Limits())
            if tested.odd:
                _stop(workers)
            return tested

    def close(self) -> None:
        """End all idle sandboxes; the pool can be used again."""
        while self._idle:
            self._idle.pop().stop()

    @contextmanager
    def _borrowed(self, n: int) -> Iterator[list[Worker]]:
        """`n` sandboxes, which go back if nothing was raised and the borrower left them in the list."""
        with self._free:
            workers: list[Worker] = []
            try:
                while len(workers) < n:
                    workers.append(self._take())
                yield workers
            except BaseException:
                _stop(workers)
                raise
            self._idle += workers

    def _take(self) -> Worker:
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return start_worker(self.isolation)
            if worker.process.poll() is None:
                return worker
            worker.stop()


def _stop(workers: list[Worker]) -> None:
    while workers:
        workers.pop().stop()


@cache
def shared_pool(isolation: Isolation) -> Pool:
    """The pool of this process for one kind of isolation."""
    os.register_at_fork(after_in_child=shared_pool.cache_clear)
    pool = Pool(isolation)
    atexit.register(pool.close)
    return pool
