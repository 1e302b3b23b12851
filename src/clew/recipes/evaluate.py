"""Measure a checkpoint on held-out problems: sampling, greedy, pass@k, votes, search with and without a verifier."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.core.errors import InvalidValue, RunDirectoryError

if TYPE_CHECKING:
    from rich.table import Table

    from clew.core.protocols import Policy
    from clew.core.types import Problem, Sampling
    from clew.evaluate.sample import OnBatch
    from clew.recipes.progress import Bar, Progress
    from clew.tasks import AnyTask

EXAMPLES = """
clew eval --checkpoint runs/first
clew eval --checkpoint runs/first/checkpoints/sft --samples 32 --mode direct
clew eval --checkpoint runs/first --task countdown:high=20 --problems 200 --json --out eval.json
"""
WIDTH = 80


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Measure a checkpoint on held-out problems: pass@1, greedy, pass@k, majority@k, best-of-n."""

    checkpoint: Path
    """Run directory or checkpoint of the model, a Hugging Face directory, or a GGUF file."""
    task: str = "countdown"
    """Task and its settings: NAME or NAME:setting=value,..."""
    split: Literal["train", "validation", "test"] = "test"
    """Which problems; those of test are never trained on."""
    problems: int = 500
    """How many problems."""
    samples: int = 8
    """Answers sampled for each problem: the largest k and n."""
    temperature: float = 1.0
    """Sampling temperature; greedy decoding is measured beside it."""
    top_k: int = 0
    """Sample from the so many most likely tokens only; 0 for all."""
    top_p: float = 1.0
    """Sample from the most likely tokens that together have this probability; 1 for all."""
    max_tokens: int = 288
    """Most tokens of an answer."""
    mode: Literal["think", "direct"] = "think"
    """Whether the model may try, check and retry, or answers with one derivation."""
    seed: int = 0
    """Every random draw derives from it; the problems too."""
    out: Path | None = None
    """JSON file to write the results to; it must not exist yet."""
    json: bool = False
    """Print the results as one JSON object instead of a table."""


CONFIG = EvalConfig


def main(config: EvalConfig) -> int:
    from clew.core.seeds import derive_seed
    from clew.data.files import jsonable, write_json_atomically
    from clew.recipes.progress import Progress
    from clew.recipes.search import foreign, load_any_policy
    from clew.recipes.stage import load_policy
    from clew.tasks import make_task

    # Whatever can be refused is refused before the seconds it takes to load a model.
    sampling = checked_sampling(config)
    task = make_task(config.task)
    problems = task.problems(config.split, config.problems, derive_seed(config.seed, "held out"))
    where = config.checkpoint
    policy = load_any_policy(str(where)) if foreign(where) else load_policy(where)
    progress = Progress({"sample": float(config.samples), "greedy": 1.0, "search": 0.1 * config.samples})
    measured = measure(
        policy, task, problems, samples=config.samples, sampling=sampling, seed=config.seed, progress=progress
    )
    results = {**asdict(replace(config, out=None)), "sampling": asdict(sampling), **measured}
    for told_elsewhere in ("out", "json", *asdict(sampling)):
        results.pop(told_elsewhere, None)
    if config.out is not None:
        write_json_atomically(config.out, results)
    if config.json:
        print(json.dumps(jsonable(results), allow_nan=False))
    else:
        from rich.console import Console

        Console(highlight=False).print(table(results))
    return 0


def checked_sampling(config: EvalConfig) -> Sampling:
    """How to sample. Raises `InvalidValue`, or `RunDirectoryError` for an output file that cannot be a new one."""
    from clew.core.types import Sampling

    if config.samples < 1:
        raise InvalidValue("samples", config.samples, "an integer of at least 1", "use 1 for pass@1 alone")
    if config.temperature == 0 and config.samples > 1:
        accepted = "1 at temperature 0, where all samples of a problem are the same"
        raise InvalidValue("samples", config.samples, accepted, "use --samples 1, or a temperature above 0")
    if config.problems < 1:
        raise InvalidValue("problems", config.problems, "an integer of at least 1", "use 500 for narrow intervals")
    if config.out is not None:
        _require_new(config.out)
    return Sampling(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
        mode=config.mode,
    )


