"""Policy gradient over verified samples: sample, verify, advantage, loss, step.

Every published combination of advantage, loss and aggregation goes through the one loop below; `rl_algorithms.py` says
which of them a name stands for. By default the advantage is Dr. GRPO's (arXiv 2503.20783): reward minus the group's
mean, no division by the standard deviation. The loss is the clipped surrogate (arXiv 1707.06347), averaged over the
batch's tokens (arXiv 2503.14476). A group whose rewards are all equal teaches nothing and is dropped.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clew.core.seeds import derive_seed
from clew.models.tuning import Tuning
from clew.recipes.rl_algorithms import method_of, resolved_settings
from clew.recipes.rl_diagnosis import Diagnosis, mismatch_metrics, versions_behind
from clew.recipes.rl_partial import age_metrics
from clew.recipes.rl_rollouts import Rollouts, Sampler, rewards_of
from clew.recipes.rl_settings import Algorithm, PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from clew.core.task import Task
    from clew.core.types import Group, Problem
    from clew.learn.batch import Example
    from clew.models.trainable import Trainable
    from clew.recipes.rl_learner import RLLearner
    from clew.recipes.rl_lessons import Lessons
    from clew.recipes.stage import Stage
    from clew.reward.overoptimisation import Look

EXAMPLES = """
clew rl --checkpoint runs/sft --out runs/rl
clew rl --checkpoint runs/sft --out runs/ppo --algorithm ppo --settings.critic.body own
clew rl --checkpoint runs/sft --out runs/direct --settings.direct 1 --settings.steps 300
clew rl --checkpoint MODEL --task rg:gsm_symbolic --out runs/open --tuning.lora 8 --tuning.gradient-checkpointing
"""


def rl(  # noqa: PLR0913  who learns from what, by name
    settings: PolicyGradient,
    *,
    policy: Trainable,
    task: Task,
    problems: Sequence[Problem],
    seed: int,
    stage: Stage,
    learner: RLLearner | None = None,
) -> Diagnosis:
    """Train `policy`'s model in place on its own samples, by `learner` if it was made before."""
    from clew.recipes.rl_learner import average_rewards, make_learner
    from clew.recipes.rl_lessons import Moment, lessons_of
    from clew.recipes.rl_noise import noise_metrics
    from clew.recipes.rl_trees import tree_lessons
    from clew.recipes.rl_update import update
    from clew.recipes.watch import make_terms, noted, take_look, watched_problems
    from clew.reward.terms import mean_parts

    method, diagnosis, rng = method_of(settings), Diagnosis(), random.Random(derive_seed(seed, "rl"))
    problems, terms = list(problems), make_terms(settings.reward)
    held_out = watched_problems(task, seed) if settings.watch else []
    looks: list[Look] = []
    learner = learner or make_learner(settings, method, policy, task)
    sampler = Sampler(
        settings=settings,
        method=method,
        policy=policy,
        task=task,
        problems=problems,
        terms=terms,
        rng=rng,
        seed=seed,
        stage=stage.name,
    )
    ahead: Rollouts | None = None
    for step in range(settings.steps):
        watched: dict[str, float] = {}
        if settings.watch and step % settings.watch == 0:
            how = {"max_tokens": settings.max_tokens, "seed": seed, "step": step}
            looks.append(take_look(policy, learner.reference, task, held_out, terms, **how))
            watched = noted(looks)
        rollouts = sampler.batch(step) if ahead is None else ahead
        # One step off: the next batch is sampled before this one has taught anything.
        ahead = sampler.batch(step + 1) if settings.asynchronous and step + 1 < settings.steps else None
        groups = rollouts.groups
        moment = Moment(step, seed, learning_rate(settings, step), stage.last_checkpoint)
        rewards, valid = rewards_of(groups)
        if settings.shuffle_rewards:
            rewards = _dealt(rewards, valid, rng)
        grown = tree_lessons(learner, rollouts) if method.grows_trees else None
        found = grown if grown is not None else lessons_of(learner, rollouts, rewards, valid, moment)
        noise = noise_metrics(learner, found, moment)
        measured = update(learner, found, moment)
        told = {**measured.metrics, **noise, **adapted_kl(learner, found)}
        behind, ages = versions_behind(policy.version, rollouts.version), age_metrics(policy.version, rollouts)
        learner.own.refresh()
        average_rewards(learner, rewards, valid)
        stage.record(
            step,
            tokens=rollouts.tokens + found.rollout_tokens,
            accuracy=accuracy_of([*groups, *rollouts.rejected]),
            **{f"reward_{name}": mean for name, mean in mean_parts(groups).items() if len(terms) > 1},
            **watched,
            length=mean_length([*groups, *rollouts.rejected]),
            kl=kl_from(learner.reference, [lesson.example for lesson in found.lessons]) if step % 10 == 9 else None,
            groups_dropped=dropped_share(rollouts, found, rewards, valid),
            unscored=1.0 - valid.float().mean().item() if valid.numel() else 0.0,
            lr=moment.multiplier,
            behind=behind if settings.asynchronous else None,
            **ages,
            **told,
            **mismatch_metrics(measured.mismatch, measured.tokens),
            **diagnosis.see(step, rollouts, found, measured.metrics),
        )
        if step == settings.steps - 1:
            stage.keep(with_finite_rewards(groups))
    diagnosis.say_what_waits()
    learner.own.settle()
    return diagnosis


