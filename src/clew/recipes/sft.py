"""Supervised fine-tuning on written solutions that show the six behaviours (roadmap sections 3.2 to 3.4)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.initialize.countdown_traces import TraceStyle, thinking_words
from clew.models.tuning import Tuning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clew.core.task import Task
    from clew.core.types import Problem
    from clew.learn.batch import Example
    from clew.models.trainable import Trainable
    from clew.recipes.learner import Learner
    from clew.recipes.stage import Stage
    from clew.tasks import Countdown

EXAMPLES = """
clew sft --checkpoint runs/base --out runs/sft
clew sft --checkpoint runs/base --out runs/direct --settings.direct 1
clew sft --checkpoint MODEL --out runs/open --tuning.lora 16 --settings.rows 8
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


def sft(  # noqa: PLR0913  who learns from what, by name
    settings: Sft,
    *,
    policy: Trainable,
    task: Task,
    problems: Sequence[Problem],
    seed: int,
    stage: Stage,
    learner: Learner | None = None,
) -> None:
    """Train `policy`'s model in place on written solutions of `problems`; the prompt carries no loss.

    `learner` says how `policy` learns, None for all weights in float32.
    """
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.cloning import clone_step
    from clew.recipes.examples import countdown_of, demonstrable, demonstration_batch
    from clew.recipes.learner import Learner

    world, learner = countdown_of(task), learner or Learner(policy)
    problems = demonstrable(problems)
    rng = random.Random(derive_seed(seed, "sft"))
    optimizer = learner.optimizer(lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
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
        told = clone_step(learner, optimizer, examples, step=step, multiplier=rate, checkpoint=stage.last_checkpoint)
        stage.record(step, tokens=sum(example.num_learnt for example in examples), **told, lr=rate)
    learner.finish()


def check_writes(policy: Trainable, task: Countdown, problems: Sequence[Problem], settings: Sft, seed: int) -> None:
    """Refuse a policy whose tokens cannot say what a written solution says, or whose context is too short for some."""
    from clew.core.types import State
    from clew.recipes.examples import demonstrable, demonstration_batch
    from clew.recipes.learner import check_fits

    rng = random.Random(derive_seed(seed, "written"))
    examples = demonstration_batch(policy, task, demonstrable(problems), rng, rows=settings.rows, settings=settings)
    check_fits(examples, policy.context)
    numbers, target = problems[0].metadata["numbers"], problems[0].metadata["target"]
    words = " ".join(thinking_words(list(numbers), target, rng, settings.style))
    said = policy.text(State(problems[0], policy.response_ids(words)))
    if said != words:
        accepted = f"a tokenizer that can write the words of a solution, such as {words[:60]!r}"
        raise InvalidValue("--checkpoint, whose tokens say", said[:60], accepted, "choose another model")


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
    """Checkpoint or run directory to start from, a Hugging Face directory, or a GGUF file."""
    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings."""
    settings: Sft = field(default_factory=Sft)
    tuning: Tuning = field(default_factory=Tuning)
    held_out: int = 500
    """Held-out problems to measure the result on."""
    held_out_tokens: int = 288
    """Most tokens of a response to one of them."""
    seed: int = 0
    """Every random draw derives from it."""
    ranks: int = 1
    """Processes that share the work; torchrun starts them itself. They learn what one would, to rounding."""
    overwrite: bool = False
    """Delete the run that is at --out."""


CONFIG = SftConfig


def main(config: SftConfig) -> int:
    from clew.recipes.examples import countdown_of
    from clew.recipes.learner import load_learner
    from clew.recipes.stage import Evaluation, check_settings, run_alone, training_problems
    from clew.tasks import make_task

    settings, seed = config.settings, config.seed
    check_settings(settings)
    task = countdown_of(make_task(config.task))
    learner = load_learner(config.checkpoint, config.tuning, mode="think", seed=seed)
    policy, problems = learner.policy, training_problems(task, seed)
    check_writes(policy, task, problems, settings, seed)
    told = {"policy": policy, "task": task, "problems": problems, "seed": seed, "learner": learner}
    return run_alone(
        "sft",
        lambda stage: sft(settings, stage=stage, **told),  # type: ignore[arg-type]
        config=config,
        policy=policy,
        steps=settings.steps,
        evaluation=Evaluation(problems=config.held_out, max_tokens=config.held_out_tokens),
        beside=learner.save_beside,
    )
