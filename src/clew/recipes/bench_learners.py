"""Table 3 of the paper measured: cloning, REINFORCE, GRPO, PPO and DPO on the same D_search, at equal updates.

D_search is one set of samples of the starting policy. Every learner takes the same batches of problems, as many
updates, each from a copy of the same weights. Told are pass@1 and pass@k on held-out problems, the variance of the
gradient between batches at the starting policy relative to the square of its mean, the memory that training took beyond
what there was, and seconds an update, of the clock and of all cores.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

from clew.core.seeds import derive_seed
from clew.core.types import Group, Sampling
from clew.recipes.bench_loop import MEASURED, TASK, copied, held_out_rates
from clew.recipes.bench_seeds import SEEDS, PeakMemory, told
from clew.recipes.loop_learners import Learning
from clew.recipes.loop_settings import LoopConfig
from clew.recipes.rl_settings import Algorithm, CriticSettings, PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor

    from clew.learn.guard import Limits
    from clew.models.policy import LocalPolicy
    from clew.tasks import AnyTask

PROBLEMS, SAMPLES, BATCH, EPOCHS = 512, 8, 32, 2
"""Of D_search, of each problem, an update, and passes over it."""
GRADIENTS = 16
"""Batches whose gradients are compared."""
NO_CLIP = 1e9
METHODS = ("cloning", "reinforce", "grpo", "ppo", "dpo")

Step = Callable[[Sequence[Group], int], None]
"""One update on groups of judged samples, with its number."""


@final
@dataclass(frozen=True, slots=True)
class Made:
    """A learner ready to step, and how to have its gradient go elsewhere than into the weights."""

    step: Step
    redirect: Callable[[Any], None]
    """Put another optimiser in the place of the policy's."""


