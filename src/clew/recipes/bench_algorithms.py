"""Learning curves of every published name that `clew rl --algorithm` knows, from the same weights and problems.

Every name has as many problems and samples an update and as many updates; everything else is as the name has it. Names
that sample beside what they learn from (greedy answers, continued steps, refilled groups, trees) are charged for it:
told are pass@1 after equal updates and pass@1 when equally many tokens had been sampled.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

from clew.core.errors import TrainingDiverged
from clew.core.seeds import derive_seed
from clew.core.types import Group, Problem, Sampling
from clew.recipes.bench_algorithms_summary import summarised
from clew.recipes.bench_loop import TASK, copied
from clew.recipes.rl_algorithms import ALGORITHMS
from clew.recipes.rl_settings import Algorithm, PolicyGradient

if TYPE_CHECKING:
    from clew.models.policy import LocalPolicy
    from clew.recipes.stage import Stage
    from clew.tasks import AnyTask

NOISE_EVERY = 5
"""Updates between two measurements of the gradient noise; they are not counted in seconds."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run and where it is looked at."""

    checkpoint: Path
    seed: int = 0
    """The first of `seeds`."""
    seeds: int = 2
    task: str = TASK
    names: tuple[Algorithm, ...] = tuple(ALGORITHMS)
    looks: tuple[int, ...] = (0, 10, 20)
    """Updates after which held-out problems are answered; the last is the length of a run."""
    held_out: int = 500
    """Problems of a look."""
    samples: int = 4
    """Of each of them."""
    base: PolicyGradient = field(default_factory=lambda: PolicyGradient(direct=1.0, noise_scale=NOISE_EVERY))
    """What all names share."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all names of a seed share."""

    policy: LocalPolicy
    """At the start; it is copied."""
    task: AnyTask
    problems: Sequence[Problem]
    held_out: Sequence[Problem]
    seed: int


def measure_algorithms(plan: Plan) -> dict[str, Any]:
    """Of each name its curve, what it costs and what it logs; which names end apart; the rows of every seed."""
    from clew.recipes.stage import count_problems, load_policy, training_problems
    from clew.tasks import make_task

    task, start = make_task(plan.task), load_policy(plan.checkpoint)
    most = min(plan.held_out, count_problems(task, "test") or plan.held_out)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in plan.names}
    for seed in range(plan.seed, plan.seed + plan.seeds):
        ground = Ground(
            policy=start,
            task=task,
            problems=training_problems(task, seed, most=4000),
            held_out=task.problems("test", most, derive_seed(seed, "held out")),
            seed=seed,
        )
        first = look(plan, start, ground)
        for name in plan.names:
            began = time.perf_counter()
            rows[name].append(one_run(plan, name, first, ground))
            last = rows[name][-1]["looks"][-1]
            said = ", ".join(f"{key} {last[key]:.4g}" for key in ("pass_at_1", "length", "tokens", "cpu_s"))
            print(f"seed {seed}, {name}, {time.perf_counter() - began:.0f} s: {said}", file=sys.stderr)
    return {
        "task": plan.task,
        "mode": "direct" if plan.base.direct else "think",
        "updates": plan.looks[-1],
        "problems_an_update": plan.base.problems,
        "samples_a_problem": plan.base.group_size,
        "held_out_problems": plan.held_out,
        "held_out_samples": plan.samples,
        **summarised(rows),
        "seeds": rows,
        "note": "intervals: 95 %, over seeds, one deviation for all names; least difference: Tukey's, over all pairs",
    }


def one_run(plan: Plan, name: Algorithm, first: Mapping[str, Any], ground: Ground) -> dict[str, Any]:
    """Train a copy of the starting policy by `name`; its looks, and what its updates logged.

    A run that diverges keeps its last finite weights, of which the looks that were to come are taken.
    """
    from clew.recipes.rl import rl

    policy, seed = copied(ground.policy), ground.seed
    settings = replace(plan.base, algorithm=name, steps=plan.looks[-1])
    curve = Curve(plan=plan, policy=policy, ground=ground, looks=[dict(first)])
    shared: dict[str, Any] = {"task": ground.task, "problems": ground.problems, "seed": seed}
    account: dict[str, int] = {}
    diverged: int | None = None
    try:
        found = rl(settings, policy=policy, stage=cast("Stage", curve), **shared)
        account = dict(found.totals)
    except TrainingDiverged:
        diverged = curve.updates
        curve.look_again()
    return {"seed": seed, "looks": curve.looks, "logged": curve.told(), "account": account, "diverged_after": diverged}


