"""Supervised fine-tuning on written solutions that show the six behaviours (roadmap sections 3.2 to 3.4)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clew.core.seeds import derive_seed
from clew.initialize.countdown_traces import TraceStyle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clew.core.task import Task
    from clew.core.types import Problem
    from clew.learn.batch import Example
    from clew.models.policy import LocalPolicy
    from clew.recipes.stage import Stage

EXAMPLES = """
clew sft --checkpoint runs/base --out runs/sft
clew sft --checkpoint runs/base --out runs/direct --settings.direct 1
"""
BATCHES_SORTED = 8
"""So many batches are written at once and divided by length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sft:
    """Settings of supervised fine-tuning."""

    steps: int = 950
    """Updates."""
    rows: int = 56
    """Solutions an update."""
    direct: float = 0.15
    """Share of solutions without retries, in the mode of that name; the rest are in the mode that may think."""
    at_once: float = 0.4
    """Of those that may think, the share that give the answer at once, as question and answer stand in most texts."""
    wider: float = 0.2
    """Share of solutions to problems of a wider world: larger numbers and targets, none of them held out."""
    lr_matrix: float = 0.02
    """Learning rate of hidden matrices (Muon)."""
    lr_other: float = 4e-3
    """Learning rate of embeddings and norms (AdamW)."""
    style: TraceStyle = field(default_factory=TraceStyle)


def sft(
    settings: Sft, *, policy: LocalPolicy, task: Task, problems: Sequence[Problem], seed: int, stage: Stage
) -> None:
    """Train `policy`'s model in place on written solutions of `problems`; the prompt carries no loss."""
    from clew.learn.clone import clone
    from clew.learn.optim import make_optimizer
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.examples import countdown_of, demonstrable, demonstration_batch

    world = countdown_of(task)
    problems = demonstrable(problems)
    rng = random.Random(derive_seed(seed, "sft"))
    optimizer = make_optimizer(policy.model, lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
    decay = settings.steps * 2 // 5
    batches: list[list[Example]] = []
    for step in range(settings.steps):
        if not batches:
            rows = settings.rows * BATCHES_SORTED
            written = demonstration_batch(policy, world, problems, rng, rows=rows, settings=settings)
            batches = similar_lengths(written, settings.rows)
            rng.shuffle(batches)
        examples = batches.pop()
        rate = warmup_stable_decay(step, total=settings.steps, warmup=min(10, settings.steps - decay), decay=decay)
        update = clone(policy.model, optimizer, examples, step=step, multiplier=rate, checkpoint=stage.last_checkpoint)
        stage.record(step, tokens=update.tokens, loss=update.loss, grad_norm=update.grad_norm, lr=rate)
    policy.refresh()


def similar_lengths(examples: Sequence[Example], rows: int) -> list[list[Example]]:
    """`examples` in batches of `rows`, each half from the shorter half of them and half from the longer, the lengths
    within a half being similar: little of a batch is padding, and no update learns from short answers alone.
    """
    ordered = sorted(examples, key=lambda example: example.length)
    middle, half = len(ordered) // 2, max(1, rows // 2)
    shorter, longer = ordered[:middle], ordered[middle:]
    count = max(1, len(ordered) // rows)
    return [
        shorter[at * half : (at + 1) * half] + longer[at * (rows - half) : (at + 1) * (rows - half)]
        for at in range(count)
    ]


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Fine-tune a checkpoint on written solutions that show reasoning behaviours."""

    checkpoint: Path
    """Checkpoint or run directory to start from."""
    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings."""
    settings: Sft = field(default_factory=Sft)
    seed: int = 0
    """Every random draw derives from it."""
    overwrite: bool = False
    """Delete the run that is at --out."""


CONFIG = SftConfig


def main(config: SftConfig) -> int:
    from clew.recipes.examples import countdown_of
    from clew.recipes.stage import load_policy, run_alone, training_problems
    from clew.tasks import make_task

    task = countdown_of(make_task(config.task))
    policy = load_policy(config.checkpoint)
    problems = training_problems(task, config.seed)
    return run_alone(
        "sft",
        lambda stage: sft(config.settings, policy=policy, task=task, problems=problems, seed=config.seed, stage=stage),
        config=config,
        policy=policy,
        steps=config.settings.steps,
    )
