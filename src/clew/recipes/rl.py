"""Policy gradient with a group baseline over verified samples: sample, verify, advantage, loss, step.

The advantage is Dr. GRPO's (arXiv 2503.20783): reward minus the group's mean, no division by the
standard deviation. The loss is the clipped surrogate (arXiv 1707.06347), averaged over the batch's
tokens (arXiv 2503.14476). A group whose rewards are all equal teaches nothing and is dropped.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clew.core.seeds import derive_seed
from clew.core.types import Outcome, Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import Qwen3ForCausalLM

    from clew.core.task import Task
    from clew.core.types import Group, Problem
    from clew.learn.batch import Example, PaddedBatch
    from clew.learn.optim import MuonAdamW
    from clew.models.policy import LocalPolicy
    from clew.recipes.stage import Stage
    from clew.reward.overoptimisation import Look

EXAMPLES = """
clew rl --checkpoint runs/sft --out runs/rl
clew rl --checkpoint runs/sft --out runs/direct --settings.direct 1 --settings.steps 300
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGradient:
    """Settings of reinforcement learning."""

    steps: int = 40
    """Updates."""
    problems: int = 32
    """Problems an update, each a group."""
    group_size: int = 8
    """Samples a problem."""
    lr_matrix: float = 0.002
    """Learning rate of hidden matrices (Muon)."""
    lr_other: float = 4e-4
    """Learning rate of embeddings and norms (AdamW)."""
    clip_low: float = 0.2
    """How far a token's probability ratio may fall before it stops counting."""
    clip_high: float = 0.28
    """How far it may rise (DAPO's clip-higher)."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    max_tokens: int = 240
    """Most tokens of a response; one that is cut off there is wrong."""
    direct: float = 0.0
    """Share of problems to be answered directly, without retries; the rest think."""
    reward: tuple[str, ...] = ("verifier",)
    """Terms whose sum is the reward: verifier, overlong, relative-length, cosine-length, format, repetition, language,
    each with settings (`overlong:longest=240,margin=48`), or `model:PATH` for a learned one."""
    watch: int | None = None
    """Updates between two looks at held-out problems that compare the reward with the verifier's and measure the KL
    from the start; None for no look."""
    shuffle_rewards: bool = False
    """Negative control: deal the rewards of a batch to its samples at random."""


def rl(
    settings: PolicyGradient,
    *,
    policy: LocalPolicy,
    task: Task,
    problems: Sequence[Problem],
    seed: int,
    stage: Stage,
) -> None:
    """Train `policy`'s model in place on its own samples."""
    from clew.learn.advantages import group_centred, informative
    from clew.learn.optim import make_optimizer
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.watch import make_terms, noted, take_look, watched_problems
    from clew.reward.terms import mean_parts, rewarded

    rng = random.Random(derive_seed(seed, "rl"))
    problems, terms = list(problems), make_terms(settings.reward)
    held_out = watched_problems(task, seed) if settings.watch else []
    looks: list[Look] = []
    optimizer = make_optimizer(policy.model, lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
    reference = copy.deepcopy(policy.model).eval()
    for step in range(settings.steps):
        watched: dict[str, float] = {}
        if settings.watch and step % settings.watch == 0:
            how = {"max_tokens": settings.max_tokens, "seed": seed, "step": step}
            looks.append(take_look(policy, reference, task, held_out, terms, **how))
            watched = noted(looks)
        drawn = rng.sample(problems, min(settings.problems, len(problems)))
        groups, modes = sample_modes(settings, drawn, policy, task, seed=derive_seed(seed, "rl", step), stage=stage)
        groups = [rewarded(group, terms) for group in groups]
        rewards, valid = rewards_of(groups)
        if settings.shuffle_rewards:
            rewards = _dealt(rewards, valid, rng)
        advantages = group_centred(rewards, valid)
        examples = examples_of(groups, advantages, policy, modes)
        rate = warmup_stable_decay(
            step, total=settings.steps, warmup=min(5, settings.steps // 2), decay=settings.steps * 2 // 5
        )
        update = policy_gradient_step(
            policy.model,
            optimizer,
            examples,
            settings,
            step=step,
            multiplier=rate,
            checkpoint=stage.last_checkpoint,
        )
        policy.refresh()
        trajectories = [t for group in groups for t in group.trajectories]
        tokens = sum(len(t.completion.tokens) for t in trajectories)
        stage.record(
            step,
            tokens=tokens,
            accuracy=accuracy_of(groups),
            **{f"reward_{name}": mean for name, mean in mean_parts(groups).items() if len(terms) > 1},
            **watched,
            length=tokens / len(trajectories),
            kl=kl_from(reference, examples, settings) if step % 10 == 9 else None,
            groups_dropped=1.0 - informative(rewards, valid).float().mean().item(),
            unscored=1.0 - valid.float().mean().item(),
            lr=rate,
            **update,
        )
        if step == settings.steps - 1:
            stage.keep(groups)


def sample_modes(
    settings: PolicyGradient, problems: Sequence[Problem], policy: LocalPolicy, task: Task, *, seed: int, stage: Stage
) -> tuple[list[Group], list[str]]:
    """Groups of judged samples, a share of them answered directly, and the mode of each group."""
    from clew.evaluate import sample_groups

    directly = round(settings.direct * len(problems))
    groups: list[Group] = []
    modes: list[str] = []
    for mode, drawn in (("think", problems[directly:]), ("direct", problems[:directly])):
        if drawn:
            sampling = Sampling(max_tokens=settings.max_tokens, mode=mode)
            groups += sample_groups(
                policy, task, drawn, n=settings.group_size, sampling=sampling, seed=seed, stage=stage.name
            )
            modes += [mode] * len(drawn)
    return groups, modes


def rewards_of(groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
    """Rewards and which of them are scored, both [groups, group_size]."""
    import torch

    rewards = torch.tensor([[t.reward.value for t in group.trajectories] for group in groups])
    scored = [[t.verdict.outcome is not Outcome.UNSCORED for t in group.trajectories] for group in groups]
    return rewards, torch.tensor(scored)


def accuracy_of(groups: Sequence[Group]) -> float | None:
    """Mean value of the verdicts that there are, whatever the reward; None if there is none."""
    values = [t.verdict.value for group in groups for t in group.scored if t.verdict.value is not None]
    return sum(values) / len(values) if values else None


def examples_of(
    groups: Sequence[Group], advantages: Tensor, policy: LocalPolicy, modes: Sequence[str]
) -> list[Example]:
    """The samples that teach something: those whose advantage [groups, group_size] is not zero."""
    from clew.recipes.examples import sampled

    return [
        sampled(policy, trajectory, mode, advantage)
        for group, mode, row in zip(groups, modes, advantages.tolist(), strict=True)
        for trajectory, advantage in zip(group.trajectories, row, strict=True)
        if advantage != 0.0
    ]


def policy_gradient_step(  # noqa: PLR0913  who learns from what, the rest by name
    model: Qwen3ForCausalLM,
    optimizer: MuonAdamW,
    examples: Sequence[Example],
    settings: PolicyGradient,
    *,
    step: int,
    multiplier: float,
    checkpoint: Path | None = None,
) -> dict[str, float]:
    """One update; answers what to log. Nothing is updated when there is nothing to learn from."""
    import torch

    from clew.learn.aggregate import token_mean
    from clew.learn.gradients import accumulate_gradients
    from clew.learn.guard import check_finite
    from clew.learn.losses import clipped_surrogate
    from clew.models.forward import token_logprobs

    if not examples:
        return {}
    tokens = sum(len(example.response_ids) for example in examples)

    def loss_of(batch: PaddedBatch) -> tuple[Tensor, tuple[float, float]]:
        now = token_logprobs(model, batch.input_ids, batch.targets, batch.target_mask)
        surrogate = clipped_surrogate(
            now.logprobs,
            batch.old_logprobs,
            batch.advantages,
            clip_low=settings.clip_low,
            clip_high=settings.clip_high,
        )
        part = token_mean(surrogate, batch.target_mask, tokens=tokens)
        return part, (part.item(), now.entropies.sum().item() / tokens)

    noted = accumulate_gradients(model, examples, loss_of, tokens_per_pass=2048)
    loss, entropy = (sum(values) for values in zip(*noted, strict=True))
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm).item()
    check_finite(loss=loss, grad_norm=grad_norm, step=step, checkpoint=checkpoint)
    optimizer.step(multiplier=multiplier)
    optimizer.zero_grad()
    return {"loss": loss, "grad_norm": grad_norm, "entropy": entropy}


def kl_from(reference: Qwen3ForCausalLM, examples: Sequence[Example], settings: PolicyGradient) -> float | None:
    """KL divergence of the sampling policy from `reference` in nats a token: the k3 estimate over some samples."""
    import torch

    from clew.learn.batch import pad
    from clew.learn.kl import k3
    from clew.models.forward import token_logprobs

    if not examples:
        return None
    batch = pad(examples[:32])
    with torch.no_grad():
        then = token_logprobs(reference, batch.input_ids, batch.targets, batch.target_mask).logprobs
    return k3(batch.old_logprobs, then)[batch.target_mask].mean().item()


def _dealt(rewards: Tensor, valid: Tensor, rng: random.Random) -> Tensor:
    """Rewards [groups, group_size] with those of the scored samples dealt out anew among them."""
    order = list(range(int(valid.sum())))
    rng.shuffle(order)
    return rewards.masked_scatter(valid, rewards[valid][order])


@dataclass(frozen=True, kw_only=True)
class RLConfig:
    """Reinforcement learning from a checkpoint: group-relative policy gradient over verified samples."""

    checkpoint: Path
    """Checkpoint or run directory to start from."""
    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings."""
    settings: PolicyGradient = field(default_factory=PolicyGradient)
    seed: int = 0
    """Every random draw derives from it."""
    overwrite: bool = False
    """Delete the run that is at --out."""


CONFIG = RLConfig


def main(config: RLConfig) -> int:
    from clew.recipes.stage import load_policy, run_alone, training_problems
    from clew.tasks import make_task

    task = make_task(config.task)
    policy = load_policy(config.checkpoint)
    problems = training_problems(task, config.seed)
    return run_alone(
        "rl",
        lambda stage: rl(config.settings, policy=policy, task=task, problems=problems, seed=config.seed, stage=stage),
        config=config,
        policy=policy,
        steps=config.settings.steps,
    )
