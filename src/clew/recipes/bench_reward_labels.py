"""OmegaPRM against plain Monte Carlo: the roll-outs that each needs for labels of the same quality.

Labelled are wrong solutions of a policy, one a problem. Quality is the share of the steps of a solution whose hard
label (can the policy still get it right from here?) is that of many independent roll-outs, mean over solutions. Plain
Monte Carlo is measured with several numbers of roll-outs a step; the number at which it is as good as OmegaPRM is read
off the line between them. Both draw the same roll-outs, seed by seed; those of the reference are others.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import Sampling, State

if TYPE_CHECKING:
    from clew.core.protocols import Policy, Search
    from clew.reward.tree_labels import Rule, Values
    from clew.tasks import AnyTask


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBench:
    """How much is measured."""

    solutions: int = 12
    """Wrong solutions that are labelled."""
    ks: tuple[int, ...] = (1, 2, 4, 8)
    """Roll-outs a step of plain Monte Carlo, ascending."""
    k: int = 8
    """Roll-outs of each prefix that OmegaPRM measures."""
    reference: int = 24
    """Independent roll-outs of every step that say what is true."""
    seeds: int = 3
    """Times that both label the same solutions with other roll-outs."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=160))
    step_ends: tuple[str, ...] = ("=",)


class Labelling(NamedTuple):
    """What one method said of all solutions under one seed."""

    values: list[Values]
    """[solutions][1 + S] None where it did not measure."""
    states: list[list[State]]
    """[solutions][1 + S] the prefixes, from the empty one."""
    cost: Cost


