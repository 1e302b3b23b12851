"""What the benches of learning share: means over seeds with their intervals, and the memory that a block took."""

from __future__ import annotations

import ctypes
import gc
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clew.core.errors import InvalidValue

SEEDS = 3


def over_seeds(values: Sequence[float]) -> dict[str, float | int]:
    """Mean and 95 % interval (Student's t over the seeds) of one number a seed.

    >>> over_seeds([0.5, 0.5, 0.5])
    {'mean': 0.5, 'low': 0.5, 'high': 0.5, 'n': 3}
    """
    from scipy.special import stdtrit

    if not values:
        raise InvalidValue("values", list(values), "at least one seed", "measure first")
    mean, n = statistics.fmean(values), len(values)
    half = 0.0
    if n > 1:
        half = float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / math.sqrt(n)
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def told(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | int]]:
    """`over_seeds` of every number that all rows have and that is finite in all of them."""
    values: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in rows[0] if name != "seed"}
    return {name: over_seeds(found) for name, found in values.items() if all(map(_finite, found))}


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class PeakMemory:
    """Most resident MiB inside the block beyond what was there when it began; None where the system does not tell."""

    mib: float | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        try:
            # Freed pages that the allocator keeps would hide what is used next.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self._before: float | None = _status("VmRSS")
        except (OSError, AttributeError, ValueError):
            self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            self.mib = max(0.0, _status("VmHWM") - self._before)


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(name)
