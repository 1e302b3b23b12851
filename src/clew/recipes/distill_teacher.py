"""Distillation from a teacher policy: off-policy on what it wrote, or on-policy on what the student writes.

Off-policy is sequence-level distillation (arXiv 1606.07947): clone the teacher's text. On-policy (GKD, arXiv
2306.13649) samples from the student and descends, in each state it visited, the exact divergence of its next-token
distribution from the teacher's over the whole vocabulary: a signal at every token, and none of the states are foreign.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from clew.core.types import Trajectory
    from clew.learn.batch import Example, PaddedBatch
    from clew.recipes.cloning import Lesson
    from clew.recipes.expert_iteration import ExpertIteration
    from clew.recipes.learner import Learner

Divergence = Literal["reverse", "forward", "jensen-shannon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Settings of --method teacher."""

    checkpoint: Path | None = None
    """The teacher: a run, a checkpoint or a Hugging Face directory."""
    on_policy: bool = False
    """Whether the student writes and the teacher corrects every token; else the student clones what the teacher
    writes."""
    divergence: Divergence = "reverse"
    """on-policy: KL(student || teacher), KL(teacher || student), or Jensen-Shannon between them."""
    only_right: bool = True
    """off-policy: clone right answers alone; else all that could be judged."""


def teacher(settings: ExpertIteration, own: Teacher, lesson: Lesson) -> None:
    """Train `lesson.learner` in place. Raises `InvalidValue` without a teacher, or one of another vocabulary."""
    from clew.models.tuning import Tuning
    from clew.recipes.learner import load_learner, same_vocabulary

    if own.checkpoint is None:
        accepted = "a checkpoint that is better than the student"
        raise InvalidValue("--teacher.checkpoint", None, accepted, "give the teacher's directory")
    guide = load_learner(own.checkpoint, Tuning(), mode=settings.mode, seed=lesson.seed)
    if own.on_policy:
        same_vocabulary(lesson.learner.tokenizer, guide.tokenizer, "--teacher.checkpoint")
        on_policy(settings, divergence_of(own.divergence), guide.model.requires_grad_(False), lesson)
    else:
        off_policy(settings, own, guide, lesson)


def divergence_of(name: Divergence) -> Callable[[Tensor, Tensor], Tensor]:
    """From logits of student and teacher to a number a token."""
    from clew.learn.token_divergence import forward_kl, jensen_shannon, reverse_kl

    match name:
        case "reverse":
            return reverse_kl
        case "forward":
            return forward_kl
        case "jensen-shannon":
            return partial(jensen_shannon, weight=0.5)


def off_policy(settings: ExpertIteration, own: Teacher, guide: Learner, lesson: Lesson) -> None:
    """Clone what the teacher writes, round after round; a teacher of other tokens is read as text."""
    from clew.recipes.cloning import clone_solutions, drawn, ends_here, right_solutions, searched

    rng = random.Random(derive_seed(lesson.seed, "teacher"))
    updates = 0
    for number in range(settings.rounds):
        seed = derive_seed(lesson.seed, "teacher", number)
        groups = searched(settings, drawn(settings, lesson, rng), replace(lesson, learner=guide), seed=seed)
        kept = right_solutions(groups, cap=None)
        if not own.only_right:
            kept = [t for group in groups for t in group.scored]
        if ends_here(kept, lesson, number):
            break
        right = sum(t.verdict.right for group in groups for t in group.scored)
        shown = {"teacher_accuracy": right / max(1, sum(len(group.scored) for group in groups))}
        told = [retold(t, guide, lesson.learner) for t in kept]
        updates += clone_solutions(settings, told, lesson, rng, updates=updates, **shown)


def retold(trajectory: Trajectory, guide: Learner, learner: Learner) -> Trajectory:
    """The response in the student's tokens: the same ones if the vocabularies agree, else its text read anew."""
    if guide.tokenizer.get_vocab() == learner.tokenizer.get_vocab():
        return trajectory
    tokens = (*learner.policy.encode(trajectory.text), learner.end_id)
    return replace(trajectory, completion=replace(trajectory.completion, tokens=tokens, logprobs=None))


def on_policy(
    settings: ExpertIteration,
    divergence: Callable[[Tensor, Tensor], Tensor],
    guide: PreTrainedModel,
    lesson: Lesson,
) -> None:
    """Sample, correct every token, and sample with the corrected policy: an update for each `rows` samples."""
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.cloning import drawn, searched, solution

    rng = random.Random(derive_seed(lesson.seed, "teacher"))
    learner = lesson.learner
    optimizer = learner.optimizer(lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
    at_once = max(1, settings.rows // settings.samples)
    rounds = [drawn(settings, lesson, rng) for _ in range(settings.rounds)]
    batches = [some[at : at + at_once] for some in rounds for at in range(0, len(some), at_once)]
    for step, problems in enumerate(batches):
        seed = derive_seed(lesson.seed, "student", step)
        groups = searched(settings, problems, lesson, seed=seed, keep=step == len(batches) - 1)
        examples = [solution(learner, t) for group in groups for t in group.trajectories]
        rate = warmup_stable_decay(step, total=len(batches), decay=len(batches) // 2)
        told = correct_step(learner, optimizer, examples, guide, divergence, step=step, rate=rate)
        learner.refresh()
        right = [t.verdict.value for group in groups for t in group.scored if t.verdict.value is not None]
        lesson.stage.record(
            step,
            increment=settings.rounds / len(batches),
            tokens=sum(e.num_learnt for e in examples),
            accuracy=sum(right) / len(right) if right else None,
            lr=rate,
            **told,
        )


def correct_step(  # noqa: PLR0913  who learns from whom, by name
    learner: Learner,
    optimizer: Any,
    examples: Sequence[Example],
    guide: PreTrainedModel,
    divergence: Callable[[Tensor, Tensor], Tensor],
    *,
    step: int,
    rate: float = 1.0,
) -> dict[str, float]:
    """One update of the mean divergence over the tokens of `examples`; what to log of it."""
    import torch

    from clew.learn.batch import pad

    tokens = sum(example.num_learnt for example in examples)

    def loss_of(rows: list[int]) -> tuple[Tensor, float]:
        batch = pad([examples[row] for row in rows])
        with torch.no_grad():
            right = response_logits(guide, batch)
        with learner.precision():
            ours = response_logits(learner.model, batch)
        part = divergence(ours.float(), right.float()).sum() / tokens
        return part, part.item()

    told = learner.update(optimizer, [e.length for e in examples], loss_of, math.fsum, step=step, multiplier=rate)
    return {"loss": sum(told.noted), "grad_norm": told.grad_norm}


def response_logits(model: PreTrainedModel, batch: PaddedBatch) -> Tensor:
    """Logits [tokens, vocabulary] of the tokens of `batch` that carry loss, row after row."""
    from clew.models.any_backbone import body_states

    logits: Tensor = model.get_output_embeddings()(body_states(model, batch.input_ids, batch.target_mask))
    return logits
