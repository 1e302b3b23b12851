"""How good a scorer is on judged solutions: does it order, is it calibrated, like V*, and does it choose well."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clew.core.seeds import derive_seed
from clew.core.types import State

if TYPE_CHECKING:
    from clew.core.protocols import Policy, Scorer
    from clew.core.types import Group, Trajectory
    from clew.stats.calibration import CalibrationBin

DEPTHS = (0.25, 0.5, 0.75, 1.0)
"""Shares of a solution after which it is scored."""
MOST_STEPS = 4000
"""Steps, of all there are, on which agreement with V* is measured."""


def measure_scorer(
    scorer: Scorer, groups: Sequence[Group], policy: Policy, *, seed: int = 0, depths: Sequence[float] = DEPTHS
) -> dict[str, Any]:
    """What `scorer`, whose scores are probabilities, makes of the solutions of `groups`."""
    from clew.recipes.process_measures import choosing
    from clew.stats.calibration import auc, calibration_error

    solutions = [t for group in groups for t in group.scored]
    right = [t.verdict.right for t in solutions]
    at_depth = {f"{depth:g}": scores(scorer, [_cut(t, depth) for t in solutions]) for depth in depths}
    bins = bins_of(at_depth[f"{depths[-1]:g}"], right)
    return {
        "scorer": scorer.name,
        "problems": len(groups),
        "solutions": len(solutions),
        "base_rate": sum(right) / len(right),
        "auc": {depth: auc(values, right) for depth, values in at_depth.items()},
        "calibration": [b._asdict() for b in bins],
        "calibration_error": calibration_error(bins),
        "exact_value": against_exact_value(scorer, solutions, policy, seed=seed),
        "choosing": choosing(groups, at_depth[f"{depths[-1]:g}"]),
    }


def bins_of(values: Sequence[float], right: Sequence[bool]) -> list[CalibrationBin]:
    """Calibration of finished solutions."""
    from clew.stats.calibration import calibration_bins

    return calibration_bins(values, [float(good) for good in right])


def scores(scorer: Scorer, states: Sequence[State]) -> list[float]:
    """Scores of `states`, some hundred at a time."""
    found: list[float] = []
    for start in range(0, len(states), 512):
        some = states[start : start + 512]
        found += scorer.score(some, [None] * len(some))
    return found


def against_exact_value(
    scorer: Scorer, solutions: Sequence[Trajectory], policy: Policy, *, seed: int = 0
) -> dict[str, float] | None:
    """Agreement of scores with V* after steps of `solutions`; None for a task or a policy whose V* no solver knows.

    `spearman_limit` is what a perfect order of scores without ties would reach, V* being 0 or 1.
    """
    from clew.models.policy import LocalPolicy
    from clew.recipes.process_measures import step_stops
    from clew.reward.countdown_value import exact_value
    from clew.stats.calibration import auc, correlation
    from clew.stats.rank_correlation import spearman

    if not isinstance(policy, LocalPolicy) or any(t.state.problem.task != "countdown" for t in solutions):
        return None
    steps = [(t, stop) for t in solutions for stop in step_stops(t.completion.tokens, policy)]
    rng = random.Random(derive_seed(seed, "measured steps"))
    steps = rng.sample(steps, min(MOST_STEPS, len(steps)))
    if not steps:
        return None
    states = [State(t.state.problem, t.state.tokens[:stop]) for t, stop in steps]
    facts = [state.problem.metadata for state in states]
    exact = [
        exact_value(policy.text(state), fact["numbers"], fact["target"])
        for state, fact in zip(states, facts, strict=True)
    ]
    found = scores(scorer, states)
    share = sum(exact) / len(exact)
    return {
        "spearman": spearman(found, exact),
        "spearman_limit": (3 * share * (1 - share)) ** 0.5,
        "correlation": correlation(found, exact),
        "auc": auc(found, [value == 1 for value in exact]),
        "reachable": share,
        "steps": len(exact),
    }


def _cut(solution: Trajectory, depth: float) -> State:
    """The state when the share `depth` of the solution was written."""
    state = solution.state
    return state if depth >= 1.0 else State(state.problem, state.tokens[: round(depth * len(state.tokens))])
