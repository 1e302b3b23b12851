"""`report.html`: one self-contained file that says what a run did. No request leaves the page.

The page's parts are gathered here as plain values; `template.html.j2` lays them out with autoescape on, so
text that a model wrote can only ever be text.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from clew.core.errors import RunDirectoryError
from clew.initialize.behaviours import tag
from clew.report import captions, palette, words
from clew.report.data import Run, number, read_run
from clew.report.section import Section
from clew.report.sections import sections

ODD_SHOWN = 10
LONGEST = 6000
"""Characters of one sampled text that are shown."""
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sampled solution, ready to show."""

    problem: str
    prompt: str
    outcome: str
    reason: str
    tokens: int | None
    spans: tuple[tuple[str, str], ...]
    """(behaviour or "", text) pieces that join to the text without the white space around it."""
    cut: bool


def write_report(run_dir: Path) -> Path:
    """Write `run_dir/report.html` (aside, then renamed) and return its path.

    Raises `RunDirectoryError` when `summary.json` is missing or damaged, or the file cannot be written.
    """
    page = render(read_run(run_dir))
    path = run_dir / "report.html"
    aside = run_dir / f".report.html.{os.getpid()}"
    try:
        aside.write_text(page, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunDirectoryError(
            f"{path} cannot be written ({error.strerror})",
            "a directory with write permission and free space",
            "free some space or change the permissions, then run `clew report` again",
        ) from error
    return path


def render(run: Run) -> str:
    """The page of `run`; the same run gives the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = environment.get_template("script.js.j2").render()
    samples, sample_stage = chosen_samples(run)
    odd = odd_samples(run)
    return environment.get_template("template.html.j2").render(
        run=run,
        headline=captions.headline(run.summary),
        tiles=tiles(run),
        machine=machine(run),
        sections=(found := sections(run)),
        samples=samples,
        sample_stage=words.stage_label(sample_stage),
        odd=odd,
        stage_table=stage_table(run),
        cost_table=cost_table(run),
        appendix=appendix(run),
        contents=contents(found, run, samples, odd),
        palette=palette,
        behaviours=[(b.value, ink) for b, ink in palette.BEHAVIOUR.items()],
        marked={behaviour for sample in samples for behaviour, _ in sample.spans if behaviour},
        script=Markup(script),  # our own file, into which no value is rendered
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def tiles(run: Run) -> list[tuple[str, str, str]]:
    """(value, what it is, detail) for the row under the headline."""
    summary = run.summary
    out: list[tuple[str, str, str]] = []
    scored = [s for s in summary.stages if "pass_at_1" in s.rates]
    if scored:
        rate = scored[-1].rates["pass_at_1"]
        out.append((words.percent(rate.mean), "one sample", f"95 % interval {words.interval(rate)}"))
    best = captions.best_search(summary.search)
    if best is not None:
        out.append((words.percent(best.accuracy.mean), best.label, f"95 % interval {words.interval(best.accuracy)}"))
    if summary.total_seconds is not None:
        out.append((words.duration(summary.total_seconds), "in all", "all stages, search and evaluation"))
    tokens = sum(s.tokens or 0 for s in summary.stages)
    if tokens:
        out.append((words.count(tokens), "tokens", "in training, all stages"))
    if summary.peak_rss_mib is not None:
        out.append((f"{summary.peak_rss_mib / 1024:.2f} GiB", "memory at most", "resident, whole process"))
    return out


def machine(run: Run) -> str:
    """Where it ran, as far as `environment.json` says: processor, cores, memory, seed, commit."""
    found = run.environment
    cpu = next((str(found[k]) for k in ("cpu_model", "cpu", "processor") if isinstance(found.get(k), str)), "")
    cores = next((found[k] for k in ("cores", "cpu_count", "cpus") if number(found.get(k))), None)
    gib = number(found.get("memory_gib")) or (number(found.get("memory_mib")) or 0.0) / 1024
    commit = next((str(found[k]) for k in ("git_commit", "commit") if found.get(k)), "")
    parts = (
        cpu,
        f"{cores} cores" if cores else "",
        f"{gib:.1f} GiB" if gib else "",
        f"device {run.summary.device}" if run.summary.device else "",
        f"seed {run.summary.seed}" if run.summary.seed is not None else "",
        f"commit {commit[:10]}" if commit else "",
    )
    return " · ".join(filter(None, parts))


def stage_table(run: Run) -> list[list[str]]:
    """Header and rows of the numbers by stage; empty without stages."""
    stages = run.summary.stages
    if not stages:
        return []
    keys = {"pass_at_1": "pass@1", "greedy": "greedy", "direct": "direct", "first_attempt": "first attempt"}
    used = [k for k in keys if any(k in s.rates for s in stages)]
    sizes = sorted({k for s in stages for k in s.pass_at_k if k > 1})
    rows = [["stage", *(keys[k] for k in used), *(f"pass@{k}" for k in sizes[-1:]), "length", "n"]]
    for s in stages:
        rates = [s.rates.get(k) for k in used] + [s.pass_at_k.get(k) for k in sizes[-1:]]
        shown = [words.NONE if r is None else f"{words.percent(r.mean)}\n{words.interval(r)}" for r in rates]
        counted = sorted({r.n for r in rates if r is not None})
        length = words.NONE if s.mean_length is None else f"{s.mean_length:.1f}"
        rows.append([words.stage_label(s.name), *shown, length, " / ".join(f"{n:,}" for n in counted) or words.NONE])
    return rows


def cost_table(run: Run) -> list[list[str]]:
    """Header and rows of what each stage and the whole run took."""
    stages = [s for s in run.summary.stages if s.seconds is not None or s.tokens is not None]
    if not stages:
        return []
    total = run.summary.total_seconds
    rows = [["stage", "time", "share", "tokens", "tokens per second"]]
    for s in stages:
        share = f"{100 * s.seconds / total:.0f} %" if s.seconds is not None and total else words.NONE
        speed = words.count(s.tokens / s.seconds) if s.tokens is not None and s.seconds else words.NONE
        time = words.NONE if s.seconds is None else words.duration(s.seconds)
        tokens = words.NONE if s.tokens is None else words.count(s.tokens)
        rows.append([words.stage_label(s.name), time, share, tokens, speed])
    staged = sum(s.seconds or 0.0 for s in stages)
    if total is not None and total - staged > 0.5:
        share = f"{100 * (total - staged) / total:.0f} %"
        rows.append(["evaluation, search and the rest", words.duration(total - staged), share, words.NONE, words.NONE])
    if total is not None:
        rows.append(
            ["all", words.duration(total), "100 %", words.count(sum(s.tokens or 0 for s in stages)), words.NONE]
        )
    return rows


def chosen_samples(run: Run, each: int = 5) -> tuple[list[Sample], str]:
    """The first right and the first wrong answers of the last stage, ten in all if there are, and that stage."""
    order = {s.name: i for i, s in enumerate(run.summary.stages)}
    names = list(dict.fromkeys(str(s.get("stage", "")) for s in run.samples))
    if not names:
        return [], ""
    last = max(names, key=lambda name: (order.get(name, -1), names.index(name)))
    pool = [s for s in run.samples if str(s.get("stage", "")) == last]
    right = [s for s in pool if s.get("outcome") == "right"]
    rest = [s for s in pool if s.get("outcome") != "right"]
    few = min(len(right), max(each, 2 * each - len(rest)))
    picked = right[:few] + rest[: 2 * each - few]
    return [_sample(s) for s in picked], last


def odd_samples(run: Run) -> list[Sample]:
    """The odd samples of reinforcement learning, no two of the same text to one problem."""
    different = {(s.get("problem_id"), s["text"]): s for s in reversed(run.odd)}
    kept = [s for s in run.odd if different.get((s.get("problem_id"), s["text"])) is s]
    return [_sample({**s, "reason": _oddness(s)}) for s in kept[:ODD_SHOWN]]


def _oddness(raw: Mapping[str, Any]) -> str:
    """Why a sample is shown, e.g. `reward 1 at step 3, odd by its length (3.1 deviations)`."""
    reward, step, oddness = (number(raw.get(name)) for name in ("reward", "step", "oddness"))
    parts = [] if reward is None else [f"reward {words.short(reward)}"]
    if isinstance(named := raw.get("parts"), Mapping) and len(named) > 1:
        told = (f"{name} {words.short(x)}" for name, value in named.items() if (x := number(value)) is not None)
        parts.append(f"({', '.join(told)})")
    if step is not None:
        parts.append(f"at step {step:.0f}")
    why = str(raw.get("odd_by") or "")
    if why == "wrong":
        return f"{' '.join(parts)}, paid although the verifier calls it wrong"
    away = "" if oddness is None else f" ({words.short(oddness)} standard deviations)"
    return f"{' '.join(parts)}, odd by its {why}{away}" if why else " ".join(parts)


def appendix(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """(title, rows) of the environment and the resolved configuration, nested keys joined by dots."""
    parts = {"Versions and hardware": run.environment, "Resolved configuration": run.config}
    return [(title, list(_flat(values))) for title, values in parts.items() if values]


def contents(
    found: Sequence[Section], run: Run, samples: Sequence[Sample], odd: Sequence[Sample] = ()
) -> list[tuple[str, str]]:
    """(anchor, title) of what the page holds."""
    out = [(s.anchor, s.title) for s in found]
    if samples:
        out.append(("samples", "Ten solutions" if len(samples) == 10 else "Solutions"))
    if odd:
        out.append(("odd", "Odd samples"))
    if cost_table(run):
        out.append(("cost", "Cost"))
    if appendix(run):
        out.append(("setup", "Setup"))
    return out


def _sample(raw: Mapping[str, Any]) -> Sample:
    text = str(raw["text"]).strip()
    shown = text[:LONGEST]
    outcome = str(raw.get("outcome", ""))
    tokens = raw.get("tokens")
    return Sample(
        problem=str(raw.get("problem_id") or ""),
        prompt=str(raw.get("prompt") or ""),
        outcome=outcome if outcome in ("right", "wrong") else "unscored",
        reason=str(raw.get("reason") or ""),
        tokens=tokens if isinstance(tokens, int) else len(tokens) if isinstance(tokens, list) else None,
        spans=tuple(_pieces(shown)),
        cut=len(text) > LONGEST,
    )


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """(behaviour or "", text): the white space behind a behaviour is not marked."""
    for span in tag(text):
        piece = text[span.start : span.stop]
        marked = piece.rstrip() if span.behaviour else ""
        if marked and span.behaviour:
            yield span.behaviour.value, marked
        if piece != marked:
            yield "", piece[len(marked) :]


def _flat(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name in value:
            yield from _flat(value[name], f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        yield key, ", ".join(map(str, value)) or "none"
    else:
        yield key, "none" if value is None or value == {} else str(value)
