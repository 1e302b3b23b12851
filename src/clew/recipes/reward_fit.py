"""Train a reward of any kind until its loss on held-out problems falls no more."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from clew.core.errors import InvalidValue

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from clew.learn.guard import Limits
    from clew.recipes.stage import Stage
    from clew.reward.fit import Update
    from clew.reward.load import RewardCard


class Fitting(Protocol):
    """Settings of passes over examples that end early."""

    @property
    def rows(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def evaluate_every(self) -> int: ...
    @property
    def patience(self) -> int: ...
    @property
    def lr_matrix(self) -> float: ...
    @property
    def lr_other(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What a kind of reward learns from, and how."""

    model: PreTrainedModel
    card: RewardCard
    examples: Sequence[Any]
    update: Callable[..., Update]
    """One step of an optimiser on some examples, both given by place, within `clew.learn.guard.Limits`, by name."""
    held_out_loss: Callable[[], float]
    reference: PreTrainedModel | None = None
    """implicit: the model that log-ratios are taken to."""


def fit(learner: Learner, settings: Fitting, *, rng: random.Random, stage: Stage) -> dict[str, float]:
    """Train `learner.model` on its examples in an order of `rng`, and leave the weights of the lowest held-out loss.

    Raises `InvalidValue` if there is nothing to learn from.
    """
    from clew.learn.guard import check_finite
    from clew.learn.optim import make_optimizer
    from clew.learn.schedule import warmup_stable_decay

    if not learner.examples:
        accepted = "right and wrong solutions to learn from"
        raise InvalidValue("number of examples", 0, accepted, "raise --settings.problems, or choose another task")
    model = learner.model
    best, best_loss, waited = copy.deepcopy(model.state_dict()), learner.held_out_loss(), 0
    first_loss = best_loss
    optimizer = make_optimizer(model, lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
    order = [e for _ in range(settings.epochs) for e in rng.sample(learner.examples, len(learner.examples))]
    steps = max(1, len(order) // settings.rows)
    for step in range(steps):
        batch = order[step * settings.rows : (step + 1) * settings.rows]
        rate = warmup_stable_decay(step, total=steps, warmup=min(10, steps // 2), decay=steps // 2)
        how: Limits = {"step": step, "multiplier": rate, "checkpoint": stage.last_checkpoint}
        update = learner.update(optimizer, batch, **how)
        loss = None
        if (step + 1) % settings.evaluate_every == 0 or step + 1 == steps:
            loss = learner.held_out_loss()
            check_finite(loss=loss, grad_norm=update.grad_norm, step=step, checkpoint=stage.last_checkpoint)
            waited = 0 if loss < best_loss else waited + 1
            if loss < best_loss:
                best, best_loss = copy.deepcopy(model.state_dict()), loss
        stage.record(
            step,
            increment=1 / steps,
            tokens=update.tokens,
            loss=update.loss,
            grad_norm=update.grad_norm,
            lr=rate,
            validation_loss=loss,
        )
        if waited >= settings.patience:
            break
    model.load_state_dict(best)
    if best_loss == first_loss:
        said = "no update lowered the loss on held-out solutions, so the weights are those it began with"
        print(f"{stage.name}: {said}", file=sys.stderr)
    return {"loss_before": first_loss, "loss": best_loss, "updates": step + 1}