def _require_new(out: Path) -> None:
    accepted = "a new file in a directory that exists"
    if out.exists():
        raise RunDirectoryError(f"--out {out} exists", accepted, "choose another name, or move the old file away")
    if not out.absolute().parent.is_dir():
        raise RunDirectoryError(f"--out {out}: its directory does not exist", accepted, "make the directory first")


def measure(  # noqa: PLR0913  who is measured on what, the rest by name
    policy: Policy,
    task: AnyTask,
    problems: Sequence[Problem],
    *,
    samples: int,
    sampling: Sampling,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Every rate of `policy` on `problems`, under the names of `summary.json`; samples are drawn once for all."""
    from clew.core.seeds import derive_seed
    from clew.evaluate import sample_groups, search_curve, summarise
    from clew.recipes.stage import rates
    from clew.search import PooledPolicy

    seed = derive_seed(seed, "evaluation")
    started = time.perf_counter()
    pool = PooledPolicy(policy)
    with progress.stage("sample", total=len(problems)) as bar:
        groups = sample_groups(pool, task, problems, n=samples, sampling=sampling, seed=seed, on_batch=_advancing(bar))
    greedy = replace(sampling, temperature=0.0)
    with progress.stage("greedy", total=len(problems)) as bar:
        single = sample_groups(policy, task, problems, n=1, sampling=greedy, seed=seed, on_batch=_advancing(bar))
    with progress.stage("search", total=len(problems)) as bar:
        search = search_curve(
            pool, task, problems, max_n=samples, sampling=sampling, seed=seed, on_batch=_advancing(bar)
        )
    return {
        **rates(groups, task, ks_up_to(samples)),
        "greedy": summarise(single, task).pass_at_1.as_dict(),
        "greedy_length": sum(len(g.trajectories[0].completion.tokens) for g in single) / len(single),
        "search": search,
        "tokens": sum(len(t.completion.tokens) for g in (*groups, *single) for t in g.trajectories),
        "seconds": time.perf_counter() - started,
    }


def ks_up_to(samples: int) -> list[int]:
    """1, 2, 4, ... and `samples` itself.

    >>> ks_up_to(12)
    [1, 2, 4, 8, 12]
    """
    return [*(1 << i for i in range((samples - 1).bit_length())), samples]


def table(results: Mapping[str, Any]) -> Table:
    """One screen: what each way of answering reaches and how many tokens it samples for a problem."""
    from rich import box
    from rich.table import Table

    from clew.report.data import parse_summary
    from clew.report.words import duration

    title = f"{results['task']}: {results['problems']} {results['split']} problems, {results['samples']} samples each"
    how = f"temperature {results['sampling']['temperature']:g}, {results['sampling']['mode']} mode"
    caption = f"{results['tokens']} tokens in {duration(results['seconds'])}"
    shown = Table(
        title=f"{title}, {how}", caption=caption, width=WIDTH, box=box.SIMPLE, title_justify="left", pad_edge=False
    )
    shown.add_column("", ratio=1)
    shown.add_column("right, 95 % interval", justify="right", no_wrap=True)
    shown.add_column("tokens a problem", justify="right", no_wrap=True)
    length = results["mean_length"]
    _row(shown, "greedy", results["greedy"], results["greedy_length"])
    for k, rate in results["pass_at_k"].items():
        _row(shown, f"pass@{k}", rate, length * int(k))
    shown.add_section()
    for point in parse_summary({"search": results["search"]}).search:
        if point.n == results["samples"] > 1:
            _row(shown, point.label, point.accuracy._asdict(), point.cost["tokens_sampled"])
    shown.add_section()
    for name, rate in results["by_difficulty"].items():
        _row(shown, f"pass@1, {name}", rate, None)
    if results["num_unscored"]:
        shown.add_row(f"not judged: {results['num_unscored']} of {results['num_samples']} samples", "", "")
    return shown


def _row(shown: Table, name: str, rate: Mapping[str, float], tokens: float | None) -> None:
    from clew.report.data import Rate
    from clew.report.words import with_interval

    known = Rate(rate["mean"], rate["low"], rate["high"], int(rate["n"]))
    shown.add_row(name, with_interval(known), "" if tokens is None else f"{tokens:.0f}")


def _advancing(bar: Bar) -> OnBatch:
    def advance(tokens: int, done: int, total: int) -> None:
        bar.advance(done - bar.done, tokens=tokens)

    return advance
