"""`clew loop` against plain policy gradient from the same checkpoint at equal total compute, over three seeds.

Compute is tokens that pass forward through the policy: sampled and read once, learnt from three times (`clew loop`).
Measuring is in nobody's compute. Policy gradient is `clew rl` as it is: its steps are set from what two of them, on
a copy, took.
"""

from __future__ import annotations

import copy
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from clew.core.seeds import derive_seed
from clew.recipes.bench_seeds import SEEDS, over_seeds, told
from clew.recipes.loop import loop
from clew.recipes.loop_learners import UPDATE_PASSES, LearnerName
from clew.recipes.loop_settings import LoopConfig, expected_seconds
from clew.recipes.rl_settings import PolicyGradient

if TYPE_CHECKING:
    from clew.core.types import Group, Problem
    from clew.models.policy import LocalPolicy
    from clew.recipes.stage import Stage
    from clew.tasks import AnyTask

TASK = "countdown:count=5"
ROUNDS = 3
MEASURED = 1000
"""Held-out problems that pass@1 is measured on, 4 samples each: a standard error of about one point."""
PILOT_STEPS = 2


def measure_loop(
    *, checkpoint: Path, seed: int, learner: LearnerName = "distill", changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A row a seed, their means with intervals, and the paired difference; `changes` are of `LoopConfig`."""
    rows = []
    for at in range(SEEDS):
        started = time.perf_counter()
        rows.append(one_seed(checkpoint, seed + at, learner, changes or {}))
        said = {name: round(value, 3) for name, value in rows[-1].items() if isinstance(value, float)}
        print(f"seed {seed + at}, {time.perf_counter() - started:.0f} s: {said}", file=sys.stderr)
    per_round = [over_seeds([row["rounds"][at] for row in rows]) for at in range(len(rows[0]["rounds"]))]
    difference = over_seeds([row["loop"] - row["policy_gradient"] for row in rows])
    return {
        "task": TASK,
        "learner": learner,
        **told(rows),
        "pass_at_1_by_round": per_round,
        "rises_every_round": [
            all(b > a for a, b in zip(row["rounds"], row["rounds"][1:], strict=False)) for row in rows
        ],
        "loop_minus_policy_gradient": difference,
        "loop_is_better": difference["low"] > 0.0,
        "seeds": rows,
        "note": "pass@1 on the same held-out problems; intervals over seeds (t); the difference is paired by seed",
    }


def one_seed(checkpoint: Path, seed: int, learner: LearnerName, changes: dict[str, Any]) -> dict[str, Any]:
    """The loop, then policy gradient with as much compute."""
    from clew.recipes.progress import Progress
    from clew.recipes.stage import load_policy, training_problems
    from clew.tasks import make_task

    with tempfile.TemporaryDirectory() as room:
        config = LoopConfig(
            checkpoint=checkpoint, out=Path(room) / "loop", task=TASK, rounds=ROUNDS, learner=learner, seed=seed
        )
        config = replace(config, measure_problems=MEASURED)
        config = replace(config, **changes)
        began = time.perf_counter()
        summary = loop(config, Progress(expected_seconds(config), stream=io.StringIO()))
        loop_seconds = sum(row["search"]["seconds"] + row["learning"]["seconds"] for row in summary["rounds"])
        print(f"seed {seed}: the loop is done, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    task = make_task(config.task)
    problems = training_problems(task, seed, most=4000)
    budget = summary["rounds"][-1]["compute"]
    settings = PolicyGradient(max_tokens=config.max_tokens, direct=float(config.mode == "direct"))
    pilot = gradient(settings, load_policy(checkpoint), task, problems, seed, steps=PILOT_STEPS)
    policy = load_policy(checkpoint)
    steps = max(1, round(budget * PILOT_STEPS / pilot.compute))
    began = time.perf_counter()
    meter = gradient(settings, policy, task, problems, seed, steps=steps)
    seconds = time.perf_counter() - began
    plain = held_out_rates(config, policy, task)
    last = summary["rounds"][-1]
    return {
        "seed": seed,
        "start": summary["stages"][0]["pass_at_1"]["mean"],
        "rounds": [stage["pass_at_1"]["mean"] for stage in summary["stages"]],
        "loop": last["pass_at_1"]["mean"],
        "policy_gradient": plain["pass_at_1"]["mean"],
        "loop_pass_at_k": list(last["pass_at_k"].values())[-1]["mean"],
        "policy_gradient_pass_at_k": list(plain["pass_at_k"].values())[-1]["mean"],
        "loop_compute": float(budget),
        "policy_gradient_compute": float(meter.compute),
        "compute_ratio": meter.compute / budget,
        "loop_seconds": loop_seconds,
        "policy_gradient_seconds": seconds,
        "policy_gradient_steps": float(steps),
        "loop_rate": last["pass_at_1"],
        "policy_gradient_rate": plain["pass_at_1"],
    }


def gradient(
    settings: PolicyGradient,
    policy: LocalPolicy,
    task: AnyTask,
    problems: Sequence[Problem],
    seed: int,
    *,
    steps: int,
) -> Meter:
    """`steps` updates of `clew rl` on `policy`, and what they took."""
    from clew.recipes.rl import rl

    settings = replace(settings, steps=steps)
    mode = "direct" if settings.direct else "think"
    prompt = sum(len(policy.prompt_ids(problem, mode)) for problem in problems[:100]) / len(problems[:100])
    meter = Meter(problems=settings.problems, samples=settings.group_size, prompt=prompt)
    rl(settings, policy=policy, task=task, problems=problems, seed=seed, stage=cast("Stage", meter))
    return meter


@dataclass(slots=True, kw_only=True)
class Meter:
    """Stands where `clew rl` has its stage: counts tokens forward through the policy, writes nothing.

    Learnt from are the groups that teach; those of a batch are taken to be as long as the others.
    """

    problems: int
    samples: int
    prompt: float
    """Mean tokens of a prompt: read once a group, and with every sample that is learnt from."""
    name: str = "rl"
    compute: float = 0.0
    last_checkpoint: None = None

    def record(self, step: int, *, tokens: int = 0, groups_dropped: float = 0.0, **metrics: object) -> None:
        learnt = (1.0 - groups_dropped) * (tokens + self.problems * self.samples * (self.prompt - 1))
        self.compute += tokens + self.problems * self.prompt + UPDATE_PASSES * learnt

    def keep(self, groups: Sequence[Group]) -> None:
        """Keep nothing."""


def held_out_rates(config: LoopConfig, policy: LocalPolicy, task: AnyTask) -> dict[str, Any]:
    """What the loop measures of its policy, of this one: the same problems and random streams."""
    from clew.core.types import Sampling
    from clew.evaluate import sample_groups
    from clew.recipes.stage import count_problems, rates

    most = min(config.measure_problems, count_problems(task, "test") or config.measure_problems)
    groups = sample_groups(
        policy,
        task,
        task.problems("test", most, derive_seed(config.seed, "held out")),
        n=config.measure_samples,
        sampling=Sampling(max_tokens=config.max_tokens, mode=config.mode),
        seed=derive_seed(config.seed, "evaluation"),
    )
    return rates(groups, task, [k for k in (1, 2, 4, 8, 16, 32) if k <= config.measure_samples])


def copied(policy: LocalPolicy) -> LocalPolicy:
    """The same weights, to be trained apart."""
    from clew.models.policy import LocalPolicy

    return LocalPolicy(copy.deepcopy(policy.model), policy.codec.tokenizer)
