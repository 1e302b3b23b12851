"""The sandbox, measured: attacks that succeed, checks a second, and solutions that are rejected."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CHECKS = 200
"""Checks of one measurement of speed: the solutions of HumanEval, in order, again from the start when they end."""


def measure_sandbox(repeats: int = 5, lanes: int = 2) -> dict[str, Any]:
    """What `clew bench verify` tells about code.

    `sandbox`: attacks tried and those with an escape, by name, once with all walls and once without the filter of
    system calls. `code_per_s`: HumanEval solutions judged per second by `lanes` threads, the median of `repeats`.
    `gold_humaneval`: solutions tried and rejected, with the reasons. Raises `SandboxUnavailable`, `MissingExtra`.
    """
    return {
        "sandbox": _attacks(),
        **_speed(repeats, lanes),
        "gold_humaneval": _gold(lanes),
    }


def _attacks() -> dict[str, Any]:
    from clew.sandbox.attacks import ATTACKS
    from clew.sandbox.siege import besiege
    from clew.sandbox.worker import Isolation

    escapes: dict[str, list[str]] = {}
    unscored, longest = [], 0.0
    for filtered in (True, False):
        for number, attack in enumerate(ATTACKS, 1):
            assault = besiege(attack, Isolation(filter_calls=filtered))
            name = attack.name if filtered else f"{attack.name}, without the filter of system calls"
            if assault.escapes:
                escapes[name] = list(assault.escapes)
            if assault.outcome.startswith("unscored"):
                unscored.append(name)
            longest = max(longest, assault.seconds)
            print(f"\rattacks {number}/{len(ATTACKS)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return {
        "attacks": len(ATTACKS),
        "times_each": 2,
        "escapes": len(escapes),
        "escaped": escapes,
        "unscored": unscored,
        "longest_s": longest,
    }


def _speed(repeats: int, lanes: int) -> dict[str, Any]:
    from clew.tasks.humaneval import HumanEval

    task = HumanEval()
    problems = task.problems("test", 164, seed=0)
    work = [(problem, task.gold(problem)) for problem in itertools.islice(itertools.cycle(problems), CHECKS)]
    rates = []
    with ThreadPoolExecutor(lanes) as threads:
        for run in range(-1, repeats):
            started = time.perf_counter()
            list(threads.map(lambda item: task.verify(*item), work))
            if run >= 0:  # The first round only warms up.
                rates.append(CHECKS / (time.perf_counter() - started))
    spread = {"min": min(rates), "max": max(rates)}
    return {"code_per_s": statistics.median(rates), "lanes": lanes, "spread": {"code_per_s": spread}}


def _gold(lanes: int) -> dict[str, Any]:
    from clew.tasks.humaneval import HumanEval

    task = HumanEval()
    problems = task.problems("test", 164, seed=0)
    with ThreadPoolExecutor(lanes) as threads:
        verdicts = list(threads.map(lambda problem: task.verify(problem, task.gold(problem)), problems))
    reasons = {p.id: v.reason for p, v in zip(problems, verdicts, strict=True) if not v.right}
    return {"tried": len(problems), "rejected": len(reasons), "reasons": reasons}
