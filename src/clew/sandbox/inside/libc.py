"""The C library, for calls that Python has no words for."""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def check(result: int) -> int:
    """`result`, or the `OSError` that a call of the C library answered with -1 for."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def void_pointer(data: bytes) -> tuple[ctypes.c_void_p, object]:
    """A pointer to a copy of `data`, and the copy, which must be kept as long as the pointer is used."""
    buffer = ctypes.create_string_buffer(data, len(data))
    return ctypes.cast(buffer, ctypes.c_void_p), buffer
