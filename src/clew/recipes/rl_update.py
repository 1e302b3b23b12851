"""The update of reinforcement learning: lessons in, a better policy out, and what was measured on the way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, final

from clew.recipes.rl_algorithms import Method
from clew.recipes.rl_credit import Lesson
from clew.recipes.rl_learner import RLLearner, Trained, logprobs_under, placed, values_at
from clew.recipes.rl_lessons import Lessons, Moment
from clew.recipes.rl_losses import Counts, averaged, correction, kl_loss, losses
from clew.recipes.rl_settings import PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor

    from clew.learn.batch import PaddedBatch
    from clew.learn.mismatch import Mismatch

TOKENS_PER_PASS = 2048


class Now(NamedTuple):
    """What the policy says of a batch [batch, time]."""

    logprobs: Tensor
    entropies: Tensor
    values: Tensor | None


class Noted(NamedTuple):
    """What is logged of one micro-batch: shares of the whole batch, so that they add up."""

    loss: float
    entropy: float
    clipped: float
    rows: list[int]
    logprobs: list[Tensor]


@final
@dataclass(frozen=True, slots=True)
class Measured:
    """What one update did, and how far the sampler's log-probs were from the trainer's before it."""

    metrics: dict[str, float]
    mismatch: Mismatch | None = None
    tokens: Sequence[Sequence[int]] = ()
    """Of the responses that the mismatch is of, those that carry loss."""


def update(learner: RLLearner, found: Lessons, moment: Moment) -> Measured:
    """All epochs and minibatches of one batch. Nothing is updated when there is nothing to learn from.

    Raises `TrainingDiverged` before an update that is not finite.
    """
    method, lessons = learner.method, found.lessons
    if not lessons:
        return Measured({})
    old, weights = old_and_weights(learner, lessons)
    parts = _minibatches(len(lessons), method, random.Random(moment.seed * 1_000_003 + moment.step))
    told: list[dict[str, float]] = []
    apart: Mismatch | None = None
    seen: list[list[int]] = []
    for part in parts:
        share = len(parts) // method.epochs
        pieces = [lessons[row] for row in part]
        counts = _counts(method, found, pieces, share)
        weighed = None if weights is None else [weights[row] for row in part]
        metrics, noted = _one_update(learner, pieces, [old[row] for row in part], weighed, counts, moment)
        told.append(metrics)
        if len(told) == 1:
            apart, seen = _mismatch(pieces, noted), [_learnt_tokens(lesson) for lesson in pieces]
    means = {name: sum(one[name] for one in told) / len(told) for name in told[0]} if len(told) > 1 else told[0]
    return Measured(means, apart, seen)


def _counts(method: Method, found: Lessons, pieces: Sequence[Lesson], share: int) -> Counts:
    """Denominators of a minibatch, one of `share` of a pass."""
    own = sum(lesson.example.num_learnt for lesson in pieces)
    if method.counted == "teaching":
        return Counts(own, len(pieces), own)
    return Counts(max(1, round(found.tokens / share)), max(1, round(found.sequences / share)), own)


def _minibatches(count: int, method: Method, rng: random.Random) -> list[list[int]]:
    """Rows of every minibatch of every epoch; in their order where one minibatch holds all."""
    parts = []
    most = min(method.minibatches, count)
    for _ in range(method.epochs):
        rows = list(range(count))
        if most > 1:
            rng.shuffle(rows)
        bounds = [count * at // most for at in range(most + 1)]
        parts += [rows[a:b] for a, b in pairwise(bounds)]
    return parts


def _one_update(
    learner: RLLearner,
    lessons: Sequence[Lesson],
    old: Sequence[Tensor],
    weights: Sequence[Tensor] | None,
    counts: Counts,
    moment: Moment,
) -> tuple[dict[str, float], list[Noted]]:
    noted = gradient(learner, lessons, old, weights, counts)
    loss, entropy, clipped = (sum(values) for values in list(zip(*noted, strict=True))[:3])
    grad_norm = _step(learner, learner.trained, loss, moment)
    learner.own.count_update()
    metrics = {"loss": loss, "grad_norm": grad_norm, "entropy": entropy, "clipped": clipped}
    if learner.critic is not None:
        metrics |= _critic_update(learner, learner.critic, lessons, counts, moment)
    return metrics, noted


def _step(learner: RLLearner, trained: Trained, loss: float, moment: Moment) -> float:
    """Clip and check the gradient that is there, and step; the norm it had."""
    from clew.learn.guard import guarded_step

    return guarded_step(
        trained.model,
        trained.optimizer,
        loss=loss,
        step=moment.step,
        multiplier=moment.multiplier,
        checkpoint=moment.checkpoint,
        max_grad_norm=learner.settings.max_grad_norm,
    )


def gradient(
    learner: RLLearner,
    lessons: Sequence[Lesson],
    old: Sequence[Tensor],
    weights: Sequence[Tensor] | None,
    counts: Counts,
) -> list[Noted]:
    """Put the gradient of the loss of `lessons` into the parameters' `grad`; what was noted of each micro-batch."""
    import torch

    from clew.learn.batch import pad

    settings, method = learner.settings, learner.method

    def loss_of_rows(rows: list[int]) -> tuple[Tensor, Noted]:
        batch = pad([lessons[row].example for row in rows])

        def placed_rows(tensors: Sequence[Tensor | None]) -> Tensor:
            return placed(batch, torch.cat([tensor for row in rows if (tensor := tensors[row]) is not None]))

        now = read(learner, batch)
        before = placed_rows(old)
        advantages = placed_rows([lesson.advantages for lesson in lessons])
        loss = losses(method, now.logprobs, before, advantages, batch.target_mask)
        if weights is not None:
            loss = loss * placed_rows(weights)
        if method.kl in ("k2-loss", "k3-loss"):
            reference = placed_rows([lesson.reference for lesson in lessons])
            loss = loss + learner.kl_coefficient * kl_loss(method, now.logprobs, reference)
        if settings.entropy_bonus:
            from clew.learn.entropy import entropy_bonus

            loss = loss + entropy_bonus(now.entropies, coefficient=settings.entropy_bonus)
        part = averaged(method, settings, loss, batch.target_mask, counts)
        if now.values is not None:
            told = [placed_rows([getattr(one, name) for one in lessons]) for name in ("values", "returns")]
            part = part + settings.critic.weight * _value_part(settings, now.values, told, batch, counts)
        with torch.no_grad():
            clipped = _clipped(method, now.logprobs, before, batch.target_mask)
            pieces = now.logprobs[batch.target_mask].split(batch.target_mask.sum(dim=1).tolist())
        entropy = now.entropies.sum().item() / counts.own_tokens
        return part, Noted(part.item(), entropy, clipped / counts.own_tokens, rows, [p.detach() for p in pieces])

    lengths = [lesson.example.length for lesson in lessons]
    return learner.own.gradient(lengths, loss_of_rows)


