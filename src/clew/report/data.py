"""Read a run directory into typed values. What is missing stays missing; what is damaged is an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from clew.core.errors import RunDirectoryError


class Rate(NamedTuple):
    """A proportion, its 95 % interval and the number of problems behind it."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One entry of `summary.json`'s `stages`."""

    name: str
    seconds: float | None = None
    tokens: int | None = None
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """`pass_at_1`, `greedy`, `direct`, `first_attempt`: those that were measured."""
    pass_at_k: Mapping[int, Rate] = field(default_factory=dict)
    majority_at_k: Mapping[int, Rate] = field(default_factory=dict)
    by_difficulty: Mapping[str, Rate] = field(default_factory=dict)
    mean_length: float | None = None
    behaviours: Mapping[str, float] = field(default_factory=dict)
    transitions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    verdict_reasons: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPoint:
    """One strategy at one size: mean cost per problem and accuracy."""

    strategy: str
    guidance: str | None
    n: int | None
    cost: Mapping[str, float]
    accuracy: Rate

    @property
    def tokens(self) -> float | None:
        """Tokens some model had to process per problem, as `clew.core.cost.Cost.tokens` counts them."""
        parts = [self.cost[k] for k in ("tokens_sampled", "prompt_tokens_read", "scorer_tokens") if k in self.cost]
        return sum(parts) if "tokens_sampled" in self.cost else None

    @property
    def line(self) -> str:
        """What the point is called in a legend: points of one line differ only in size."""
        return f"{self.strategy} ({self.guidance})" if self.guidance else self.strategy

    @property
    def label(self) -> str:
        """The point by name and size, e.g. `best-of-64 (verifier)`."""
        if self.n is None:
            return self.line
        stem, guide = self.strategy.removesuffix("-n"), f" ({self.guidance})" if self.guidance else ""
        return f"{stem}-{self.n}{guide}" if stem != self.strategy else f"{self.strategy} of {self.n}{guide}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A statement the run set out to test, with the rates that decide it."""

    name: str
    rates: Mapping[str, Rate]
    holds: bool | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`summary.json`, typed."""

    stages: tuple[Stage, ...] = ()
    search: tuple[SearchPoint, ...] = ()
    claims: tuple[Claim, ...] = ()
    rounds: tuple[Mapping[str, Any], ...] = ()
    """Of a loop, as they are."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """Of labelled steps, as they are."""
    total_seconds: float | None = None
    peak_rss_mib: float | None = None
    device: str = ""
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run directory, read."""

    name: str
    summary: Summary
    metrics: tuple[Mapping[str, Any], ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Mapping[str, Any], ...] = ()
    odd: tuple[Mapping[str, Any], ...] = ()
    """Samples of reinforcement learning with the highest reward that are least like the others."""
    account: Mapping[str, float] = field(default_factory=dict)
    """What became of every sample of reinforcement learning."""
    remarks: tuple[str, ...] = ()
    """What could not be read, in sentences for the reader."""


