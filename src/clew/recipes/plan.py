"""Compute-optimal test time: calibrate strategies, choose one for each difficulty and budget, say what it is worth.

Calibration runs on problems that nobody was trained on and that are not held out either. A few samples of each problem
predict its difficulty, without the answer; they are the pilot that `clew search --plan` pays for too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.core.errors import InvalidValue, RunDirectoryError

if TYPE_CHECKING:
    from rich.table import Table

    from clew.core.protocols import Policy
    from clew.core.types import Problem
    from clew.recipes.progress import Bar
    from clew.recipes.search import SearchConfig
    from clew.scale.compute_optimal import Measured, Plan, Validated
    from clew.tasks import AnyTask

EXAMPLES = """
clew plan --checkpoint runs/first --out plan.json
clew plan --checkpoint runs/first --strategies majority-vote:n=8 beam:n=4,m=4 --budgets 512 2048 --out plan.json
clew search --checkpoint runs/first --plan plan.json --budget-tokens 2048 --out runs/planned
"""
STAGE = "plan"


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Find out which strategy is best for which difficulty and budget, and what knowing it is worth."""

    checkpoint: str
    """Run directory or checkpoint of the model."""
    out: Path
    """JSON file to write the plan to; it must not exist yet."""
    task: str = "countdown"
    """Task and its settings: NAME or NAME:setting=value,..."""
    strategies: tuple[str, ...] = ("majority-vote:n=64,per_request=4", "best-of-n:n=64,per_request=4", "beam:n=8,m=4")
    """Strategies with their settings, to choose from: their splits into width, depth and revisions."""
    guidance: str = "mean-logprob"
    """What guides those of them that take a guide."""
    guide: Path | None = None
    """Run directory or checkpoint of the reward model, for process-reward and learned-reward (of any kind)."""
    budgets: tuple[int, ...] = (512, 2048)
    """Ceilings in tokens a problem."""
    pilot: int = 4
    """Samples of a problem that its difficulty is predicted from."""
    bins: int = 5
    """Bins of difficulty, of equal size."""
    folds: int = 5
    """Parts of the problems; each judges, in turn, what was chosen on the others."""
    problems: int = 200
    """How many problems."""
    split: Literal["train", "validation"] = "validation"
    """Which problems."""
    max_tokens: int = 288
    """Most tokens of an answer."""
    max_step_tokens: int = 48
    """Most tokens of a step."""
    together: int = 64
    """How many problems are searched at once."""
    seed: int = 0
    """Every random draw derives from it; the problems too."""
    json: bool = False
    """Print the plan as one JSON object instead of a table."""


CONFIG = PlanConfig


def main(config: PlanConfig) -> int:
    from clew.core.seeds import derive_seed
    from clew.data.files import jsonable, write_json_atomically
    from clew.recipes.progress import Progress
    from clew.recipes.search import load_any_policy
    from clew.scale.compute_optimal import cross_validate, plan
    from clew.tasks import make_task

    _check(config)
    task = make_task(config.task)
    problems = task.problems(config.split, config.problems, derive_seed(config.seed, "calibration"))
    policy = load_any_policy(config.checkpoint)
    contests = len(config.strategies) * len(config.budgets) + 1
    with Progress({STAGE: 1.0}).stage(STAGE, total=contests * len(problems)) as bar:
        difficulties = difficulties_of(config, policy, task, problems, bar)
        rows = list(calibrate(config, policy, task, problems, difficulties, bar))
    made, validated = plan(rows, config.bins), cross_validate(rows, bins=config.bins, folds=config.folds)
    results = {**encode(made, config), "validated": [_validated(row) for row in validated]}
    write_json_atomically(config.out, results)
    if config.json:
        print(json.dumps(jsonable(results), allow_nan=False))
    else:
        from rich.console import Console

        Console(highlight=False).print(table(made, validated, config.out))
    return 0


def difficulties_of(
    config: PlanConfig, policy: Policy, task: AnyTask, problems: Sequence[Problem], bar: Bar
) -> dict[str, float]:
    """Predicted difficulty of each problem, by id, from its pilot alone."""
    from clew.core.seeds import derive_seed
    from clew.core.types import Sampling
    from clew.evaluate import sample_groups
    from clew.search.compute_optimal import mean_logprob
    from clew.stats.difficulty import predicted_difficulty

    seed = derive_seed(config.seed, "evaluation")
    sampling = Sampling(max_tokens=config.max_tokens)
    groups = sample_groups(policy, task, problems, n=config.pilot, sampling=sampling, seed=seed, stage=STAGE)
    bar.advance(len(problems))
    return {
        group.problem.id: predicted_difficulty(
            [task.extract(t.text) for t in group.trajectories], [mean_logprob(t.completion) for t in group.trajectories]
        )
        for group in groups
    }


