"""Learn a process reward model from outcomes: sample, label every prefix with how it ended, train, measure.

Roadmap section 4.2; OVM (arXiv 2311.09724). A prefix's label is the outcome of one solution that went on from it, so
the best prediction is P(right in the end | prefix): the value of the policy that sampled.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.core.seeds import derive_seed
from clew.core.types import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Qwen3ForTokenClassification

    from clew.core.task import Task
    from clew.core.types import Group, Problem
    from clew.data.run import RunDirectory
    from clew.models.policy import LocalPolicy
    from clew.recipes.stage import Stage
    from clew.reward.fit import Labelled

NAME = "reward"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRewardSettings:
    """Settings of the process reward model."""

    problems: int = 6000
    """Training problems: more of them teach more than a second look at the same."""
    samples: int = 4
    """Solutions sampled for each of them."""
    held_out: int = 100
    """Validation problems whose loss says when to stop."""
    measured: int = 200
    """Validation problems, others than those, on which the model is measured."""
    measured_samples: int = 16
    """Solutions sampled for each of those."""
    end_weight: float = 100.0
    """How much the outcome counts at the end of a solution, where it can be known, against 1 before."""
    rows: int = 64
    """Solutions an update."""
    kept: int | None = None
    """Learn besides from the ends of up to so many finished solutions of training problems that the policy's run kept:
    what is wrong with an answer does not depend on who gave it. None learns only from what is sampled."""
    epochs: int = 1
    """Most passes over the solutions."""
    evaluate_every: int = 30
    """Updates between two looks at the validation loss."""
    patience: int = 4
    """Looks in a row without a lower loss that end the training."""
    lr_matrix: float = 0.01
    """Learning rate of hidden matrices (Muon)."""
    lr_other: float = 2e-3
    """Learning rate of embeddings, norms and the head (AdamW)."""
    max_tokens: int = 288
    """Most tokens of a solution."""
    mode: Literal["think", "direct"] = "think"
    """Whether solutions may try, check and retry, or are one derivation."""


def process_reward(
    settings: ProcessRewardSettings,
    *,
    policy: LocalPolicy,
    task: Task,
    seed: int,
    stage: Stage,
    kept: Sequence[Labelled] = (),
) -> Qwen3ForTokenClassification:
    """A value model of `policy` on `task`, the one of the lowest validation loss; it learns from `kept` besides."""
    from clew.models.value_head import value_model_of
    from clew.recipes.reward_fit import fit
    from clew.recipes.reward_kinds import classifier_learner
    from clew.recipes.stage import training_problems

    problems = training_problems(task, seed)[: settings.problems]
    train = labelled(settings, sampled(settings, policy, task, problems, settings.samples, seed, stage), policy)
    held_out = labelled(
        settings,
        sampled(settings, policy, task, validation(settings, task, seed)[0], settings.samples, seed, stage),
        policy,
    )
    say_if_equal([example.labels[0] for example in [*train, *kept]], stage)
    base_rate = sum(example.labels[0] for example in train) / max(1, len(train))
    model = value_model_of(policy.model, base_rate=base_rate)
    learner = classifier_learner(model, "process", settings.mode, [*train, *kept], held_out)
    fit(learner, settings, rng=random.Random(derive_seed(seed, "process_reward")), stage=stage)
    return model


def say_if_equal(values: Sequence[float], stage: Stage) -> None:
    """Say it if there is nothing to tell right solutions from wrong ones by: one learns their common value then."""
    if values and len(set(values)) == 1:
        said = f"all {len(values)} solutions to learn from have the value {values[0]:g}"
        print(f"{stage.name}: {said}, so nothing tells right from wrong", file=sys.stderr)


def validation(settings: ProcessRewardSettings, task: Task, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Problems that say when to stop, and others on which the model is measured."""
    from clew.recipes.stage import count_problems

    wanted = settings.held_out + settings.measured
    there = count_problems(task, "validation")
    found = task.problems(
        "validation", wanted if there is None else min(wanted, there), derive_seed(seed, "validation problems")
    )
    cut = max(1, len(found) * settings.held_out // wanted)
    return found[:cut], found[cut:]


def sampled(  # noqa: PLR0913  whom to sample, on what, and how often
    settings: ProcessRewardSettings,
    policy: LocalPolicy,
    task: Task,
    problems: Sequence[Problem],
    n: int,
    seed: int,
    stage: Stage,
) -> list[Group]:
    """`n` judged solutions of every problem; one whose prompt leaves no room for them is left out."""
    from clew.evaluate import sample_groups
    from clew.recipes.learner import fitting

    return sample_groups(
        policy,
        task,
        fitting(problems, policy, max_tokens=settings.max_tokens, mode=settings.mode),
        n=n,
        sampling=Sampling(max_tokens=settings.max_tokens, mode=settings.mode),
        seed=derive_seed(seed, NAME),
        stage=stage.name,
        on_batch=lambda tokens, done, total: stage.progress(0, tokens=tokens, sampled=done / total),
    )


def labelled(settings: ProcessRewardSettings, groups: Sequence[Group], policy: LocalPolicy) -> list[Labelled]:
    """Every judged solution, each of its prefixes labelled with the verdict's value."""
    from clew.reward.fit import outcome_labels

    return [
        outcome_labels(
            policy.prompt_ids(group.problem, settings.mode),
            t.completion.tokens,
            t.reward.value,
            end_weight=settings.end_weight,
        )
        for group in groups
        for t in group.scored
    ]


def kept_solutions(
    settings: ProcessRewardSettings, checkpoint: Path, policy: LocalPolicy, task: Task, seed: int
) -> list[Labelled]:
    """Finished solutions of training problems in the store of the run `checkpoint`, their ends labelled; else none.

    Earlier and later stages of the policy wrote them, so they say nothing of the value of their beginnings.
    """
    from clew.core.task import split_of
    from clew.data.store import TrajectoryStore
    from clew.reward.fit import final_label

    path = checkpoint / "trajectories.sqlite"
    if settings.kept is None or not path.is_file():
        return []
    with TrajectoryStore(path) as store:
        found = [
            final_label(
                policy.prompt_ids(group.problem, settings.mode),
                t.state.tokens,
                t.reward.value,
                settings.end_weight,
            )
            for stage in store.stages()
            for group in store.groups(stage)
            if group.problem.task == task.name and split_of(group.problem.id) == "train"
            for t in group.scored
            if t.state.finished
        ]
    return random.Random(derive_seed(seed, "kept")).sample(found, min(settings.kept, len(found)))


def cross_entropy(model: PreTrainedModel, examples: Sequence[Labelled]) -> float:
    """Weighted mean of the binary cross-entropy of all labels, nats."""
    import numpy as np

    from clew.reward.fit import probabilities

    probs = np.concatenate([np.array(row) for row in probabilities(model, examples)]).clip(1e-7, 1 - 1e-7)
    labels = np.concatenate([np.array(example.labels) for example in examples])
    weights = np.concatenate([np.array(example.weights) for example in examples])
    losses = -(labels * np.log(probs) + (1 - labels) * np.log1p(-probs))
    return float(np.average(losses, weights=weights))


@dataclass(frozen=True, kw_only=True)
class ProcessRewardConfig:
    """Train a process reward model on solutions that a policy samples, and measure it."""

    checkpoint: Path
    """Checkpoint or run directory of the policy."""
    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings."""
    settings: ProcessRewardSettings = field(default_factory=ProcessRewardSettings)
    seed: int = 0
    """Every random draw derives from it."""
    overwrite: bool = False
    """Delete the run that is at --out."""
    json: bool = False
    """Print the measures as one JSON object instead of a table."""


def main(config: ProcessRewardConfig) -> int:
    from clew.models.allocator import keep_freed_memory
    from clew.models.checkpoint import save_checkpoint
    from clew.recipes.process_measures import measure
    from clew.recipes.reward_run import measured_run
    from clew.recipes.stage import check_settings, load_policy
    from clew.reward.load import RewardCard, write_card
    from clew.tasks import make_task

    started = time.perf_counter()
    keep_freed_memory()
    check_settings(config.settings)
    task = make_task(config.task)
    policy = load_policy(config.checkpoint)

    def work(run: RunDirectory, stage: Stage) -> dict[str, Any]:
        kept = kept_solutions(config.settings, config.checkpoint, policy, task, config.seed)
        model = process_reward(config.settings, policy=policy, task=task, seed=config.seed, stage=stage, kept=kept)
        with run.writing_checkpoint(NAME) as directory:
            save_checkpoint(model, policy.codec.tokenizer, directory)
            write_card(directory, RewardCard(kind="process", mode=config.settings.mode))
        problems = validation(config.settings, task, config.seed)[1]
        groups = sampled(config.settings, policy, task, problems, config.settings.measured_samples, config.seed, stage)
        examples = labelled(config.settings, groups, policy)
        return {"loss": cross_entropy(model, examples), **measure(model, groups, examples, policy)}

    return measured_run(config, NAME, work, started=started)