def number(value: object) -> float | None:
    """`value` as a float if it is a finite number, else None (booleans are not numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def rate(value: object) -> Rate | None:
    """`value` as a `Rate` if it has all four finite fields, else None."""
    if not isinstance(value, Mapping):
        return None
    mean, low, high, n = (number(value.get(k)) for k in ("mean", "low", "high", "n"))
    if mean is None or low is None or high is None or n is None:
        return None
    return Rate(mean, low, high, int(n))


def read_run(run_dir: Path) -> Run:
    """Everything of `run_dir` that a report shows; raises `RunDirectoryError` without a readable summary."""
    path = run_dir / "summary.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unusable(f"{run_dir} has no summary.json") from None
    except (OSError, ValueError) as error:
        raise _unusable(f"{path} cannot be read ({_first_line(error)})") from error
    remarks: list[str] = []
    samples, odd = (_optional(run_dir / name, list, remarks) for name in ("samples.json", "rl_odd_samples.json"))
    return Run(
        name=run_dir.resolve().name,
        summary=parse_summary(raw),
        metrics=_read_metrics(run_dir / "metrics.jsonl", remarks),
        config=_optional(run_dir / "config.json", dict, remarks),
        environment=_optional(run_dir / "environment.json", dict, remarks),
        samples=_texts(samples),
        odd=_texts(odd),
        account=_numbers(_optional(run_dir / "rl_account.json", dict, remarks)),
        remarks=tuple(remarks),
    )


def parse_summary(raw: object) -> Summary:
    """`summary.json` as typed values; raises `RunDirectoryError` where its shape is wrong."""
    if not isinstance(raw, Mapping):
        raise _unusable(f"summary.json holds a {type(raw).__name__}, not an object")
    for key, kind in (("stages", list), ("search", list), ("claims", Mapping)):
        if raw.get(key) is not None and not isinstance(raw[key], kind):
            raise _unusable(f"{key!r} in summary.json is a {type(raw[key]).__name__}")
    search = (_search_point(s) for s in raw.get("search") or ())
    rounds = raw.get("rounds")
    seed = number(raw.get("seed"))
    return Summary(
        stages=tuple(_stage(s) for s in raw.get("stages") or ()),
        search=tuple(p for p in search if p is not None),
        claims=tuple(_claim(name, c) for name, c in (raw.get("claims") or {}).items() if isinstance(c, Mapping)),
        rounds=tuple(r for r in rounds if isinstance(r, Mapping)) if isinstance(rounds, list) else (),
        labels=raw if "labels_that_count" in raw else {},
        total_seconds=number(raw.get("total_seconds")),
        peak_rss_mib=number(raw.get("peak_rss_mib")),
        device=str(raw.get("device") or ""),
        seed=None if seed is None else int(seed),
    )


def _stage(raw: object) -> Stage:
    if not isinstance(raw, Mapping) or "name" not in raw:
        raise _unusable(f"a stage in summary.json is {raw!r:.80}, without a name")
    rates = {k: rate(raw.get(k)) for k in ("pass_at_1", "greedy", "direct", "first_attempt")}
    tokens = number(raw.get("tokens"))
    return Stage(
        name=str(raw["name"]),
        seconds=number(raw.get("seconds")),
        tokens=None if tokens is None else int(tokens),
        rates={k: r for k, r in rates.items() if r is not None},
        pass_at_k=_by_size(raw.get("pass_at_k")),
        majority_at_k=_by_size(raw.get("majority_at_k")),
        by_difficulty={str(k): r for k, v in _items(raw.get("by_difficulty")) if (r := rate(v)) is not None},
        mean_length=number(raw.get("mean_length")),
        behaviours=_numbers(raw.get("behaviours")),
        transitions={str(k): _numbers(v) for k, v in _items(raw.get("transitions"))},
        verdict_reasons=_numbers(raw.get("verdict_reasons")),
    )


def _search_point(raw: object) -> SearchPoint | None:
    if not isinstance(raw, Mapping) or (accuracy := rate(raw.get("accuracy"))) is None:
        return None
    n = number(raw.get("n"))
    return SearchPoint(
        strategy=str(raw.get("strategy", "search")),
        guidance=None if raw.get("guidance") is None else str(raw["guidance"]),
        n=None if n is None else int(n),
        cost=_numbers(raw.get("cost")),
        accuracy=accuracy,
    )


def _claim(name: object, raw: Mapping[str, Any]) -> Claim:
    holds = raw.get("holds")
    return Claim(
        name=str(name),
        rates={str(k): r for k, v in raw.items() if (r := rate(v)) is not None},
        holds=holds if isinstance(holds, bool) else None,
        note=str(raw.get("note") or ""),
    )


def _texts(samples: Sequence[object]) -> tuple[Mapping[str, Any], ...]:
    return tuple(s for s in samples if isinstance(s, Mapping) and isinstance(s.get("text"), str))


def _items(value: object) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _numbers(value: object) -> dict[str, float]:
    return {str(k): x for k, v in _items(value) if (x := number(v)) is not None}


def _by_size(value: object) -> dict[int, Rate]:
    found = {int(k): r for k, v in _items(value) if str(k).isdecimal() and (r := rate(v)) is not None}
    return dict(sorted(found.items()))


def _optional(path: Path, kind: type, remarks: list[str]) -> Any:
    """The JSON of `path`, or the empty value of `kind` where the file is absent or unreadable (remarked)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError) as error:
        remarks.append(f"{path.name} could not be read ({_first_line(error)}).")
        return kind()
    if not isinstance(value, kind):
        remarks.append(f"{path.name} holds a {type(value).__name__} where a {kind.__name__} belongs.")
        return kind()
    return value


def _read_metrics(path: Path, remarks: list[str]) -> tuple[Mapping[str, Any], ...]:
    """Rows of `metrics.jsonl`; a resumed run may repeat a step, and then the later row counts."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    rows: dict[tuple[str, float], Mapping[str, Any]] = {}
    damaged = 0
    for line in filter(str.strip, lines):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        step = number(row.get("step")) if isinstance(row, dict) else None
        if step is None:
            damaged += 1
            continue
        key = (str(row.get("stage", "")), step)
        rows.pop(key, None)
        rows[key] = row
    if damaged:
        remarks.append(f"{damaged} line{'s' * (damaged > 1)} of metrics.jsonl could not be read and is left out.")
    return tuple(rows.values())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unusable(given: str) -> RunDirectoryError:
    return RunDirectoryError(
        given,
        "a run directory with a complete summary.json",
        "name the directory that a recipe wrote; if the run was stopped before its first stage ended, resume it",
    )
