"""The gradient noise scale of a batch, from the gradients of its two halves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clew.recipes.rl_learner import RLLearner
from clew.recipes.rl_lessons import Lessons, Moment

if TYPE_CHECKING:
    from torch import Tensor


def noise_metrics(learner: RLLearner, found: Lessons, moment: Moment) -> dict[str, float]:
    """`noise_scale` in problems, with the two estimates it is the quotient of; empty when it is not this step's turn.

    Halves are of whole groups, because the samples of a group are not independent. The estimates of one step are noisy:
    average `noise_variance` and `noise_squared_gradient` over steps before dividing.
    """
    import torch

    from clew.learn.noise_scale import gradient_noise_scale

    every = learner.settings.noise_scale
    groups = sorted({lesson.group for lesson in found.lessons})
    if every is None or moment.step % every or len(groups) < 2:
        return {}
    half = set(groups[: len(groups) // 2])
    halves = [
        [place for place, lesson in enumerate(found.lessons) if (lesson.group in half) == first]
        for first in (True, False)
    ]
    gradients = [_gradient(learner, found, rows) for rows in halves]
    sizes = [len(half), len(groups) - len(half)]
    whole = torch.stack([size * g for size, g in zip(sizes, gradients, strict=True)]).sum(0) / len(groups)
    small = sum(g.square().sum().item() for g in gradients) / 2
    # 1 / batch size is what the variance of a half's gradient goes with.
    size = 2.0 / sum(1.0 / size for size in sizes)
    scale = gradient_noise_scale(small, whole.square().sum().item(), small_batch=size, large_batch=len(groups))
    return {
        "noise_squared_gradient": scale.squared_gradient,
        "noise_variance": scale.variance,
        **({"noise_scale": scale.batch_size} if scale.squared_gradient > 0 else {}),
    }


def _gradient(learner: RLLearner, found: Lessons, rows: list[int]) -> Tensor:
    """The gradient of the loss of some lessons, averaged over these alone, as one vector."""
    import torch

    from clew.recipes.rl_losses import Counts
    from clew.recipes.rl_update import gradient, old_and_weights

    lessons = [found.lessons[row] for row in rows]
    old, weights = old_and_weights(learner, lessons)
    tokens = sum(lesson.example.num_learnt for lesson in lessons)
    gradient(learner, lessons, old, weights, Counts(tokens, len(lessons), tokens))
    parameters = [p for p in learner.trained.model.parameters() if p.grad is not None]
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    learner.trained.optimizer.zero_grad()
    return flat
