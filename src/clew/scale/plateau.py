"""When cloning has flattened: the switch from behaviour cloning to policy gradient (roadmap section 6.1.3).

The rule: over the last `window` intervals between measurements, the slope of the least-squares line through
measurement against update is below `threshold`. A measurement is anything of which more is better: held-out pass@1,
or minus the held-out loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from clew.core.errors import InvalidValue


class Measured(NamedTuple):
    """What was measured after so many updates."""

    updates: float
    value: float
    """The higher, the better."""


def gain_per_update(points: Sequence[Measured]) -> float:
    """Slope of the least-squares line through `points`, in value an update.

    >>> gain_per_update([Measured(0, 0.2), Measured(10, 0.3), Measured(20, 0.4)])
    0.01

    Raises `InvalidValue` unless there are two points or more at different updates, all finite.
    """
    if not all(math.isfinite(number) for point in points for number in point):
        accepted = "finite numbers"
        raise InvalidValue("measurements", [tuple(p) for p in points], accepted, "leave out what was not measured")
    if len({point.updates for point in points}) < 2:
        given = [tuple(point) for point in points]
        raise InvalidValue("measurements", given, "at least two, after different numbers of updates", "measure again")
    n = len(points)
    # Relative to the first point: sums of large numbers of updates would lose the digits that count.
    xs = [point.updates - points[0].updates for point in points]
    ys = [point.value - points[0].value for point in points]
    mean = math.fsum(xs) / n
    return math.fsum((x - mean) * y for x, y in zip(xs, ys, strict=True)) / math.fsum((x - mean) ** 2 for x in xs)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """The trigger, with the rule of this module."""

    threshold: float = 1e-4
    """Least gain an update: 1e-4 is one percent in a hundred updates, where pass@1 is measured."""
    window: int = 1
    """Intervals between measurements that the slope is taken over."""
    of: Literal["pass-at-1", "held-out-loss"] = "pass-at-1"
    """What has to flatten: pass@1 from round to round, or within a round the loss on solutions that are kept out."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise InvalidValue("plateau threshold", self.threshold, "a finite number", "use 0 for no gain at all")
        if self.window < 1:
            raise InvalidValue("plateau window", self.window, "an integer of at least 1", "raise it")

    def gain(self, points: Sequence[Measured]) -> float | None:
        """Gain an update over the window; None while there are too few measurements to tell."""
        return gain_per_update(points[-self.window - 1 :]) if len(points) > self.window else None

    def fires(self, points: Sequence[Measured]) -> bool:
        """Whether the last of `points`, oldest first, says that the curve has flattened."""
        gain = self.gain(points)
        return gain is not None and gain < self.threshold
