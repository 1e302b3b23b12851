"""Behaviour cloning in all its methods: what search or a teacher found, made the policy's own (roadmap 6.1.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clew.core.errors import InvalidValue
from clew.models.tuning import Tuning
from clew.recipes.distill_bond import Bond
from clew.recipes.distill_rejection import Rejection
from clew.recipes.distill_star import Star
from clew.recipes.distill_teacher import Teacher
from clew.recipes.distill_visits import Visits
from clew.recipes.distill_vstar import VStar
from clew.recipes.expert_iteration import ExpertIteration

if TYPE_CHECKING:
    from clew.recipes.cloning import Lesson

EXAMPLES = """
clew distill --checkpoint runs/sft --out runs/distilled
clew distill --checkpoint runs/sft --out runs/distilled --settings.problems 4000 --settings.samples 16
clew distill --method star --checkpoint runs/sft --out runs/star
clew distill --method visits --visits.data runs/mcts --checkpoint runs/sft --out runs/zero
clew distill --method teacher --teacher.checkpoint runs/first --teacher.on-policy --checkpoint runs/sft --out runs/new
"""
Method = Literal["expert-iteration", "star", "rest-em", "rft", "v-star", "visits", "bond", "teacher"]


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Clone what a search, or a teacher, found: verified solutions, visits, best-of-N, or the teacher's own words."""

    method: Method = "expert-iteration"
    """expert-iteration: the shortest right solution, round after round. star: the same from the first weights, with
    rationalisation. rest-em: all different right ones, from the first weights. rft: all of them, once. v-star: with a
    verifier from right and wrong. visits: where a tree search went, and its values. bond: best-of-N without the N.
    teacher: another policy."""
    checkpoint: Path
    """Checkpoint or run directory to start from, a Hugging Face directory, or a GGUF file."""
    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings."""
    settings: ExpertIteration = field(default_factory=ExpertIteration)
    star: Star = field(default_factory=Star)
    rejection: Rejection = field(default_factory=Rejection)
    v_star: VStar = field(default_factory=VStar)
    visits: Visits = field(default_factory=Visits)
    bond: Bond = field(default_factory=Bond)
    teacher: Teacher = field(default_factory=Teacher)
    tuning: Tuning = field(default_factory=Tuning)
    held_out: int = 500
    """Held-out problems to measure the result on."""
    seed: int = 0
    """Every random draw derives from it."""
    ranks: int = 1
    """Processes that share the work; torchrun starts them itself. They learn what one would, to rounding."""
    overwrite: bool = False
    """Delete the run that is at --out."""


CONFIG = DistillConfig


def learn(config: DistillConfig, lesson: Lesson) -> None:
    """Train `lesson.learner` in place by the method that `config` names: the one place that knows their names."""
    from clew.recipes.distill_bond import bond
    from clew.recipes.distill_rejection import rejection_sampling, rest_em
    from clew.recipes.distill_star import star
    from clew.recipes.distill_teacher import teacher
    from clew.recipes.distill_visits import visits
    from clew.recipes.distill_vstar import v_star
    from clew.recipes.expert_iteration import expert_iteration

    match config.method:
        case "expert-iteration":
            expert_iteration(
                config.settings,
                policy=lesson.learner.policy,
                task=lesson.task,
                problems=lesson.problems,
                seed=lesson.seed,
                stage=lesson.stage,
                learner=lesson.learner,
            )
        case "star":
            star(config.settings, config.star, lesson)
        case "rest-em":
            rest_em(config.settings, config.rejection, lesson)
        case "rft":
            rejection_sampling(config.settings, config.rejection, lesson)
        case "v-star":
            v_star(config.settings, config.v_star, lesson)
        case "visits":
            visits(config.settings, config.visits, lesson)
        case "bond":
            bond(config.settings, config.bond, lesson)
        case "teacher":
            teacher(config.settings, config.teacher, lesson)
    lesson.learner.finish()


def main(config: DistillConfig) -> int:
    from clew.recipes.cloning import Lesson
    from clew.recipes.learner import fitting, load_learner
    from clew.recipes.stage import Evaluation, Stage, check_settings, run_alone, training_problems
    from clew.tasks import make_task

    check(config)
    check_settings(config.settings, config.rejection, config.v_star, config.visits, config.bond)
    task = make_task(config.task)
    learner = load_learner(config.checkpoint, config.tuning, mode=config.settings.mode, seed=config.seed)
    how = {"max_tokens": config.settings.max_tokens, "mode": config.settings.mode}
    problems = fitting(training_problems(task, config.seed), learner.policy, **how)  # type: ignore[arg-type]

    def train(stage: Stage) -> None:
        learn(config, Lesson(learner=learner, task=task, problems=problems, seed=config.seed, stage=stage))

    return run_alone(
        config.method.replace("-", "_"),
        train,
        config=config,
        policy=learner.policy,
        steps=1 if config.method in ONCE else config.settings.rounds,
        evaluation=Evaluation(problems=config.held_out),
        beside=learner.save_beside,
    )


ONCE: tuple[Method, ...] = ("rft", "visits")
"""Methods without rounds."""


def check(config: DistillConfig) -> None:
    """Refuse settings that the method does not use."""
    plain = {
        "star": (Star(), ("star",)),
        "rejection": (Rejection(), ("rft", "rest-em")),
        "v_star": (VStar(), ("v-star",)),
        "visits": (Visits(), ("visits",)),
        "bond": (Bond(), ("bond",)),
        "teacher": (Teacher(), ("teacher",)),
    }
    for name, (default, methods) in plain.items():
        if getattr(config, name) != default and config.method not in methods:
            accepted = f"only with --method {' or '.join(methods)}"
            option = f"--{name.replace('_', '-')}.*"
            raise InvalidValue(option, "given", accepted, "leave it out, or change the method")
    if config.method in ONCE and config.settings.rounds != ExpertIteration().rounds:
        accepted = f"left out: {config.method} has no rounds"
        raise InvalidValue("--settings.rounds", config.settings.rounds, accepted, "raise --settings.samples instead")
