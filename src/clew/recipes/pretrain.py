"""Pre-training: next-token prediction on text about the task's world, from random weights (roadmap section 3.1)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clew.core.seeds import derive_seed
from clew.models.architecture import SmallQwen3

if TYPE_CHECKING:
    from clew.core.task import Task
    from clew.models.policy import LocalPolicy
    from clew.recipes.stage import Stage

EXAMPLES = """
clew pretrain --out runs/base
clew pretrain --out runs/wide --size.width 192 --settings.steps 400
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrain:
    """Settings of pre-training."""

    steps: int = 800
    """Updates."""
    rows: int = 24
    """Documents an update."""
    tokens: int = 63
    """Tokens a document."""
    lr_matrix: float = 0.02
    """Learning rate of hidden matrices (Muon)."""
    lr_other: float = 4e-3
    """Learning rate of embeddings and norms (AdamW)."""


def pretrain(settings: Pretrain, *, policy: LocalPolicy, task: Task, seed: int, stage: Stage) -> None:
    """Train `policy`'s model in place."""
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.cloning import clone_step
    from clew.recipes.examples import corpus_batch, countdown_of
    from clew.recipes.learner import Learner

    world = countdown_of(task)
    rng = random.Random(derive_seed(seed, "pretrain"))
    learner = Learner(policy)
    optimizer = learner.optimizer(lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
    decay = settings.steps // 3
    for step in range(settings.steps):
        examples = corpus_batch(policy, world, rng, rows=settings.rows, tokens=settings.tokens)
        rate = warmup_stable_decay(step, total=settings.steps, warmup=min(10, settings.steps - decay), decay=decay)
        told = clone_step(learner, optimizer, examples, step=step, multiplier=rate, checkpoint=stage.last_checkpoint)
        stage.record(step, tokens=sum(example.num_learnt for example in examples), **told, lr=rate)
    policy.refresh()


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pre-train a small model from random weights on text about the task's world."""

    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings, e.g. countdown:count=5."""
    size: SmallQwen3 = field(default_factory=SmallQwen3)
    settings: Pretrain = field(default_factory=Pretrain)
    seed: int = 0
    """Every random draw derives from it."""
    overwrite: bool = False
    """Delete the run that is at --out."""


CONFIG = PretrainConfig


def main(config: PretrainConfig) -> int:
    from clew.models.architecture import build_model
    from clew.models.policy import LocalPolicy
    from clew.models.tokenizer import build_tokenizer
    from clew.recipes.examples import countdown_of
    from clew.recipes.stage import check_settings, run_alone
    from clew.tasks import make_task

    check_settings(config.size)
    task = countdown_of(make_task(config.task))
    tokenizer = build_tokenizer()
    policy = LocalPolicy(build_model(config.size, tokenizer, derive_seed(config.seed, "weights")), tokenizer)
    return run_alone(
        "pretrain",
        lambda stage: pretrain(config.settings, policy=policy, task=task, seed=config.seed, stage=stage),
        config=config,
        policy=policy,
        steps=config.settings.steps,
    )
