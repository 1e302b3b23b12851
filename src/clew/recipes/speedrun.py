"""From random weights to a model that reasons, searches and has learnt from its search: the whole loop, top to bottom.

initialise (pretrain, sft) -> search, clone what it found (expert_iteration) -> reinforce (rl) -> search at test time.
Each stage ends with a checkpoint, an evaluation on held-out problems and a marker, so a stopped run goes on
with `--resume` at the stage where it stopped, to the same end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import Sampling
from clew.models.architecture import SmallQwen3
from clew.recipes.expert_iteration import ExpertIteration, expert_iteration
from clew.recipes.pretrain import Pretrain, pretrain
from clew.recipes.progress import Progress
from clew.recipes.rl import rl
from clew.recipes.rl_settings import PolicyGradient
from clew.recipes.sft import Sft, sft
from clew.recipes.stage import Evaluation, Stage

if TYPE_CHECKING:
    from clew.core.task import Task
    from clew.core.types import Problem
    from clew.data.run import RunDirectory
    from clew.models.policy import LocalPolicy

EXAMPLES = """
clew speedrun
clew speedrun --out runs/second --seed 2
clew speedrun --out runs/second --seed 2 --resume
clew speedrun --out runs/direct --sft.direct 1 --expert.mode direct --rl.direct 1
"""
EXPECTED_SECONDS = {"pretrain": 85.0, "sft": 195.0, "expert_iteration": 95.0, "rl": 105.0, "search": 75.0}
"""On two cores; only their ratios matter, for the time left."""


@dataclass(frozen=True, kw_only=True)
class SpeedrunConfig:
    """The whole loop on two cores, without a download: initialise, search, learn, search again, report."""

    out: Path = Path("runs/speedrun")
    """Run directory to write."""
    seed: int = 0
    """Every random draw derives from it."""
    task: str = "countdown"
    """Task and its settings, e.g. countdown:count=3."""
    size: SmallQwen3 = field(default_factory=SmallQwen3)
    pretrain: Pretrain = field(default_factory=Pretrain)
    sft: Sft = field(default_factory=Sft)
    expert: ExpertIteration = field(default_factory=ExpertIteration)
    rl: PolicyGradient = field(default_factory=PolicyGradient)
    evaluate: Evaluation = field(default_factory=Evaluation)
    threads: int = 2
    """Threads of torch."""
    resume: bool = False
    """Continue the run at --out at the stage where it stopped."""
    overwrite: bool = False
    """Delete the run that is at --out."""
    json: bool = False
    """Print summary.json on standard output."""


CONFIG = SpeedrunConfig


def main(config: SpeedrunConfig) -> int:
    import torch

    from clew.data.run import RunDirectory
    from clew.models.allocator import keep_freed_memory
    from clew.models.architecture import build_model
    from clew.models.policy import LocalPolicy
    from clew.models.tokenizer import build_tokenizer
    from clew.recipes.examples import countdown_of
    from clew.recipes.stage import check_settings, load_policy, resolved, training_problems
    from clew.tasks import make_task

    started = time.perf_counter()
    if config.threads < 1:
        raise InvalidValue("threads", config.threads, "an integer of at least 1", "give as many as there are cores")
    check_settings(config.size, config.pretrain, config.sft, config.expert, config.rl, config.evaluate)
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    task = countdown_of(make_task(config.task))
    problems = training_problems(task, config.seed)
    held_out = task.problems("test", config.evaluate.problems, derive_seed(config.seed, "held out"))
    tokenizer = build_tokenizer()
    policy = LocalPolicy(build_model(config.size, tokenizer, derive_seed(config.seed, "weights")), tokenizer)
    check_engine_against_training(policy, held_out[:4], config)
    # Last, so that whatever can be refused leaves no directory behind.
    run = RunDirectory.create(config.out, resolved(config), resume=config.resume, overwrite=config.overwrite)

    common: dict[str, Any] = {"task": task, "seed": config.seed}
    recipes: dict[str, tuple[float, Callable[[LocalPolicy, Stage], object]]] = {
        "pretrain": (
            config.pretrain.steps,
            lambda policy, stage: pretrain(config.pretrain, policy=policy, stage=stage, **common),
        ),
        "sft": (
            config.sft.steps,
            lambda policy, stage: sft(config.sft, policy=policy, stage=stage, problems=problems, **common),
        ),
        "expert_iteration": (
            config.expert.rounds,
            lambda policy, stage: expert_iteration(
                config.expert, policy=policy, stage=stage, problems=problems, **common
            ),
        ),
        "rl": (
            config.rl.steps,
            lambda policy, stage: rl(config.rl, policy=policy, stage=stage, problems=problems, **common),
        ),
    }
    progress = Progress(EXPECTED_SECONDS)
    earlier = 0.0
    for name, (total, recipe) in recipes.items():
        if run.stage_done(name):
            progress.skip(name)
            earlier += run.stage_result(name)["seconds"]
        else:
            learn_stage(name, recipe, policy, run, progress, held_out, config, task, total=total)
        # Also after training, so that a resumed run goes on from the same object as one that was never stopped.
        policy = load_policy(run.checkpoint_path(name))
    if run.stage_done("search"):
        progress.skip("search")
        earlier += run.stage_result("search")["seconds"]
    else:
        search_stage(policy, run, progress, held_out, config, task)
    return finish(run, list(recipes), config, seconds=earlier + time.perf_counter() - started)


def check_engine_against_training(policy: LocalPolicy, problems: list[Problem], config: SpeedrunConfig) -> None:
    """Refuse to train when the rollout engine and the training forward pass disagree."""
    from clew.models.self_check import check_engine

    sampling = Sampling(temperature=config.evaluate.temperature, max_tokens=32)
    check_engine(policy, policy.model, problems, sampling=sampling, seed=config.seed)


def learn_stage(  # noqa: PLR0913  what to learn and where, as main has them
    name: str,
    recipe: Callable[[LocalPolicy, Stage], object],
    policy: LocalPolicy,
    run: RunDirectory,
    progress: Progress,
    held_out: list[Problem],
    config: SpeedrunConfig,
    task: Task,
    *,
    total: float,
) -> None:
    """Train, save the checkpoint, measure, mark the stage done."""
    from clew.recipes.stage import evaluate_stage, running, save_policy

    with running(name, run, progress, total=total) as stage:
        recipe(policy, stage)
        save_policy(policy, run, name)
        tokens = stage.tokens
        learnt = stage.seconds
        settings = brief(config.evaluate) if name == "pretrain" else config.evaluate
        measured = evaluate_stage(policy, task, held_out, settings, seed=config.seed, stage=stage)
        result = {"name": name, "seconds": stage.seconds, "seconds_learning": learnt, "tokens": tokens, **measured}
    run.mark_done(name, result)


def brief(settings: Evaluation) -> Evaluation:
    """A look at a base model, which has not been shown what a question is and would ramble to the limit."""
    return replace(settings, samples=1, max_tokens=min(64, settings.max_tokens))


def search_stage(
    policy: LocalPolicy,
    run: RunDirectory,
    progress: Progress,
    held_out: list[Problem],
    config: SpeedrunConfig,
    task: Task,
) -> None:
    """Search at test time with the policy that learnt, and measure what it buys for how many tokens."""
    from clew.evaluate import CONTENDERS, sample_groups, search_curve
    from clew.recipes.stage import rates, running
    from clew.search import PooledPolicy

    settings = config.evaluate
    sampling = Sampling(temperature=settings.temperature, max_tokens=settings.max_tokens)
    seed = derive_seed(config.seed, "search")
    pool = PooledPolicy(policy)
    with running("search", run, progress, total=len(held_out)) as stage:
        groups = sample_groups(
            pool,
            task,
            held_out,
            n=settings.search_samples,
            sampling=sampling,
            seed=seed,
            stage="search",
            on_batch=lambda tokens, done, total: stage.progress(done - stage.bar.done, tokens=tokens),
        )
        # It stops where it is right, so twice the samples cost little.
        contenders = [replace(c, reach=2) if c.strategy == "first-right" else c for c in CONTENDERS]
        curve = search_curve(
            pool,
            task,
            held_out,
            max_n=settings.search_samples,
            sampling=sampling,
            seed=seed,
            contenders=contenders,
            on_batch=lambda tokens, done, total: stage.progress(0, tokens=tokens, searched=done / total),
        )
        doublings = [2**i for i in range(settings.search_samples.bit_length()) if 2**i <= settings.search_samples]
        result = {"seconds": stage.seconds, "curve": curve, "rates": rates(groups, task, doublings)}
        stage.show(groups, "rl")
    run.mark_done("search", result)


def finish(run: RunDirectory, stages: list[str], config: SpeedrunConfig, *, seconds: float) -> int:
    """Write the summary and the report, show the table and where they are."""
    from rich.console import Console

    from clew.recipes.stage import write_summary
    from clew.report.html import write_report
    from clew.report.table import print_stages

    results = [run.stage_result(name) for name in stages]
    searched = run.stage_result("search")
    # The last stage is known best from the many samples of the search, which also give pass@k for larger k.
    better_known = ("pass_at_1", "pass_at_k", "majority_at_k", "by_difficulty")
    results[-1] = {**results[-1], **{name: searched["rates"][name] for name in better_known}}
    summary = write_summary(run, results, searched["curve"], seed=config.seed, seconds=seconds)
    report = write_report(run.path)
    print_stages(summary, Console(stderr=True))
    if config.json:
        print(json.dumps(summary))
    else:
        print(f"report: {report}", file=sys.stdout)
    return 0
