"""From a judged batch to lessons: what the advantage of the run needs is asked of models and engine, and put together.

P groups of G samples, S steps, T tokens of the longest response.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from clew.core.seeds import derive_seed
from clew.core.types import FinishReason, Group, Sampling, Trajectory
from clew.recipes.rl_credit import Batch, Lesson, advantages_of, padded, padded_stops, process_rewards
from clew.recipes.rl_learner import RLLearner, critic_values, logprobs_under
from clew.recipes.rl_rollouts import Rollouts, step_ends

if TYPE_CHECKING:
    from torch import Tensor

    from clew.learn.batch import Example

Stops = list[list[list[int]]]
ROUNDING = 1e-4
"""Nats of a token."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What there is to learn of a batch, over what it is averaged, and where the rest went."""

    lessons: list[Lesson]
    tokens: int
    """Of responses that were scored and not masked, those without an advantage too."""
    sequences: int
    """Their number."""
    account: dict[str, int]
    """Samples by what became of them; they add up to those of the batch."""
    tokens_account: dict[str, int] = field(default_factory=dict)
    """Their tokens; empty for trees."""
    rollout_tokens: int = 0
    """Sampled to value steps."""


class Moment(NamedTuple):
    """Which update, and what it goes by."""

    step: int
    seed: int
    multiplier: float
    checkpoint: Path | None


def lessons_of(learner: RLLearner, rollouts: Rollouts, rewards: Tensor, valid: Tensor, moment: Moment) -> Lessons:
    """Lessons of P groups whose `rewards` and `valid` are [P, G]."""
    from clew.recipes.examples import sampled

    groups = rollouts.groups
    examples = [
        sampled(learner.policy, trajectory, mode)
        for group, mode in zip(groups, rollouts.modes, strict=True)
        for trajectory in group.trajectories
    ]
    if not examples:
        return Lessons(lessons=[], tokens=0, sequences=0, account={})
    needs_reference = learner.method.kl != "none" or learner.implicit is not None
    precision = learner.own.precision
    reference = logprobs_under(learner.reference, examples, precision) if needs_reference else None
    batch, rollout_tokens = _batch(learner, rollouts, examples, reference, (rewards, valid), moment)
    critic = learner.settings.critic
    advantages, returns = advantages_of(learner.method, batch, gamma=critic.gamma, lam=critic.lam)
    lessons, account = [], dict.fromkeys(("unscored", "masked", "without_advantage", "learnt"), 0)
    tokens_account = dict(account)
    tokens = sequences = 0
    flat = [t for group in groups for t in group.trajectories]
    rows = zip(flat, examples, valid.flatten().tolist(), strict=True)
    for at, (trajectory, example, scored) in enumerate(rows):
        fate = "unscored" if not scored else "masked" if _masked(learner, trajectory) else None
        if fate is None:
            lesson = _lesson(batch, at, example, advantages, returns, reference)
            tokens, sequences = tokens + len(example.response_ids), sequences + 1
            if lesson.teaches or learner.method.learns_from_all or learner.settings.entropy_bonus:
                lessons.append(lesson)
            fate = "learnt" if lesson.teaches else "without_advantage"
        account[fate] += 1
        tokens_account[fate] += len(example.response_ids)
    return Lessons(
        lessons=lessons,
        tokens=tokens,
        sequences=sequences,
        account=account,
        tokens_account=tokens_account,
        rollout_tokens=rollout_tokens,
    )


def _beyond_rounding(away: Tensor) -> Tensor:
    """`away` where sampler and reference disagree by more than two computations of one number do: optimisers make
    full steps of whatever is left when all rewards are equal."""
    import torch

    return torch.where(away.abs() < ROUNDING, 0.0, away)


def _lesson(
    batch: Batch,
    at: int,
    example: Example,
    advantages: Tensor,
    returns: Tensor | None,
    reference: list[Tensor] | None,
) -> Lesson:
    own = slice(len(example.response_ids))
    return Lesson(
        example=example,
        group=at // batch.mask.shape[1],
        advantages=advantages.flatten(0, 1)[at, own],
        reference=None if reference is None else reference[at],
        values=None if batch.values is None else batch.values.flatten(0, 1)[at, own],
        returns=None if returns is None else returns.flatten(0, 1)[at, own],
    )


def _masked(learner: RLLearner, trajectory: Trajectory) -> bool:
    return learner.settings.truncated == "masked" and trajectory.completion.finish is FinishReason.LENGTH


def _batch(
    learner: RLLearner,
    rollouts: Rollouts,
    examples: Sequence[Example],
    reference: list[Tensor] | None,
    judged: tuple[Tensor, Tensor],
    moment: Moment,
) -> tuple[Batch, int]:
    """What the advantage is made of, and the tokens that were sampled for it."""
    import torch

    from clew.learn.kl import k1

    rewards, valid = judged
    groups, method, settings = rollouts.groups, learner.method, learner.settings
    shape = (*rewards.shape, max(len(example.response_ids) for example in examples))
    lengths = torch.tensor([len(example.response_ids) for example in examples]).view(rewards.shape)
    parts: dict[str, Any] = {}
    if method.kl == "k1-reward" and reference is not None:
        old = [torch.tensor(example.logprobs) for example in examples]
        away = [_beyond_rounding(k1(ours, theirs)) for ours, theirs in zip(old, reference, strict=True)]
        parts["penalty"] = learner.kl_coefficient * padded(away, shape)
    stops: Stops = []
    if learner.scorer is not None or method.advantage == "step-values":
        stops = stops_of(learner, groups)
        parts["stops"] = padded_stops(stops)
    if learner.scorer is not None:
        paid = process_rewards(learner.scorer, groups, stops, settings.step_credit)
        parts["process"] = padded([own for rows in paid for own in rows], parts["stops"].shape)
    tokens = 0
    if method.advantage == "step-values":
        parts["step_values"], tokens = step_values(learner, rollouts, stops, judged, moment)
    if method.advantage == "greedy":
        parts["greedy"] = torch.tensor(rollouts.greedy)
    if method.advantage == "gae":
        parts["values"] = padded(critic_values(learner, examples), shape)
    if learner.implicit is not None and reference is not None:
        parts["implicit"] = padded(_implicit(learner, groups, examples, reference, moment), shape)
    mask = torch.arange(shape[-1]) < lengths[..., None]
    credit = settings.step_credit
    how: dict[str, Any] = {"credit": credit.process_credit, "weight": credit.process_weight}
    return Batch(rewards=rewards, valid=valid, mask=mask, average=learner.average, **how, **parts), tokens


