"""Files that are whole or absent: written aside, flushed to disk, renamed. And friendly errors when a disk refuses."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from clew.core.errors import ClewError, RunDirectoryError

_WRITABLE = "a place on a disk with free space that this user may write to"
_ADVICE = {
    errno.ENOSPC: "free some space on that disk, or choose another place",
    errno.EDQUOT: "free some of your disk quota, or choose another place",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose a place on a disk that is not mounted read-only",
    errno.ENOTDIR: "remove the file that is in the way, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter path",
}


@contextmanager
def friendly_os_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` a user can mend (no space, no permission, ...) into `RunDirectoryError` about `path`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ClewError) or error.errno not in _ADVICE:
            raise
        given = f"cannot write {path}: {os.strerror(error.errno)}"
        raise RunDirectoryError(given, _WRITABLE, _ADVICE[error.errno]) from error


def jsonable(value: Any) -> Any:
    """`value` in the types of JSON: dataclasses become objects, tuples lists, nan and inf their names as strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [jsonable(v) for v in value]
        return sorted(items, key=repr) if isinstance(value, (set, frozenset)) else items
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else str(float(value))
    return str(value)


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader, or a kill at any moment, sees the old file or the new one whole."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with friendly_os_errors(path):
        try:
            with aside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        sync_directory(path.parent)


def write_json_atomically(path: Path, value: Any) -> None:
    """`write_text_atomically` of `jsonable(value)`, indented."""
    write_text_atomically(path, json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n")


def sync_directory(path: Path) -> None:
    """Make renames inside `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
