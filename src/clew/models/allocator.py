"""Where activations come from: memory that is kept between training steps instead of being fetched anew.

By default glibc hands large blocks back to the operating system when they are freed, and every step
pays page faults (each clears 4 KiB) for activations of the same size as those of the step before.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameter numbers of mallopt(3)."""
_LARGEST_MMAP_THRESHOLD = 32 << 20
"""What glibc accepts at most; larger blocks are still mapped one by one."""
_GROWTH = 64 << 20


def keep_freed_memory() -> bool:
    """Let this process keep memory it has freed; False where the C library is not glibc and nothing was changed.

    Call it once, before training; the process then holds on to its peak memory until it ends.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018 - musl, for one, has a mallopt that does nothing
    except (AttributeError, OSError, TypeError):
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _GROWTH))
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(accepted)
