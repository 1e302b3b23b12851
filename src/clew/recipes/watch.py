"""What reinforcement learning is paid, and the watch over it: reward terms by name, looks at held-out problems.

Roadmap section 4.4: what is optimised and what is wanted part as the policy moves away from where it began.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clew.core.errors import InvalidValue
from clew.core.types import Group, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from clew.core.task import Task
    from clew.core.types import Problem
    from clew.models.trainable import Trainable
    from clew.reward.overoptimisation import Look
    from clew.reward.terms import Term

MODEL = "model"
"""The term that a learned reward gives: `model:PATH`, its checkpoint or run directory."""
PROBLEMS, SAMPLES = 64, 4
"""Held-out problems of a look, and samples of each; the same problems in every look."""


def make_terms(specs: Sequence[str]) -> tuple[Term, ...]:
    """The terms of a reward, such as `verifier`, `overlong:longest=240,margin=48` and `model:runs/prm`."""
    from clew.data.checkpoint_files import resolve_checkpoint
    from clew.reward.process import load_process_reward
    from clew.reward.terms import Scored, make_term

    terms: list[Term] = []
    for spec in specs:
        name, _, path = spec.partition(":")
        if name == MODEL:
            terms.append(Scored(scorer=load_process_reward(resolve_checkpoint(Path(path)))))
        else:
            terms.append(make_term(spec))
    if not terms:
        raise InvalidValue("reward", specs, "at least one term", "use verifier")
    return tuple(terms)


def watched_problems(task: Task, seed: int) -> list[Problem]:
    """Validation problems, of which no update learns."""
    from clew.core.seeds import derive_seed
    from clew.recipes.stage import count_problems

    there = count_problems(task, "validation")
    return task.problems("validation", min(PROBLEMS, there or PROBLEMS), derive_seed(seed, "watched"))


def take_look(  # noqa: PLR0913  whom to look at, on what, and how
    policy: Trainable,
    reference: PreTrainedModel,
    task: Task,
    problems: Sequence[Problem],
    terms: Sequence[Term],
    *,
    max_tokens: int,
    seed: int,
    step: int,
) -> Look:
    """Reward by `terms` and by the verifier alone of samples of `problems`, and the KL of `policy` from `reference`."""
    from clew.evaluate import sample_groups
    from clew.reward.overoptimisation import Look
    from clew.reward.terms import rewarded

    sampling = Sampling(max_tokens=max_tokens)
    judged = sample_groups(policy, task, problems, n=SAMPLES, sampling=sampling, seed=seed)
    groups = [rewarded(group, terms) for group in judged]
    return Look(
        step=step,
        kl=response_kl(policy, reference, groups, sampling.mode),
        proxy_P=tuple(_mean([t.reward.value for t in group.scored]) for group in groups),
        true_P=tuple(_mean([t.verdict.value or 0.0 for t in group.scored]) for group in groups),
    )


def response_kl(policy: Trainable, reference: PreTrainedModel, groups: Sequence[Group], mode: str) -> float:
    """KL divergence from `reference` of the policy that sampled `groups`, nats a response: k3 summed over tokens."""
    import torch

    from clew.learn.batch import micro_batches, pad
    from clew.learn.kl import k3
    from clew.models.any_backbone import target_logprobs
    from clew.recipes.examples import sampled

    examples = [sampled(policy, t, mode) for group in groups for t in group.trajectories]
    total = 0.0
    for rows in micro_batches([example.length for example in examples], 4096):
        batch = pad([examples[row] for row in rows])
        with torch.no_grad():
            then = target_logprobs(reference, batch.input_ids, batch.targets, batch.target_mask)
        total += k3(batch.old_logprobs, then)[batch.target_mask].sum().item()
    return total / len(examples)


def noted(looks: Sequence[Look], window: int = 3) -> dict[str, float]:
    """What to log of the last of `looks`; says so on standard error where proxy and truth have parted."""
    from clew.reward.overoptimisation import parting

    last, change = looks[-1], parting(looks, window)
    alarm = change is not None and change.alarm
    if change is not None and alarm:
        print(
            f"clew: over-optimisation at step {last.step}: over {window} looks the reward rose by "
            f"{change.proxy.mean:.3f} while the verifier's fell by {-change.true.mean:.3f}, both beyond their interval",
            file=sys.stderr,
        )
    return {"proxy": last.proxy, "truth": last.true, "kl_response": last.kl, "parted": float(alarm)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
