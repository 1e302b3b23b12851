"""Learning-rate schedules: pure functions of the step, answering a multiplier of the base rate."""

from __future__ import annotations

from clew.core.errors import InvalidValue


def warmup_stable_decay(step: int, *, total: int, warmup: int = 0, decay: int = 0) -> float:
    """Rise linearly over `warmup` steps, hold 1, fall linearly over the last `decay` of `total` (arXiv 2404.06395).

    `step` counts from 0 and none of the `total` steps has multiplier 0; from `total` on it is 0.

    >>> [warmup_stable_decay(s, total=6, warmup=2, decay=2) for s in range(7)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    if warmup < 0 or decay < 0 or warmup + decay > total:
        given = f"warmup {warmup} and decay {decay} of {total}"
        raise InvalidValue("schedule", given, "steps of at least 0 that fit into the total", "shorten them")
    if step >= total:
        return 0.0
    rise = (step + 1) / warmup if step < warmup else 1.0
    fall = (total - step) / decay if step >= total - decay else 1.0
    return min(rise, fall)