def look(plan: Plan, policy: LocalPolicy, ground: Ground) -> dict[str, Any]:
    """What `policy` does on the held-out problems; of every name from the same random streams."""
    from clew.evaluate import sample_groups
    from clew.recipes.stage import rates

    mode = "direct" if plan.base.direct else "think"
    sampling = Sampling(max_tokens=plan.base.max_tokens, mode=mode)
    how: dict[str, Any] = {"n": plan.samples, "sampling": sampling, "seed": derive_seed(ground.seed, "evaluation")}
    groups = sample_groups(policy, ground.task, ground.held_out, **how)
    found = rates(groups, ground.task, [1, plan.samples])
    return {
        "updates": 0,
        "tokens": 0,
        "cpu_s": 0.0,
        "seconds": 0.0,
        "pass_at_1": found["pass_at_1"]["mean"],
        "pass_at_k": list(found["pass_at_k"].values())[-1]["mean"],
        "k": plan.samples,
        "length": found["mean_length"],
        "finished": found["finished"]["mean"],
        "entropy": entropy_of(groups),
        "rate": found["pass_at_1"],
    }


def entropy_of(groups: Sequence[Group]) -> float:
    """Nats a token: minus the mean log-probability of what was sampled, which at temperature 1 is the entropy."""
    logprobs = [value for group in groups for t in group.trajectories for value in t.completion.logprobs or ()]
    return -statistics.fmean(logprobs) if logprobs else math.nan


@final
@dataclass(slots=True, kw_only=True)
class Curve:
    """Stands where `clew rl` has its stage: counts, and looks at the policy after some updates. Looking costs nothing.

    Updates in which the gradient noise was measured are taken to have been as long as the others.
    """

    plan: Plan
    policy: LocalPolicy
    ground: Ground
    looks: list[dict[str, Any]]
    name: str = "rl"
    last_checkpoint: None = None
    updates: int = 0
    tokens: int = 0
    timed: list[tuple[float, float]] = field(default_factory=list)
    """Seconds of the clock and of all cores, of updates without such a measurement."""
    logged: dict[str, list[float]] = field(default_factory=dict)
    began: tuple[float, float] = field(default_factory=lambda: (time.perf_counter(), time.process_time()))

    def record(self, step: int, *, tokens: int = 0, **metrics: float | None) -> None:
        now = (time.perf_counter(), time.process_time())
        if "noise_variance" not in metrics:
            self.timed.append((now[0] - self.began[0], now[1] - self.began[1]))
        self.updates, self.tokens = step + 1, self.tokens + tokens
        for key, value in metrics.items():
            if value is not None:
                self.logged.setdefault(key, []).append(float(value))
        if self.updates in self.plan.looks:
            self._look()
        self.began = (time.perf_counter(), time.process_time())

    def keep(self, groups: Sequence[Group]) -> None:
        """Keep nothing."""

    def look_again(self) -> None:
        """The looks that were to come, of the weights as they are."""
        if missing := len(self.plan.looks) - len(self.looks):
            self.policy.refresh()
            self._look()
            last = self.looks.pop()
            self.looks += [{**last, "updates": updates} for updates in self.plan.looks[-missing:]]

    def _look(self) -> None:
        wall, cpu = (statistics.fmean(part) for part in zip(*self.timed or [(0.0, 0.0)], strict=True))
        own = {"updates": self.updates, "tokens": self.tokens}
        spent = {"seconds": wall * self.updates, "cpu_s": cpu * self.updates}
        self.looks.append({**look(self.plan, self.policy, self.ground), **own, **spent})

    def told(self) -> dict[str, float]:
        """Means of what was logged; the sums of the two parts of the gradient noise; the last KL from the start."""
        wanted: list[str] = [key for key in ("ess", "clipped", "grad_norm") if key in self.logged]
        means = {key: statistics.fmean(self.logged[key]) for key in wanted}
        noise = {key: math.fsum(self.logged.get(key, [])) for key in ("noise_variance", "noise_squared_gradient")}
        kl = self.logged.get("kl", [])
        return {**means, **noise, **({"kl": kl[-1]} if kl else {})}