def calibrate(
    config: PlanConfig,
    policy: Policy,
    task: AnyTask,
    problems: Sequence[Problem],
    difficulties: Mapping[str, float],
    bar: Bar,
) -> Iterator[Measured]:
    """Every strategy on every problem under every budget; a search that failed answered wrong."""
    from clew.core.cost import Budget
    from clew.core.seeds import derive_seed
    from clew.evaluate.memo import MemoJudge
    from clew.evaluate.searched import judge_answer
    from clew.recipes.search import choose, load_scorer, sampling_of, step_ends
    from clew.scale.compute_optimal import Measured
    from clew.search import run_searches

    judge = MemoJudge(task)
    for spec in config.strategies:
        settings = search_config(config, spec)
        ends = step_ends(settings, task, policy)
        for budget in config.budgets:
            for start in range(0, len(problems), config.together):
                chosen = choose(settings, ends)
                scorer = load_scorer(chosen, policy, task, sampling_of(settings, ends), guide=config.guide)
                outcomes = run_searches(
                    chosen.strategy,
                    problems[start : start + config.together],
                    policy,
                    task=judge,
                    scorer=scorer,
                    budget=Budget(tokens=budget),
                    seed=derive_seed(config.seed, "evaluation"),
                )
                for outcome in outcomes:
                    verdict = judge_answer(outcome, judge, policy)
                    right = verdict is not None and verdict.right
                    name, difficulty = outcome.problem.id, difficulties[outcome.problem.id]
                    yield Measured(name, difficulty, spec, budget, right, outcome.cost.tokens)
                bar.advance(len(outcomes), tokens=sum(outcome.cost.tokens_sampled for outcome in outcomes))
            print(f"{spec} at {budget} tokens: done", file=sys.stderr)


def search_config(config: PlanConfig, spec: str) -> SearchConfig:
    """What `clew search` would be told for one strategy of the plan, guided if it takes a guide."""
    from clew.recipes.search import SearchConfig
    from clew.search.specs import takes_guide

    return SearchConfig(
        checkpoint=config.checkpoint,
        task=config.task,
        strategy=spec,
        guidance=config.guidance if takes_guide(spec) else None,
        guide=config.guide,
        max_tokens=config.max_tokens,
        max_step_tokens=config.max_step_tokens,
        seed=config.seed,
        out=Path("nowhere"),
    )


def encode(made: Plan, config: PlanConfig) -> dict[str, Any]:
    """The plan as `clew search --plan` reads it."""
    return {
        "edges": list(made.edges),
        "cells": [{**cell._asdict(), "strategy": name} for cell, name in sorted(made.choice.items())],
        "pilot": config.pilot,
        "guidance": config.guidance,
        "task": config.task,
        "split": config.split,
        "problems": config.problems,
        "seed": config.seed,
    }


def decode(value: Mapping[str, Any]) -> Plan:
    """Raises `KeyError` or `TypeError` for what `encode` does not write."""
    from clew.scale.compute_optimal import Cell, Plan

    choice = {Cell(cell["bin"], cell["budget"]): str(cell["strategy"]) for cell in value["cells"]}
    return Plan(tuple(map(float, value["edges"])), choice)


def _validated(row: Validated) -> dict[str, Any]:
    told = {"budget": row.budget, "optimal": row.optimal.as_dict(), "fixed": row.fixed.as_dict()}
    return {**told, "each": {name: rate.as_dict() for name, rate in row.each.items()}}


def table(made: Plan, validated: Sequence[Validated], out: Path) -> Table:
    """A row a budget and bin, then what the plan is worth on problems that had no part in it."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE, title="the plan", title_justify="left", caption_justify="left")
    shown.add_column("budget, tokens", justify="right")
    shown.add_column("difficulty", justify="right")
    shown.add_column("strategy", overflow="fold")
    for (at, budget), name in sorted(made.choice.items(), key=lambda item: (item[0].budget, item[0].bin)):
        shown.add_row(f"{budget:,}", f"{at + 1} of {len(made.edges) + 1}", name)
    lines = [
        f"{row.budget:,} tokens, cross-validated: the plan {row.optimal.mean:.1%} ({row.optimal.low:.1%} to "
        f"{row.optimal.high:.1%}), the best single strategy {row.fixed.mean:.1%} ({row.fixed.low:.1%} to "
        f"{row.fixed.high:.1%})"
        for row in validated
    ]
    shown.caption = "\n".join([*lines, f"written to {out}"])
    return shown


def _check(config: PlanConfig) -> None:
    if not config.strategies or min(config.budgets, default=0) < 1 or config.pilot < 1:
        given = (config.strategies, config.budgets, config.pilot)
        accepted = "at least one strategy, budgets and a pilot of at least 1"
        raise InvalidValue("(strategies, budgets, pilot)", given, accepted, "see clew plan --help")
    if config.out.exists():
        raise RunDirectoryError(
            f"--out {config.out} exists", "a new file", "choose another name, or move the file away"
        )