def measure_learners(*, checkpoint: Path, seed: int, problems: int = PROBLEMS, epochs: int = EPOCHS) -> dict[str, Any]:
    """Of each method the means over seeds with their intervals, and the rows a seed."""
    from clew.recipes.stage import load_policy
    from clew.tasks import make_task

    task, start = make_task(TASK), load_policy(checkpoint)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in METHODS}
    starts = []
    for at in range(SEEDS):
        groups = d_search(start, task, seed + at, problems)
        config = LoopConfig(checkpoint=checkpoint, out=Path(), task=TASK, seed=seed + at, measure_problems=MEASURED)
        starts.append(held_out_rates(config, start, task)["pass_at_1"]["mean"])
        for name in METHODS:
            rows[name].append(one_method(name, start, task, groups, config, epochs))
            said = {key: round(v, 4) for key, v in rows[name][-1].items() if isinstance(v, float)}
            print(f"seed {seed + at}, {name}: {said}", file=sys.stderr)
    return {
        "task": TASK,
        "updates": max(1, epochs * problems // BATCH),
        "start": told([{"pass_at_1": value} for value in starts])["pass_at_1"],
        **{name: told(found) for name, found in rows.items()},
        "seeds": rows,
        "note": "gradient_variance: summed variance between batches / squared norm of the mean, at the starting policy",
    }


def d_search(policy: LocalPolicy, task: AnyTask, seed: int, problems: int) -> list[Group]:
    """Judged samples of training problems, the same for every learner."""
    from clew.evaluate import sample_groups

    drawn = task.problems("train", problems, derive_seed(seed, "learners"))
    sampling = Sampling(max_tokens=LoopConfig(checkpoint=Path(), out=Path()).max_tokens)
    return sample_groups(policy, task, drawn, n=SAMPLES, sampling=sampling, seed=derive_seed(seed, "d_search"))


def one_method(
    name: str, start: LocalPolicy, task: AnyTask, groups: Sequence[Group], config: LoopConfig, epochs: int
) -> dict[str, Any]:
    """Train a copy of `start`, then compare gradients at a second copy with what was learnt beside the policy."""
    policy = copied(start)
    batches = batches_of(groups, epochs, config.seed)
    with PeakMemory() as memory:
        made = make(name, policy, task, config.seed)
        began, cpu = time.perf_counter(), time.process_time()
        for step, batch in enumerate(batches):
            made.step(batch, step)
        seconds = (time.perf_counter() - began) / len(batches)
        cpu_seconds = (time.process_time() - cpu) / len(batches)
    policy.refresh()
    rates = held_out_rates(config, policy, task)
    # The critic, if there is one, keeps what it learnt: a new one would add its own errors to the variance.
    policy.model.load_state_dict(start.model.state_dict())
    variance, norm = gradient_variance(made, policy, batches_of(groups, 1, config.seed + 1)[:GRADIENTS])
    return {
        "pass_at_1": rates["pass_at_1"]["mean"],
        "pass_at_k": list(rates["pass_at_k"].values())[-1]["mean"],
        "length": float(rates["mean_length"]),
        "gradient_variance": variance,
        "gradient_norm": norm,
        "memory_mib": memory.mib,
        "update_s": seconds,
        "update_cpu_s": cpu_seconds,
        "rate": rates["pass_at_1"],
    }


def batches_of(groups: Sequence[Group], epochs: int, seed: int) -> list[list[Group]]:
    """`epochs` passes over the problems in random order, `BATCH` of them an update."""
    rng = random.Random(derive_seed(seed, "batches"))
    order = [group for _ in range(epochs) for group in rng.sample(list(groups), len(groups))]
    return [order[at : at + BATCH] for at in range(0, max(1, len(order) - BATCH + 1), BATCH)]


def make(name: str, policy: LocalPolicy, task: AnyTask, seed: int) -> Made:
    """The learner of that name at its start."""
    match name:
        case "cloning":
            return make_cloning(policy)
        case "dpo":
            return make_dpo(policy, seed)
        case "reinforce" | "grpo" | "ppo":
            return make_gradient(name, policy, task, seed)
        case _:
            raise AssertionError(name)


def make_cloning(policy: LocalPolicy) -> Made:
    """The shortest right sample of every problem of the batch that has one."""
    from clew.recipes.cloning import clone_step, right_solutions
    from clew.recipes.examples import sampled
    from clew.recipes.learner import Learner

    own = Learner(policy)
    held: dict[str, Any] = {"optimizer": own.optimizer(**Learning().rates("distill"))}

    def step(batch: Sequence[Group], number: int) -> None:
        expert = [sampled(policy, found, "think") for found in right_solutions(batch, cap=1)]
        if expert:
            clone_step(own, held["optimizer"], expert, step=number, max_grad_norm=_limit(held))

    return Made(step, lambda optimizer: held.update(optimizer=optimizer, redirected=True))


def make_dpo(policy: LocalPolicy, seed: int) -> Made:
    """One pair of a right and a wrong sample of every problem that has both; plain DPO, without cloning."""
    from clew.data.pairs import pairs_of_groups
    from clew.recipes.learner import Learner, reference_copy
    from clew.recipes.preference_data import examples_of
    from clew.recipes.preference_learning import preference_step
    from clew.recipes.preference_settings import Preference, objective_of

    own = Learner(policy)
    reference, objective = reference_copy(own), objective_of(Preference())
    assert objective is not None
    held: dict[str, Any] = {"optimizer": own.optimizer(**Learning().rates("dpo"))}

    def step(batch: Sequence[Group], number: int) -> None:
        pairs = examples_of(pairs_of_groups(batch, cap=1, seed=seed), own, reference, by_visits=0.0)
        if pairs:
            how: Limits = {"step": number, "multiplier": 1.0, "max_grad_norm": _limit(held)}
            preference_step(own, held["optimizer"], pairs, objective=objective, **how)

    return Made(step, lambda optimizer: held.update(optimizer=optimizer, redirected=True))


def make_gradient(name: str, policy: LocalPolicy, task: AnyTask, seed: int) -> Made:
    """A method of `clew rl` with one pass over each batch; PPO with a value model of its own."""
    from clew.learn.baselines import moving_average
    from clew.recipes.rl_algorithms import method_of
    from clew.recipes.rl_learner import Trained, make_learner
    from clew.recipes.rl_lessons import Moment, lessons_of
    from clew.recipes.rl_rollouts import Rollouts, rewards_of
    from clew.recipes.rl_update import update

    own = CriticSettings(body="own")
    settings = PolicyGradient(
        algorithm=cast("Algorithm", name), epochs=1, minibatches=1, critic=own, **Learning().rates("rl")
    )
    learner = make_learner(settings, method_of(settings), policy, task)

    def step(batch: Sequence[Group], number: int) -> None:
        rewards, valid = rewards_of(batch)
        rollouts = Rollouts(groups=list(batch), modes=["think"] * len(batch))
        moment = Moment(number, seed, 1.0, None)
        update(learner, lessons_of(learner, rollouts, rewards, valid, moment), moment)
        learner.average = moving_average(learner.average, rewards, valid)

    def redirect(optimizer: Any) -> None:
        learner.trained = Trained(learner.trained.model, optimizer)
        learner.settings = replace(settings, max_grad_norm=NO_CLIP)

    return Made(step, redirect)


def _limit(held: dict[str, Any]) -> float:
    return NO_CLIP if held.get("redirected") else 1.0


def gradient_variance(made: Made, policy: LocalPolicy, batches: Sequence[Sequence[Group]]) -> tuple[float, float]:
    """Variance of the gradient between batches, summed over weights, by the squared norm of their mean; that norm."""
    import torch

    seen = Captured(policy)
    made.redirect(seen)
    for number, batch in enumerate(batches):
        made.step(batch, number)
    return relative_variance(torch.stack(seen.gradients))


def relative_variance(gradients: Tensor) -> tuple[float, float]:
    """From gradients [batches, weights]: tr(Sigma) / |G|^2 and |G|, where |G|^2 is unbiased: the mean's own square
    less its share of the variance (arXiv 1812.06162, appendix A.1). Infinite where no signal was measured."""
    count = len(gradients)
    mean = gradients.mean(0)
    variance = float((gradients - mean).square().sum() / max(1, count - 1))
    squared = float(mean.square().sum()) - variance / count
    return (variance / squared, squared**0.5) if squared > 0 else (float("inf"), 0.0)


@final
class Captured:
    """Stands where the optimiser is: keeps every gradient and changes no weight."""

    def __init__(self, policy: LocalPolicy) -> None:
        self.policy, self.gradients = policy, cast("list[Tensor]", [])

    def step(self, *, multiplier: float = 1.0) -> None:
        """Keep the gradient that is there."""
        import torch

        grads = [p.grad.flatten() for p in self.policy.model.parameters() if p.grad is not None]
        self.gradients.append(torch.cat(grads))

    def zero_grad(self) -> None:
        """Forget it."""
        for parameter in self.policy.model.parameters():
            parameter.grad = None
