"""Expert iteration: search, keep the verified solutions, clone them, search with the better policy, and so on.

Roadmap section 6.1.2, equation 7; arXiv 1705.08439. Of a problem's solutions the shortest is kept: thinking that
wastes the least.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clew.core.seeds import derive_seed
from clew.core.types import Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clew.core.task import Task
    from clew.core.types import Group, Problem
    from clew.models.policy import LocalPolicy
    from clew.recipes.stage import Stage

EXAMPLES = """
clew distill --checkpoint runs/sft --out runs/distilled
clew distill --checkpoint runs/sft --out runs/distilled --settings.problems 4000 --settings.samples 16
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertIteration:
    """Settings of expert iteration."""

    rounds: int = 5
    """Each searches with the policy that the one before taught."""
    problems: int = 1024
    """Training problems searched a round."""
    samples: int = 4
    """Best-of-N with the verifier: N."""
    rows: int = 32
    """Solutions an update."""
    epochs: int = 2
    """Passes over the solutions kept."""
    lr_matrix: float = 0.005
    """Learning rate of hidden matrices (Muon)."""
    lr_other: float = 1e-3
    """Learning rate of embeddings and norms (AdamW)."""
    max_tokens: int = 176
    """Most tokens of a solution: the shorter, the more concise are the solutions that count."""
    mode: Literal["think", "direct"] = "think"
    """Whether solutions may try, check and retry, or are one derivation."""


def expert_iteration(
    settings: ExpertIteration,
    *,
    policy: LocalPolicy,
    task: Task,
    problems: Sequence[Problem],
    seed: int,
    stage: Stage,
) -> None:
    """Train `policy`'s model in place on the shortest verified solution of each problem that the search solved."""
    rng = random.Random(derive_seed(seed, "expert_iteration"))
    problems = list(problems)
    updates = 0
    for number in range(settings.rounds):
        drawn = rng.sample(problems, min(settings.problems, len(problems)))
        groups = searched(
            settings, drawn, policy, task, seed=derive_seed(seed, "expert_iteration", number), stage=stage
        )
        stage.keep(groups)
        updates += clone_shortest(settings, groups, policy, rng, stage=stage, updates=updates)
        policy.refresh()


def searched(
    settings: ExpertIteration, problems: Sequence[Problem], policy: LocalPolicy, task: Task, *, seed: int, stage: Stage
) -> list[Group]:
    """Search every problem: its samples, judged."""
    from clew.evaluate import sample_groups

    return sample_groups(
        policy,
        task,
        problems,
        n=settings.samples,
        sampling=Sampling(max_tokens=settings.max_tokens, mode=settings.mode),
        seed=seed,
        stage=stage.name,
        on_batch=lambda tokens, done, total: stage.progress(0, tokens=tokens, searched=done / total),
    )


def clone_shortest(
    settings: ExpertIteration,
    groups: Sequence[Group],
    policy: LocalPolicy,
    rng: random.Random,
    *,
    stage: Stage,
    updates: int,
) -> int:
    """Clone the shortest verified solution of each group that has one; how many updates that took after `updates`."""
    from clew.learn.clone import clone
    from clew.learn.optim import make_optimizer
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.examples import sampled, shortest_right

    expert = [found for group in groups if (found := shortest_right(group))]
    solved = len(expert) / len(groups)
    steps = max(1, settings.epochs * len(expert) // settings.rows) if expert else 0
    stage.progress(0 if steps else 1, solved=solved)
    optimizer = make_optimizer(policy.model, lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
    order = [t for _ in range(settings.epochs) for t in rng.sample(expert, len(expert))]
    for step in range(steps):
        chosen = order[step * settings.rows : (step + 1) * settings.rows]
        examples = [sampled(policy, trajectory, settings.mode) for trajectory in chosen]
        rate = warmup_stable_decay(step, total=steps, decay=steps // 2)
        update = clone(policy.model, optimizer, examples, step=step, multiplier=rate, checkpoint=stage.last_checkpoint)
        stage.record(
            updates + step,
            increment=1 / steps,
            tokens=update.tokens,
            loss=update.loss,
            grad_norm=update.grad_norm,
            lr=rate,
            solved=solved,
        )
    return steps


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Expert iteration: search training problems, keep the verified solutions, clone them, and again."""

    checkpoint: Path
    """Checkpoint or run directory to start from."""
    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings."""
    settings: ExpertIteration = field(default_factory=ExpertIteration)
    seed: int = 0
    """Every random draw derives from it."""
    overwrite: bool = False
    """Delete the run that is at --out."""


CONFIG = DistillConfig


def main(config: DistillConfig) -> int:
    from clew.recipes.stage import load_policy, run_alone, training_problems
    from clew.tasks import make_task

    task = make_task(config.task)
    policy = load_policy(config.checkpoint)
    problems = training_problems(task, config.seed)
    return run_alone(
        "expert_iteration",
        lambda stage: expert_iteration(
            config.settings, policy=policy, task=task, problems=problems, seed=config.seed, stage=stage
        ),
        config=config,
        policy=policy,
        steps=config.settings.rounds,
    )
