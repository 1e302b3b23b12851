"""Preference learning: pairs from a search, a store or a file, or sampled and paired round after round.

Roadmap section 6.1.1, equations 5 and 6. Step-DPO (arXiv 2406.18629) and MCTS-DPO (arXiv 2405.00451) are the same
losses on pairs of steps that share a beginning; online DPO is the same loop with the present policy's own samples.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.models.tuning import Tuning
from clew.recipes.preference_settings import Preference, check_preference
from clew.recipes.preference_ways import way_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from clew.core.types import Problem
    from clew.recipes.learner import Learner
    from clew.recipes.stage import Stage
    from clew.tasks import AnyTask

EXAMPLES = """
clew dpo --checkpoint runs/sft --out runs/dpo --settings.rounds 3
clew dpo --checkpoint runs/sft --data runs/mcts --out runs/step-dpo --settings.loss cdpo --settings.flipped visits
clew dpo --checkpoint runs/sft --data pairs.jsonl --out runs/simpo --settings.loss simpo
clew dpo --checkpoint runs/sft --data runs/vote --out runs/kto --settings.loss kto
clew dpo --checkpoint MODEL --data pairs.parquet --out runs/dpo --tuning.lora 16 --tuning.gradient-checkpointing
"""


def dpo(  # noqa: PLR0913  who learns from what, by name
    settings: Preference,
    *,
    learner: Learner,
    rows_of_round: Callable[[int], Sequence[Any]],
    reference: PreTrainedModel | None = None,
    problems: Sequence[Problem] = (),
    seed: int,
    stage: Stage,
) -> None:
    """Train `learner` in place on the rows of each round; `problems` are what the KL from the start is measured on.

    Rows are pairs, or single solutions for the loss that takes those. Without `reference` it is the policy at the
    start of each round. Raises `InvalidValue` if the first round has no rows; a later one without is the end.
    """
    from clew.recipes.learner import reference_copy
    from clew.recipes.preference_learning import kl_from, learn

    rng = random.Random(derive_seed(seed, "dpo"))
    way, start = way_of(settings), reference_copy(learner)
    updates = 0
    for number in range(settings.rounds):
        rows = rows_of_round(number)
        if not rows and number:
            # All samples are right, or all are wrong, after learning: what was learnt is kept.
            print(f"dpo: round {number + 1} has no {way.rows}, so learning ends here", file=sys.stderr)
            break
        if not rows:
            advice = "raise --settings.samples or --settings.problems, or warm up with sft or distill first"
            raise InvalidValue(f"{way.rows} of round {number + 1}", 0, way.accepted, advice)
        fixed = reference or (start if settings.first_reference or number == 0 else reference_copy(learner))
        examples = way.examples(rows, learner, fixed if way.takes_reference else None)
        kl = None if number == 0 else kl_from(start, learner, problems, settings, derive_seed(seed, "kl", number))
        updates += learn(settings, way, examples, learner, rng, stage=stage, updates=updates, kl=kl)
        learner.refresh()
    learner.finish()
    kl = kl_from(start, learner, problems, settings, derive_seed(seed, "kl", settings.rounds))
    stage.record(updates, increment=0.0, kl=kl)


def sampled_rows(
    settings: Preference, *, learner: Learner, task: AnyTask, problems: Sequence[Problem], seed: int, stage: Stage
) -> Callable[[int], Sequence[Any]]:
    """Judged samples of the present policy, anew each round, as what the loss takes."""
    from clew.recipes.cloning import Lesson, drawn, searched

    way, lesson = way_of(settings), Lesson(learner=learner, task=task, problems=problems, seed=seed, stage=stage)

    def of_round(number: int) -> Sequence[Any]:
        own = derive_seed(seed, "dpo", number)
        groups = searched(settings, drawn(settings, lesson, random.Random(own)), lesson, seed=own)
        return way.of_groups(groups, own)

    return of_round


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """Learn from preferences: of a search run, a store or a file, or of the policy's own samples."""

    checkpoint: Path
    """Checkpoint or run directory to start from, a Hugging Face directory, or a GGUF file."""
    out: Path
    """Run directory to write."""
    data: Path | None = None
    """Run of clew search, loop, rl or distill, or a file (.jsonl, .parquet) of pairs, for kto also of labelled
    solutions; left out, the policy samples."""
    reference: Path | None = None
    """Checkpoint of the reference; left out, the policy itself as it was."""
    task: str = "countdown"
    """Task and its settings."""
    settings: Preference = field(default_factory=Preference)
    tuning: Tuning = field(default_factory=Tuning)
    held_out: int = 500
    """Held-out problems to measure the result on."""
    seed: int = 0
    """Every random draw derives from it."""
    ranks: int = 1
    """Processes that share the work; torchrun starts them itself. They learn what one would, to rounding."""
    overwrite: bool = False
    """Delete the run that is at --out."""


CONFIG = DpoConfig


def main(config: DpoConfig) -> int:
    from clew.recipes.learner import check_run_tokens, fitting, load_learner, reference_at
    from clew.recipes.stage import Evaluation, check_settings, run_alone, training_problems
    from clew.tasks import make_task

    _check(config)
    settings, seed = config.settings, config.seed
    check_settings(settings)
    task = make_task(config.task)
    learner = load_learner(config.checkpoint, config.tuning, mode=settings.mode, seed=seed)
    reference = None if config.reference is None else reference_at(config.reference, learner, "--reference")
    room = {"max_tokens": settings.max_tokens, "mode": settings.mode}
    problems = fitting(training_problems(task, seed), learner.policy, **room)  # type: ignore[arg-type]
    way = way_of(settings)
    rows: Sequence[Any] | None = None
    if config.data is not None and config.data.is_dir():
        check_run_tokens(config.data, learner, "--data")
    if config.data is not None:
        rows = way.of_run(config.data, seed) if config.data.is_dir() else way.of_file(config.data, learner)

    def train(stage: Stage) -> None:
        told = {"learner": learner, "problems": problems, "seed": seed, "stage": stage}
        made = sampled_rows(settings, task=task, **told) if rows is None else lambda number: rows  # type: ignore[arg-type]
        dpo(settings, rows_of_round=made, reference=reference, **told)  # type: ignore[arg-type]

    return run_alone(
        "dpo",
        train,
        config=config,
        policy=learner.policy,
        steps=settings.rounds,
        evaluation=Evaluation(problems=config.held_out),
        beside=learner.save_beside,
    )


def _check(config: DpoConfig) -> None:
    """Refuse what the loss or the source of pairs does not use, before anything is loaded."""
    settings = config.settings
    check_preference(settings)
    if config.reference is not None and not way_of(settings).takes_reference:
        accepted = f"only with a loss that compares with a reference, not with {settings.loss}"
        raise InvalidValue("--reference", str(config.reference), accepted, "leave it out, or change --settings.loss")
    if settings.level is not None and (config.data is None or not config.data.is_dir()):
        accepted = "only where --data is a run"
        raise InvalidValue("--settings.level", settings.level, accepted, "leave it out, or give --data RUN")
