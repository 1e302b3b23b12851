"""BOND (arXiv 2407.14622): the policy learns to write at once what best-of-N would have chosen.

The divergence is Jeffreys': a share of KL(policy || target) by policy gradient on the policy's own samples, the rest
KL(target || policy) by cloning the best of N draws of the anchor. The target is exact with ties (`learn.best_of_n`),
its two probabilities counted among draws of the anchor. Each round's anchor is the policy that it begins with, so
rounds make N grow as a power (the paper's iterated form; its J-BOND moves the anchor by an average instead).
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from clew.core.types import Group, Trajectory
    from clew.learn.batch import Example
    from clew.recipes.cloning import Lesson
    from clew.recipes.expert_iteration import ExpertIteration
    from clew.recipes.learner import Learner


@dataclass(frozen=True, slots=True, kw_only=True)
class Bond:
    """Settings of --method bond."""

    n: int = 4
    """N of the best-of-N that is distilled in a round."""
    anchors: int = 16
    """Draws of the anchor for each problem, at least N: rewards are compared with theirs."""
    backward: float = 0.5
    """Share of KL(policy || target); the rest is KL(target || policy)."""

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.anchors:
            raise InvalidValue("n", self.n, f"from 1 to the number of anchors, {self.anchors}", "raise anchors")
        if not 0.0 <= self.backward <= 1.0:
            raise InvalidValue("backward", self.backward, "a number from 0 to 1", "use 0.5")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """A problem as the anchor answered it."""

    group: Group
    rewards: tuple[float, ...]
    """Of its scored draws."""
    best: Trajectory
    """The best of the first N."""


def bond(settings: ExpertIteration, own: Bond, lesson: Lesson) -> None:
    """Train `lesson.learner` in place. Raises `InvalidValue` if the first round has no problem whose rewards differ.

    Best-of-N of equal rewards is the policy itself. A later round without such a problem is the end.
    """
    from dataclasses import replace

    from clew.recipes.cloning import drawn, searched
    from clew.recipes.learner import reference_copy

    if settings.samples < 2 and own.backward > 0.0:
        advice = "raise --settings.samples, or use --bond.backward 0"
        raise InvalidValue("samples", settings.samples, "at least 2: they are compared with one another", advice)
    rng = random.Random(derive_seed(lesson.seed, "bond"))
    updates = 0
    for number in range(settings.rounds):
        seed = derive_seed(lesson.seed, "bond", number)
        anchor = reference_copy(lesson.learner)
        wide = replace(settings, samples=own.anchors)
        told = [anchored(g, own.n) for g in searched(wide, drawn(settings, lesson, rng), lesson, seed=seed)]
        known = [one for one in told if one is not None]
        differ = any(len(set(one.rewards)) > 1 for one in known)
        if not differ and number:
            why = f"round {number + 1} has no problem whose rewards differ"
            print(f"{lesson.stage.name}: {why}, so learning ends here", file=sys.stderr)
            break
        if not differ:
            accepted = "at least one: best-of-N of equal rewards is the policy itself"
            advice = "raise --bond.anchors or --settings.problems"
            raise InvalidValue("problems whose rewards differ", 0, accepted, advice)
        updates += bond_round(settings, own, known, anchor, lesson, rng=rng, seed=seed, updates=updates)


def anchored(group: Group, n: int) -> Anchored | None:
    """The draws of one problem; None if none of the first `n` was scored."""
    from clew.learn.best_of_n import best_of

    scored = [t for t in group.trajectories if t.verdict.value is not None]
    first = [place for place, t in enumerate(scored) if t in group.trajectories[:n]]
    if not first:
        return None
    rewards = tuple(float(t.verdict.value or 0.0) for t in scored)
    return Anchored(group=group, rewards=rewards, best=scored[best_of(rewards, first)])


def bond_round(  # noqa: PLR0913  one round, by name
    settings: ExpertIteration,
    own: Bond,
    known: Sequence[Anchored],
    anchor: PreTrainedModel,
    lesson: Lesson,
    *,
    rng: random.Random,
    seed: int,
    updates: int,
) -> int:
    """Pass over the problems of a round; how many updates that took."""
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.cloning import searched, solution

    learner = lesson.learner
    optimizer = learner.optimizer(lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
    order = [one for _ in range(settings.epochs) for one in rng.sample(known, len(known))]
    steps = max(1, len(order) // settings.rows)
    for step in range(steps):
        chosen = order[step * settings.rows : (step + 1) * settings.rows]
        # A problem may come up twice in a batch that spans two passes; its samples would be the same.
        distinct = list({one.group.problem.id: one for one in chosen}.values())
        problems = [one.group.problem for one in distinct]
        groups = searched(settings, problems, lesson, seed=derive_seed(seed, "samples", step), keep=step == steps - 1)
        own_samples = backward_examples(groups, distinct, own.n, anchor, learner)
        best = [solution(learner, one.best) for one in distinct]
        rate = warmup_stable_decay(step, total=steps, decay=steps // 2)
        told = bond_step(learner, optimizer, best, own_samples, backward=own.backward, step=updates + step, rate=rate)
        learner.refresh()
        right = [t.verdict.value for g in groups for t in g.scored if t.verdict.value is not None]
        accuracy = sum(right) / len(right) if right else None
        tokens = sum(len(t.completion.tokens) for g in groups for t in g.trajectories)
        lesson.stage.record(updates + step, increment=1 / steps, tokens=tokens, lr=rate, accuracy=accuracy, **told)
    return steps


def backward_examples(
    groups: Sequence[Group], known: Sequence[Anchored], n: int, anchor: PreTrainedModel, learner: Learner
) -> list[Example]:
    """The policy's own samples; the advantage of each is how much its log-probability is below the target's.

    log pi_N(y) - log pi(y), minus the mean of the problem's other samples, which changes no expectation.
    """
    import torch

    from clew.learn.advantages import leave_one_out
    from clew.learn.best_of_n import estimated_log_weights
    from clew.recipes.cloning import solution
    from clew.reward.implicit import reference_logprobs

    found: list[Example] = []
    for group, one in zip(groups, known, strict=True):
        scored = [t for t in group.scored if t.verdict.value is not None and t.completion.logprobs is not None]
        if len(scored) < 2:
            continue
        plain = [solution(learner, t) for t in scored]
        anchors = torch.tensor([sum(row) for row in reference_logprobs(anchor, plain)])
        ours = torch.tensor([sum(t.completion.logprobs or ()) for t in scored])
        rewards = torch.tensor([float(t.verdict.value or 0.0) for t in scored])
        gap = estimated_log_weights(rewards, torch.tensor(one.rewards), n) + anchors - ours
        advantages = leave_one_out(gap)
        found += [solution(learner, t, a) for t, a in zip(scored, advantages.tolist(), strict=True)]
    return found


def bond_step(  # noqa: PLR0913  who learns what, by name
    learner: Learner,
    optimizer: Any,
    best: Sequence[Example],
    own_samples: Sequence[Example],
    *,
    backward: float,
    step: int,
    rate: float = 1.0,
) -> dict[str, float]:
    """One update of Jeffreys' divergence, both parts a mean over whole responses; what to log of it."""
    from dataclasses import replace

    from clew.learn.batch import pad
    from clew.learn.preference import summed

    # Both are log-probabilities of whole responses times a weight: cloning is an advantage of 1.
    weighted = [replace(e, advantage=(1 - backward) / len(best)) for e in best]
    weighted += [replace(e, advantage=backward * e.advantage / len(own_samples)) for e in own_samples]

    def loss_of(rows: list[int]) -> tuple[Tensor, float]:
        batch = pad([weighted[row] for row in rows])
        part = -(summed(learner.logprobs(batch), batch.target_mask) * batch.advantages).sum()
        return part, part.item()

    told = learner.update(optimizer, [e.length for e in weighted], loss_of, math.fsum, step=step, multiplier=rate)
    gaps = [e.advantage for e in own_samples]
    spread = (sum(gap * gap for gap in gaps) / len(gaps)) ** 0.5 if gaps else 0.0
    return {"loss": sum(told.noted), "grad_norm": told.grad_norm, "advantage_spread": spread}
