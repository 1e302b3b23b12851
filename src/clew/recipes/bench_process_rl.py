"""Process rewards against the outcome alone in GRPO: the same policy, problems, rollouts and updates; three seeds."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.recipes.bench_loop import MEASURED, TASK, copied, gradient, held_out_rates
from clew.recipes.bench_seeds import SEEDS, over_seeds, told
from clew.recipes.loop_settings import LoopConfig
from clew.recipes.rl_settings import PolicyGradient, StepSettings

if TYPE_CHECKING:
    from clew.models.policy import LocalPolicy
    from clew.tasks import AnyTask

STEPS = 60


def measure_process_rl(*, checkpoint: Path, process: Path, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """pass@1 of all arms a seed, their means with intervals, and the paired differences."""
    from clew.recipes.stage import load_policy
    from clew.tasks import make_task

    task, start = make_task(TASK), load_policy(checkpoint)
    rows = []
    for at in range(SEEDS):
        began = time.perf_counter()
        rows.append(one_seed(start, task, process, seed + at, steps))
        said = {name: round(value, 3) for name, value in rows[-1].items() if isinstance(value, float)}
        print(f"seed {seed + at}, {time.perf_counter() - began:.0f} s: {said}", file=sys.stderr)
    difference = over_seeds([row["progress"] - row["outcome"] for row in rows])
    shaping = over_seeds([row["shaping"] - row["outcome"] for row in rows])
    return {
        "task": TASK,
        "steps": steps,
        **told(rows),
        "progress_minus_outcome": difference,
        "progress_is_better": difference["low"] > 0.0,
        "shaping_minus_outcome": shaping,
        "seeds": rows,
        "note": "GRPO, equal rollouts and updates; progress: what a step raised the reward, beside the outcome's "
        "advantage; shaping: the same differences summed to the end, compared stepwise",
    }


def one_seed(start: LocalPolicy, task: AnyTask, process: Path, seed: int, steps: int) -> dict[str, Any]:
    """All arms from the same weights, problems and random streams."""
    from clew.recipes.stage import training_problems

    problems = training_problems(task, seed, most=4000)
    config = LoopConfig(checkpoint=Path(), out=Path(), task=TASK, seed=seed, measure_problems=MEASURED)
    # Process rewards teach in groups whose outcomes are all equal, too: both arms are averaged over all samples.
    outcome = PolicyGradient(algorithm="grpo", max_tokens=config.max_tokens)
    arms = {
        "outcome": outcome,
        "progress": replace(outcome, step_credit=StepSettings(process=process, process_credit="progress")),
        "shaping": replace(outcome, step_credit=StepSettings(process=process)),
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
