"""Process rewards against the outcome alone in GRPO: the same policy, problems, rollouts and updates; three seeds.

The policy answers directly, so that each step counts: one that thinks can take it back. Every batch is learnt from in
two passes of two parts, as PPO does, on all sides alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.recipes.bench_loop import MEASURED, TASK, copied, gradient, held_out_rates
from clew.recipes.bench_seeds import SEEDS, over_seeds, told
from clew.recipes.loop_settings import LoopConfig
from clew.recipes.rl_settings import EXACT_VALUE, PolicyGradient, StepSettings

if TYPE_CHECKING:
    from clew.models.policy import LocalPolicy
    from clew.tasks import AnyTask

BUDGETS = (20, 60)
"""Batches of rollouts: where rewards are few, and where they are many."""
EPOCHS = MINIBATCHES = 2
ENDS = ("left", "answer")
"""Steps end where the result of a sum is written."""
ARMS = ("outcome", "learned", "exact")
TOKENS = 64
"""Most of a direct answer."""


def measure_process_rl(
    *, checkpoint: Path, process: Path, seed: int, budgets: Sequence[int] = BUDGETS
) -> dict[str, Any]:
    """Of each budget, in batches of rollouts: pass@1 of all arms, their means with intervals, paired differences."""
    return {
        "task": TASK,
        "mode": "direct",
        "updates_a_batch": EPOCHS * MINIBATCHES,
        **{f"batches_{steps}": measure_budget(checkpoint, process, seed, steps) for steps in budgets},
        "note": "GRPO without KL, equal rollouts and updates. Beside the outcome's advantage each step has what it "
        "raised a value, above the same step of the other samples (PAV). learned: a process reward of clew reward "
        "train; exact: 1 while the solver still finds a way, else 0. Each budget is a run with a schedule of its own",
    }


def measure_budget(checkpoint: Path, process: Path, seed: int, steps: int) -> dict[str, Any]:
    """The rows a seed, means over seeds, and how far each arm is above the outcome alone."""
    from clew.recipes.stage import load_policy
    from clew.tasks import make_task

    task, start = make_task(TASK), load_policy(checkpoint)
    rows = []
    for at in range(SEEDS):
        began = time.perf_counter()
        rows.append(one_seed(start, task, process, seed + at, steps))
        said = {name: round(value, 3) for name, value in rows[-1].items() if isinstance(value, float)}
        print(f"{steps} batches, seed {seed + at}, {time.perf_counter() - began:.0f} s: {said}", file=sys.stderr)
    above = {name: over_seeds([row[name] - row["outcome"] for row in rows]) for name in ARMS[1:]}
    return {
        **told(rows),
        **{f"{name}_minus_outcome": found for name, found in above.items()},
        **{f"{name}_is_better": found["low"] > 0.0 for name, found in above.items()},
        "seeds": rows,
    }


def one_seed(start: LocalPolicy, task: AnyTask, process: Path, seed: int, steps: int) -> dict[str, Any]:
    """All arms from the same weights, problems and random streams."""
    from clew.recipes.stage import training_problems

    problems = training_problems(task, seed, most=4000)
    how: dict[str, Any] = {"max_tokens": TOKENS, "mode": "direct"}
    config = LoopConfig(checkpoint=Path(), out=Path(), task=TASK, seed=seed, measure_problems=MEASURED, **how)
    # Process rewards teach in groups whose outcomes are all equal, too: all arms are averaged over all samples.
    # Without a penalty, against which larger advantages alone would count for more.
    plain: dict[str, Any] = {"algorithm": "grpo", "kl": "none", "direct": 1.0, "max_tokens": TOKENS}
    outcome = PolicyGradient(**plain, epochs=EPOCHS, minibatches=MINIBATCHES)
    paid = {"learned": process, "exact": EXACT_VALUE}
    arms = {"outcome": outcome} | {
        name: replace(outcome, step_credit=StepSettings(ends=ENDS, process=scorer, process_credit="progress"))
        for name, scorer in paid.items()
    }
    row: dict[str, Any] = {"seed": seed}
    for name, settings in arms.items():
        policy, began = copied(start), time.perf_counter()
        gradient(settings, policy, task, problems, seed, steps=steps)
        row[f"{name}_seconds"] = time.perf_counter() - began
        rates = held_out_rates(config, policy, task)
        row[name] = rates["pass_at_1"]["mean"]
        row[f"{name}_pass_at_k"] = list(rates["pass_at_k"].values())[-1]["mean"]
        row[f"{name}_length"] = rates["mean_length"]
        row[f"{name}_rate"] = rates["pass_at_1"]
    row["start"] = held_out_rates(config, start, task)["pass_at_1"]["mean"]
    return row
