"""Passes over preferences: one update, the passes of a round, and how far the policy has moved."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from clew.core.seeds import derive_seed
from clew.core.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from clew.core.types import Problem
    from clew.learn.guard import Limits
    from clew.learn.preferring import Noted, Objective, PairExample
    from clew.recipes.learner import Learner, Updated
    from clew.recipes.preference_settings import Preference
    from clew.recipes.preference_ways import Way
    from clew.recipes.stage import Stage

MEASURED = 64
"""Samples that the KL from the start is measured on."""


def learn(  # noqa: PLR0913  what is learnt from, the rest by name
    settings: Preference,
    way: Way,
    examples: Sequence[Any],
    learner: Learner,
    rng: random.Random,
    *,
    stage: Stage,
    updates: int,
    kl: float | None = None,
) -> int:
    """Pass over `examples` and log; how many updates that took after `updates`."""
    from clew.learn.schedule import warmup_stable_decay

    optimizer = learner.optimizer(lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
    order = [one for _ in range(settings.epochs) for one in rng.sample(examples, len(examples))]
    steps = max(1, len(order) // settings.rows)
    for step in range(steps):
        chosen = order[step * settings.rows : (step + 1) * settings.rows]
        rate = warmup_stable_decay(step, total=steps, warmup=min(5, steps // 2), decay=steps // 2)
        how = {"step": updates + step, "multiplier": rate, "checkpoint": stage.last_checkpoint}
        noted = way.step(learner, optimizer, chosen, **how)
        stage.record(
            updates + step,
            increment=1 / steps,
            tokens=sum(one.num_learnt for one in chosen),
            lr=rate,
            kl=kl if step == 0 else None,
            **{way.rows: len(examples)},
            **noted,
        )
    return steps


def preference_step(
    learner: Learner,
    optimizer: Any,
    pairs: Sequence[PairExample],
    *,
    objective: Objective,
    **limits: Unpack[Limits],
) -> dict[str, float | None]:
    """One update; what to log of it."""
    from clew.learn.preferring import chances, loss_and_notes

    def loss_of(rows: list[int]) -> tuple[Tensor, Noted]:
        told = chances(learner.logprobs, [pairs[row] for row in rows])
        return loss_and_notes(objective, told, len(pairs))

    update = learner.update(
        optimizer,
        [pair.length for pair in pairs],
        loss_of,
        lambda noted: sum(one.loss for one in noted),
        **limits,
    )
    return described(update, good=len(pairs), bad=len(pairs), rows=len(pairs))


def described(update: Updated, *, good: int, bad: int, rows: int) -> dict[str, float | None]:
    """What to log of an update on `rows`, of which so many responses were desirable and so many were not.

    Its micro-batches noted sums: of losses, of rewards of either kind, of what was told right, of log-probs per token.
    """
    loss, better, worse, right, logprob = (sum(values) for values in zip(*update.noted, strict=True))
    chosen, rejected = (better / good if good else None), (worse / bad if bad else None)
    return {
        "loss": loss,
        "grad_norm": update.grad_norm,
        "reward_chosen": chosen,
        "reward_rejected": rejected,
        "reward_margin": None if chosen is None or rejected is None else chosen - rejected,
        "accuracy": right / rows,
        "chosen_logprob": logprob / good if good else None,
    }


def kl_from(
    start: PreTrainedModel, learner: Learner, problems: Sequence[Problem], settings: Preference, seed: int
) -> float | None:
    """KL of the policy from `start`, nats a token: the k3 estimate over samples of some of `problems`."""
    import torch

    from clew.core.protocols import Prompt
    from clew.core.types import State
    from clew.learn.batch import Example
    from clew.learn.kl import k3
    from clew.reward.implicit import reference_logprobs

    if not problems:
        return None
    drawn = random.Random(seed).sample(list(problems), min(MEASURED, len(problems)))
    prompts = [Prompt(State(problem), derive_seed(seed, at)) for at, problem in enumerate(drawn)]
    told = learner.policy.sample(prompts, Sampling(max_tokens=settings.max_tokens, mode=settings.mode))
    examples = [
        Example(prompt_ids=learner.prompt_ids(problem), response_ids=one.tokens)
        for problem, one in zip(drawn, told, strict=True)
    ]
    now = torch.tensor([p for one in told for p in one.logprobs or ()])
    then = torch.tensor([p for row in reference_logprobs(start, examples) for p in row])
    return k3(now, then).mean().item()