def measure_labels(
    checkpoint: Path | str,
    *,
    task: str = "countdown",
    seed: int = 0,
    bench: LabelBench | None = None,
    on_step: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """`omega_prm` and `monte_carlo` (`rollouts` a solution and `quality`), `rollout_ratio` at equal quality; and more.

    `monte_carlo` is at the quality of OmegaPRM, or at its most roll-outs if it does not get there; `by_k` has what was
    measured. `rollout_ratio_soft` is the ratio at an equal error of the values. `rollout_ratio_implied` compares with a
    Monte Carlo that draws the same conclusions as OmegaPRM: before a right end all is right, after the last all wrong.
    Raises `InvalidValue` if the policy is hardly ever wrong.
    """
    from clew.recipes.search import load_any_policy
    from clew.tasks import make_task

    judge = make_task(task)
    return compare_labellers(
        load_any_policy(str(checkpoint)), judge, bench or LabelBench(), seed, on_step=on_step or _quiet
    )


def compare_labellers(
    policy: Policy, task: AnyTask, bench: LabelBench, seed: int, *, on_step: Callable[[str], None]
) -> dict[str, Any]:
    """`measure_labels` of a policy that is loaded."""
    from clew.reward.label_tree import Solutions
    from clew.reward.monte_carlo import MonteCarlo
    from clew.reward.omega_prm import OmegaPrm
    from clew.reward.tree_labels import hard, implied
    from clew.search.policies import PooledPolicy

    wrong = wrong_solutions(policy, task, bench, seed)
    solutions = Solutions(
        given={state.problem.id: (state,) for state in wrong}, sampling=bench.sampling, step_ends=bench.step_ends
    )
    on_step(f"{len(wrong)} wrong solutions; reference")
    truth = _label(MonteCarlo(k=bench.reference, solutions=solutions), wrong, policy, task, derive_seed(seed, "truth"))
    told: dict[str, list[dict[str, float]]] = {}
    labellers: dict[str, tuple[Search, Rule]] = {
        f"monte_carlo k={k}": (MonteCarlo(k=k, solutions=solutions), hard) for k in sorted(bench.ks, reverse=True)
    }
    labellers["omega_prm"] = (OmegaPrm(k=bench.k, join=False, searches=1, solutions=solutions), implied)
    plain_implied = {f"{name}, implied": (one, implied) for name, (one, _) in labellers.items() if "=" in name}
    soft: dict[str, list[float]] = {}
    labellings: dict[str, list[Labelling]] = {}
    for number in range(bench.seeds):
        pool = PooledPolicy(policy)
        for name, (strategy, rule) in (labellers | plain_implied).items():
            on_step(f"seed {number + 1} of {bench.seeds}: {name}")
            made = _label(strategy, wrong, pool, task, derive_seed(seed, "labels", number))
            told.setdefault(name, []).append(_quality(made, truth, rule))
            soft.setdefault(name, []).append(_soft_error(made, truth))
            if name not in plain_implied:
                labellings.setdefault(name, []).append(made)
    means = {
        name: {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
        | {"quality_spread": max(row["quality"] for row in rows) - min(row["quality"] for row in rows)}
        | {"soft_error": statistics.fmean(soft[name])}
        for name, rows in told.items()
    }
    lines = {
        "": [means[f"monte_carlo k={k}"] for k in bench.ks],
        "_implied": [means[f"monte_carlo k={k}, implied"] for k in bench.ks],
    }
    ratios = {
        f"rollout_ratio{suffix}_by_seed": [
            _ratio(
                told["omega_prm"][at],
                [told[f"monte_carlo k={k}{', implied' if suffix else ''}"][at] for k in bench.ks],
            )
            for at in range(bench.seeds)
        ]
        for suffix in lines
    }
    omega = means["omega_prm"]
    equal = rollouts_for(omega["quality"], lines[""])
    return {
        "omega_prm": omega,
        "monte_carlo": {"rollouts": equal, "quality": min(omega["quality"], lines[""][-1]["quality"])},
        "rollout_ratio": omega["rollouts"] / equal,
        "rollout_ratio_implied": omega["rollouts"] / rollouts_for(omega["quality"], lines["_implied"]),
        "rollout_ratio_soft": _ratio(_by_soft_error(omega), [_by_soft_error(row) for row in lines[""]]),
        **ratios,
        "by_k": {name: value for name, value in means.items() if name != "omega_prm"},
        "reached_by_monte_carlo": omega["quality"] <= lines[""][-1]["quality"],
        "steps": statistics.fmean(len(values) - 1 for values in truth.values),
        "right_steps": _share_right(truth),
        "estimators": estimators(labellings, truth, bench.reference, policy),
        "bench": asdict(bench),
        "tokens_of_reference": truth.cost.tokens,
    }


def wrong_solutions(policy: Policy, task: AnyTask, bench: LabelBench, seed: int) -> list[State]:
    """The first wrong sample of each problem that has one, of validation problems that also had a right one."""
    from clew.core.types import Outcome
    from clew.evaluate import sample_groups

    found: list[State] = []
    problems = task.problems("validation", 8 * bench.solutions, derive_seed(seed, "label problems"))
    for at in range(0, len(problems), 2 * bench.solutions):
        groups = sample_groups(
            policy,
            task,
            problems[at : at + 2 * bench.solutions],
            n=4,
            sampling=bench.sampling,
            seed=derive_seed(seed, "label solutions"),
        )
        for group in groups:
            wrong = [t.state for t in group.trajectories if t.verdict.outcome is Outcome.WRONG]
            if wrong and any(t.verdict.right for t in group.trajectories):
                found.append(wrong[0])
        if len(found) >= bench.solutions:
            return found[: bench.solutions]
    if not found:
        accepted = "a policy that is sometimes right and sometimes wrong on the same problem"
        raise InvalidValue("wrong solutions of the policy", 0, accepted, "choose harder problems, or another policy")
    return found


def rollouts_for(quality: float, line: Sequence[Mapping[str, float]]) -> float:
    """Roll-outs at which the `line` of ascending roll-outs reaches `quality`, logarithmic between its points.

    Where it starts above, its first point; where it never gets there, its last: what it needs is more.
    """
    before = line[0]
    if before["quality"] >= quality:
        return before["rollouts"]
    for after in line[1:]:
        if after["quality"] >= quality:
            share = (quality - before["quality"]) / (after["quality"] - before["quality"])
            low, high = math.log(before["rollouts"]), math.log(after["rollouts"])
            return math.exp(low + share * (high - low))
        before = after
    return line[-1]["rollouts"]


def _ratio(omega: Mapping[str, float], line: Sequence[Mapping[str, float]]) -> float:
    return omega["rollouts"] / rollouts_for(omega["quality"], line)


def _by_soft_error(row: Mapping[str, float]) -> dict[str, float]:
    """The same with another quality: how close the values are, those in between interpolated."""
    return {"rollouts": row["rollouts"], "quality": 1.0 - row["soft_error"]}


def _label(strategy: Search, wrong: Sequence[State], policy: Policy, task: AnyTask, seed: int) -> Labelling:
    from clew.evaluate.memo import MemoJudge
    from clew.reward.tree_labels import tree_values
    from clew.search import run_searches

    problems = [state.problem for state in wrong]
    outcomes = run_searches(strategy, problems, policy, task=MemoJudge(task), seed=seed)
    values: list[Values] = []
    states: list[list[State]] = []
    for outcome in outcomes:
        outcome.raise_if_failed()
        tree = outcome.result.tree
        known = tree_values(tree)
        # OmegaPRM does not even look at the steps of a solution whose problem it never solves.
        path = tree.path(next(tree.leaves()))
        values.append([known[node] for node in path])
        states.append([tree.states[node] for node in path])
    return Labelling(values, states, sum((outcome.cost for outcome in outcomes), Cost()))


def _quality(made: Labelling, truth: Labelling, rule: Rule) -> dict[str, float]:
    from clew.reward.estimator_quality import place_agreement
    from clew.reward.tree_labels import hard

    shares = []
    for found, known in zip(made.values, truth.values, strict=True):
        right = [float(label or 0.0) for label in hard(known)]
        # Nothing measured: every step is taken to be wrong.
        labels = [float(label or 0.0) for label in rule(found)] if len(found) == len(known) else [0.0] * len(right)
        shares.append(place_agreement(labels, right))
    solutions = len(made.values)
    return {
        "rollouts": made.cost.model_calls / solutions,
        "tokens": made.cost.tokens_sampled / solutions,
        "quality": statistics.fmean(shares),
    }


def _soft_error(made: Labelling, truth: Labelling) -> float:
    """Mean absolute error of the values, those between two that were measured on the line between them."""
    from clew.reward.tree_labels import interpolated

    errors = []
    for found, known in zip(made.values, truth.values, strict=True):
        labels = interpolated(found) if len(found) == len(known) else [0.0] * (len(known) - 1)
        errors += [abs((a or 0.0) - (b or 0.0)) for a, b in zip(labels, known[1:], strict=True)]
    return statistics.fmean(errors)


def estimators(
    made: Mapping[str, Sequence[Labelling]], truth: Labelling, rollouts: int, policy: Policy
) -> dict[str, Any]:
    """How good the measured values are, by method: against the policy's own value and, for Countdown, against V*.

    Those of all seeds together; without the ends of solutions, which the verifier tells.
    """
    from clew.reward.countdown_value import exact_value
    from clew.reward.estimator_quality import Reference, estimator_quality

    countdown = truth.states[0][0].problem.task == "countdown"
    exact = [
        [float(exact_value(policy.text(state), **_facts(state))) if countdown else 0.0 for state in states[1:-1]]
        for states in truth.states
    ]
    told: dict[str, Any] = {}
    for name, labellings in made.items():
        labels, own, best = [], [], []
        for labelling in labellings:
            for found, known, ideal in zip(labelling.values, truth.values, exact, strict=True):
                for label, value, star in zip(found[1:-1], known[1:-1], ideal, strict=False):
                    if label is not None and value is not None:
                        labels.append(label)
                        own.append(value)
                        best.append(star)
        cost = sum((labelling.cost for labelling in labellings), Cost())
        against = {"policy_value": Reference(values=tuple(own), rollouts=rollouts)}
        against |= {"exact_value": Reference(values=tuple(best))} if countdown else {}
        told[name] = {what: asdict(estimator_quality(labels, one, cost)) for what, one in against.items()}
    return told


def _facts(state: State) -> dict[str, Any]:
    return {name: state.problem.metadata[name] for name in ("numbers", "target")}


def _share_right(truth: Labelling) -> float:
    from clew.reward.tree_labels import hard

    return statistics.fmean(label or 0.0 for values in truth.values for label in hard(values))


def _quiet(_: str) -> None:
    pass