def learning_rate(settings: PolicyGradient, step: int) -> float:
    """What the learning rates are multiplied by at `step`."""
    from clew.learn.schedule import warmup_stable_decay

    warmup, decay = min(5, settings.steps // 2), settings.steps * 2 // 5
    return warmup_stable_decay(step, total=settings.steps, warmup=warmup, decay=decay)


def accuracy_of(groups: Sequence[Group]) -> float | None:
    """Mean value of the verdicts that there are, whatever the reward; None if there is none."""
    values = [t.verdict.value for group in groups for t in group.scored if t.verdict.value is not None]
    return sum(values) / len(values) if values else None


def with_finite_rewards(groups: Sequence[Group]) -> list[Group]:
    """`groups` without the samples whose reward is no number, which no store can rank."""
    return [
        replace(group, trajectories=tuple(t for t in group.trajectories if math.isfinite(t.reward.value)))
        for group in groups
    ]


def mean_length(groups: Sequence[Group]) -> float | None:
    """Tokens of a response; None if there is none."""
    lengths = [len(t.completion.tokens) for group in groups for t in group.trajectories]
    return sum(lengths) / len(lengths) if lengths else None


def dropped_share(rollouts: Rollouts, found: Lessons, rewards: Tensor, valid: Tensor) -> float | None:
    """Share of the groups that were sampled, rejected ones too, that teach nothing; None if none has ended yet."""
    from clew.learn.advantages import informative

    if rollouts.trees:
        return 1.0 - len({lesson.group for lesson in found.lessons}) / len(rollouts.trees)
    if not rollouts.groups:
        return 1.0 if rollouts.waiting is None or rollouts.rejected else None
    if not rollouts.rejected:
        return 1.0 - informative(rewards, valid).float().mean().item()
    kept = int(informative(rewards, valid).sum())
    return 1.0 - kept / (len(rollouts.groups) + len(rollouts.rejected))


def adapted_kl(learner: RLLearner, found: Lessons) -> dict[str, float]:
    """The KL of the batch from the reference, nats a response, by k3; moves its coefficient where there is a target."""
    from clew.learn.kl import adapted_coefficient, k3
    from clew.recipes.rl_update import learnt_logprobs

    measured = [
        k3(learnt_logprobs(lesson), lesson.reference).sum().item()
        for lesson in found.lessons
        if lesson.reference is not None
    ]
    if not measured:
        return {}
    mean = sum(measured) / len(measured)
    told = {"kl_penalised": mean, "kl_coefficient": learner.kl_coefficient}
    if learner.settings.kl_target is not None:
        learner.kl_coefficient = adapted_coefficient(
            learner.kl_coefficient, mean, samples=len(measured), target=learner.settings.kl_target
        )
    return told


def kl_from(reference: PreTrainedModel, examples: Sequence[Example]) -> float | None:
    """KL divergence of the sampling policy from `reference` in nats a token: the k3 estimate over some samples."""
    import torch

    from clew.learn.batch import pad
    from clew.learn.kl import k3
    from clew.models.any_backbone import target_logprobs

    if not examples:
        return None
    batch = pad(examples[:32])
    with torch.no_grad():
        then = target_logprobs(reference, batch.input_ids, batch.targets, batch.target_mask)
    return k3(batch.old_logprobs, then)[batch.target_mask].mean().item()


def _dealt(rewards: Tensor, valid: Tensor, rng: random.Random) -> Tensor:
    """Rewards [groups, group_size] with those of the scored samples dealt out anew among them."""
    order = list(range(int(valid.sum())))
    rng.shuffle(order)
    return rewards.masked_scatter(valid, rewards[valid][order])


@dataclass(frozen=True, kw_only=True)
class RLConfig:
    """Reinforcement learning from a checkpoint: policy gradient over verified samples, by any published name."""

    checkpoint: Path
    """Checkpoint or run directory to start from, a Hugging Face directory, or a GGUF file."""
    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings."""
    algorithm: Algorithm | None = None
    """Short for --settings.algorithm: the published name that stands for advantage, loss, aggregation and the rest."""
    settings: PolicyGradient = field(default_factory=PolicyGradient)
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


CONFIG = RLConfig


def main(config: RLConfig) -> int:
    from clew.recipes.learner import load_learner
    from clew.recipes.rl_learner import make_learner
    from clew.recipes.stage import Evaluation, check_settings, run_alone, training_problems
    from clew.tasks import make_task

    settings = config.settings if config.algorithm is None else replace(config.settings, algorithm=config.algorithm)
    # What is saved with the run leaves nothing to the name.
    config = replace(config, algorithm=settings.algorithm, settings=resolved_settings(settings))
    check_settings(config.settings)
    task = make_task(config.task)
    own = load_learner(config.checkpoint, config.tuning, mode="think", seed=config.seed)
    learner = make_learner(config.settings, method_of(config.settings), own.policy, task, own=own)
    problems = training_problems(task, config.seed)

    def train(stage: Stage) -> None:
        told = {"task": task, "problems": problems, "seed": config.seed, "stage": stage}
        rl(config.settings, policy=own.policy, learner=learner, **told).write(stage.run)  # type: ignore[arg-type]

    return run_alone(
        "rl",
        train,
        config=config,
        policy=own.policy,
        steps=config.settings.steps,
        evaluation=Evaluation(problems=config.held_out, max_tokens=config.held_out_tokens),
        beside=own.save_beside,
    )