def stops_of(learner: RLLearner, groups: Sequence[Group]) -> Stops:
    """Ends of the steps of each response of each group."""
    from clew.reward.label_tree import split

    ends, decode = step_ends(learner.settings, learner.task), learner.policy.decode
    tokens = {token for group in groups for t in group.trajectories for token in t.completion.tokens}
    pieces = {token: decode((token,)) for token in tokens}
    return [
        [[s.stop for s in split(t.completion.tokens, pieces, ends)] for t in group.trajectories] for group in groups
    ]


def step_values(
    learner: RLLearner, rollouts: Rollouts, stops: Stops, judged: tuple[Tensor, Tensor], moment: Moment
) -> tuple[Tensor, int]:
    """[P, G, S + 1] values of VinePPO: of the start the mean reward of the other samples, of a step's end the share of
    right roll-outs, of the response's end its reward. NaN where nothing was scored. And the tokens sampled for it."""
    import torch

    from clew.learn.advantages import leave_one_out

    rewards, valid = judged
    others = torch.where(valid.sum(-1, keepdim=True) > 1, rewards - leave_one_out(rewards, valid), math.nan)
    known, tokens = _rolled_out(learner, rollouts, moment)
    rows = []
    for p, (group, own_stops) in enumerate(zip(rollouts.groups, stops, strict=True)):
        for g, (trajectory, ends) in enumerate(zip(group.trajectories, own_stops, strict=True)):
            key = rollouts.modes[p], group.problem.id
            between = [known.get((*key, trajectory.completion.tokens[:stop]), math.nan) for stop in ends[:-1]]
            rows.append([float(others[p, g]), *between, float(rewards[p, g])])
    most = max(len(row) for row in rows)
    return torch.tensor([[*row, *[row[-1]] * (most - len(row))] for row in rows]).view(*rewards.shape, most), tokens


def _rolled_out(
    learner: RLLearner, rollouts: Rollouts, moment: Moment
) -> tuple[dict[tuple[str, str, tuple[int, ...]], float], int]:
    """Share of right roll-outs after the tokens of every step, by mode and problem; and the tokens of the roll-outs."""
    from clew.learn.ranks import shared
    from clew.reward.label_tree import Solutions
    from clew.reward.monte_carlo import MonteCarlo
    from clew.reward.tree_labels import tree_values
    from clew.search import run_searches

    settings, found, tokens = learner.settings, {}, 0
    for mode in dict.fromkeys(rollouts.modes):
        groups = [group for group, own in zip(rollouts.groups, rollouts.modes, strict=True) if own == mode]
        given = {
            group.problem.id: tuple(
                t.state for other in groups if other.problem.id == group.problem.id for t in other.trajectories
            )
            for group in groups
        }
        problems = list({group.problem.id: group.problem for group in groups}.values())
        sampling = Sampling(max_tokens=settings.max_tokens, mode=mode)
        ends = step_ends(settings, learner.task)
        measure = MonteCarlo(
            k=settings.step_credit.rollouts, solutions=Solutions(given=given, sampling=sampling, step_ends=ends)
        )
        seed = derive_seed(moment.seed, "rl", moment.step, "values")
        search = partial(run_searches, measure, policy=learner.policy, task=learner.task, seed=seed)
        outcomes = shared("roll-outs", problems, search)
        for outcome in outcomes:
            tokens += outcome.cost.tokens_sampled
            tree = outcome.result.tree
            if tree is None:
                continue
            for state, value in zip(tree.states, tree_values(tree), strict=True):
                if value is not None:
                    found[mode, outcome.problem.id, state.tokens] = value
    return found, tokens


def _implicit(
    learner: RLLearner, groups: Sequence[Group], examples: Sequence[Example], reference: list[Tensor], moment: Moment
) -> list[Tensor]:
    """Implicit rewards of tokens, after an update of their model on how these responses ended (PRIME)."""
    from clew.reward.implicit import JudgedResponse, implicit_step

    assert learner.implicit is not None
    beta = learner.settings.implicit.beta
    flat = [t for group in groups for t in group.trajectories]
    judged = [
        JudgedResponse(
            prompt_ids=tuple(example.prompt_ids),
            response_ids=tuple(example.response_ids),
            reference=tuple(theirs.tolist()),
            outcome=trajectory.verdict.value,
        )
        for trajectory, example, theirs in zip(flat, examples, reference, strict=True)
        if trajectory.verdict.value is not None
    ]
    model, optimizer = learner.implicit.model, learner.implicit.optimizer
    if judged:
        implicit_step(
            model,
            optimizer,
            judged,
            beta=beta,
            step=moment.step,
            multiplier=moment.multiplier,
            checkpoint=moment.checkpoint,
        )
    ours = logprobs_under(model, examples)
    return [beta * (a - b) for a, b in zip(ours, reference, strict=True)]