def read(learner: RLLearner, batch: PaddedBatch) -> Now:
    """One pass of the policy; with a head of its own for values where there is one on its body."""
    from clew.models.any_backbone import body_states, logprobs_of_states, plain_qwen3
    from clew.models.forward import token_logprobs

    model: Any = learner.own.model
    head = learner.shared_head
    with learner.own.precision():
        if head is None and not learner.settings.entropy_bonus and plain_qwen3(model):
            logprobs, entropies = token_logprobs(model, batch.input_ids, batch.targets, batch.target_mask)
            return Now(logprobs, entropies, None)
        states = body_states(model, batch.input_ids, batch.target_mask)
        said = logprobs_of_states(model, states, batch.targets[batch.target_mask])
        values = None if head is None else placed(batch, head(states)[:, 0].float())
        return Now(placed(batch, said.logprobs), placed(batch, said.entropies), values)


def _clipped(method: Method, logprobs: Tensor, old: Tensor, mask: Tensor) -> float:
    """Tokens whose own ratio is beyond the clip range."""
    ratio = (logprobs - old)[mask].exp()
    return float(((ratio < 1 - method.clip_low) | (ratio > 1 + method.clip_high)).sum())


def _value_part(
    settings: PolicyGradient, values: Tensor, told: Sequence[Tensor], batch: PaddedBatch, counts: Counts
) -> Tensor:
    from clew.learn.aggregate import token_mean
    from clew.learn.losses import clipped_value_loss

    loss = clipped_value_loss(values, *told, clip=settings.critic.clip)
    return token_mean(loss, batch.target_mask, tokens=counts.own_tokens)


