"""Work divided among threads that each compute alone: a small model's operations are too small to be divided."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import TypeVar

import torch

NUMBERS_WORTH_A_THREAD = 1 << 23
"""Fewer numbers are passed over sooner by one thread than by two that have to wake up."""

Part = TypeVar("Part")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`work` of every part, in order, on as many threads as torch may use here; each computes with one."""
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) < 2:
        return [work(part) for part in parts]

    def alone(part: Part) -> Result:
        # Set for each part, because some of torch's libraries keep the number for all threads together.
        torch.set_num_threads(1)
        return work(part)

    futures = [_pool(threads).submit(alone, part) for part in parts]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
        torch.set_num_threads(threads)


def on_one_thread(work: Callable[[Part], Result], part: Part) -> Result:
    """`work` of one part that is too small to be divided: waking the other threads would take longer."""
    threads = torch.get_num_threads()
    if threads == 1:
        return work(part)
    torch.set_num_threads(1)
    try:
        return work(part)
    finally:
        torch.set_num_threads(threads)


def by_size(work: Callable[[Part], Result], part: Part, numbers: int) -> Result:
    """`work` of a part of so many `numbers`, on one thread where they are few.

    Torch's own threads go on spinning for milliseconds after each operation, on cores that others need next.
    """
    return on_one_thread(work, part) if numbers < NUMBERS_WORTH_A_THREAD else work(part)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Kept between calls: starting threads takes longer than a small call."""
    return ThreadPoolExecutor(threads, thread_name_prefix="clew")


# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