def _critic_update(
    learner: RLLearner, critic: Trained, lessons: Sequence[Lesson], counts: Counts, moment: Moment
) -> dict[str, float]:
    """One step of a critic of its own."""
    import torch

    from clew.learn.batch import pad
    from clew.learn.gradients import sum_gradients
    from clew.models.tuning import recomputing

    def loss_of_rows(rows: list[int]) -> tuple[Tensor, float]:
        batch = pad([lessons[row].example for row in rows])
        told = [
            placed(batch, torch.cat([getattr(lessons[row], name) for row in rows])) for name in ("values", "returns")
        ]
        part = _value_part(learner.settings, placed(batch, values_at(learner, batch)), told, batch, counts)
        return part, part.item()

    lengths = [lesson.example.length for lesson in lessons]
    with recomputing(critic.model, learner.own.tuning):
        loss = sum(sum_gradients(critic.model, lengths, loss_of_rows, tokens_per_pass=TOKENS_PER_PASS))
    _step(learner, critic, loss, moment)
    return {"value_loss": loss}


def old_and_weights(learner: RLLearner, lessons: Sequence[Lesson]) -> tuple[list[Tensor], list[Tensor] | None]:
    """Log-probs that ratios are taken to, and what corrects for the sampler; of each lesson's tokens that carry loss.

    Without a correction the ratio is to the sampler's own log-probs; with one, to the trainer's before the update, and
    the weight stands for the rest (decoupled PPO).
    """
    import torch

    sampled = [learnt_logprobs(lesson) for lesson in lessons]
    if learner.method.correction == "none":
        return sampled, None
    examples = [lesson.example for lesson in lessons]
    trainer = logprobs_under(learner.own.model, examples, learner.own.precision)
    weights = [
        correction(learner.method, learner.settings, ours[None], theirs[None], lesson.advantages[None])[0]
        for ours, theirs, lesson in zip(trainer, sampled, lessons, strict=True)
    ]
    return trainer, [torch.as_tensor(weight) for weight in weights]


def learnt_logprobs(lesson: Lesson) -> Tensor:
    import torch

    example = lesson.example
    assert example.logprobs is not None
    logprobs = torch.tensor(example.logprobs)
    return logprobs if example.learnt is None else logprobs[torch.tensor(example.learnt)]


def _learnt_tokens(lesson: Lesson) -> list[int]:
    example = lesson.example
    flags = [True] * len(example.response_ids) if example.learnt is None else example.learnt
    return [token for token, flag in zip(example.response_ids, flags, strict=True) if flag]


def _mismatch(lessons: Sequence[Lesson], noted: Sequence[Noted]) -> Mismatch | None:
    """Of the first update's samples: what the trainer said of them before anything changed."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from clew.learn.mismatch import mismatch
    from clew.models.side_by_side import on_one_thread

    ours = {row: logprobs for one in noted for row, logprobs in zip(one.rows, one.logprobs, strict=True)}
    order = range(len(lessons))
    sampled = [learnt_logprobs(lesson) for lesson in lessons]
    mask = pad_sequence([torch.ones(len(one), dtype=torch.bool) for one in sampled], batch_first=True)
    trainer = pad_sequence([ours[row] for row in order], batch_first=True)
    padded = trainer, pad_sequence(sampled, batch_first=True), mask
    return on_one_thread(lambda tensors: mismatch(*tensors), padded)
