"""How good a process reward model is: does it order, is it calibrated, does it agree with V*, does it choose well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clew.core.types import State

if TYPE_CHECKING:
    from transformers import Qwen3ForTokenClassification

    from clew.core.types import Group
    from clew.models.policy import LocalPolicy
    from clew.reward.fit import Labelled

DEPTHS = (0.25, 0.5, 0.75, 1.0)
"""Shares of a solution after which predictions are measured."""


def measure(
    model: Qwen3ForTokenClassification, groups: Sequence[Group], examples: Sequence[Labelled], policy: LocalPolicy
) -> dict[str, Any]:
    """How good the model is on the solutions of `groups`, which `examples` are: ordering, calibration, choosing."""
    from clew.reward.fit import probabilities
    from clew.stats.calibration import auc, calibration_bins, calibration_error

    probs = probabilities(model, examples)
    right = [example.labels[0] > 0.5 for example in examples]
    at_depth = {f"{depth:g}": [row[round(depth * (len(row) - 1))] for row in probs] for depth in DEPTHS}
    bins = calibration_bins([p for row in probs for p in row], [y for example in examples for y in example.labels])
    return {
        "base_rate": sum(right) / len(right),
        "auc": {depth: auc(values, right) for depth, values in at_depth.items()},
        "calibration": [b._asdict() for b in bins],
        "calibration_error": calibration_error(bins),
        "exact_value": against_exact_values(groups, probs, policy),
        "choosing": choosing(groups, [row[-1] for row in probs]),
    }


def against_exact_values(
    groups: Sequence[Group], probs: Sequence[Sequence[float]], policy: LocalPolicy
) -> dict[str, float] | None:
    """Agreement of P(right) with V* after each step of a line of thought; None for a task without a solver of V*."""
    from clew.reward.countdown_value import exact_value
    from clew.stats.calibration import auc, correlation
    from clew.stats.rank_correlation import spearman

    predicted, exact = [], []
    for trajectory, row in zip((t for group in groups for t in group.scored), probs, strict=True):
        facts = trajectory.state.problem.metadata
        if trajectory.state.problem.task != "countdown":
            return None
        tokens = trajectory.completion.tokens
        for stop in step_stops(tokens, policy):
            text = policy.text(State(trajectory.state.problem, tokens[:stop]))
            predicted.append(row[stop])
            exact.append(exact_value(text, facts["numbers"], facts["target"]))
    reachable = [value == 1 for value in exact]
    return {
        "correlation": correlation(predicted, exact),
        "spearman": spearman(predicted, exact),
        "auc": auc(predicted, reachable),
        "reachable": sum(reachable) / len(reachable),
        "steps": len(exact),
    }


def step_stops(tokens: Sequence[int], policy: LocalPolicy) -> list[int]:
    """Tokens of a thought after which a step's result stands: those that hold a `=`, before the answer."""
    stops = []
    for at, token in enumerate(tokens):
        piece = policy.codec.decode((token,))
        if "answer" in piece:
            break
        if "=" in piece and any(character.isdigit() for character in piece):
            stops.append(at + 1)
    return stops


def choosing(groups: Sequence[Group], values: Sequence[float]) -> dict[str, Any]:
    """How often the solution chosen among those of a problem is right, by this model and without it."""
    from clew.stats.intervals import wilson
    from clew.stats.vote import majority_vote, weighted_vote

    rest = iter(values)
    rules: dict[str, list[bool]] = {}
    for group in groups:
        tries = group.scored
        if not tries:
            continue
        answers = [t.verdict.answer for t in tries]
        scores = [next(rest) for _ in tries]
        right_answers = {t.verdict.answer for t in tries if t.verdict.right}
        likely = [sum(t.completion.logprobs or (0.0,)) / len(t.completion.tokens) for t in tries]
        found = {
            "first": tries[0].verdict.right,
            "mean-logprob": tries[likely.index(max(likely))].verdict.right,
            "majority-vote": majority_vote(answers) in right_answers - {None},
            "best-of-n": tries[scores.index(max(scores))].verdict.right,
            "weighted-vote": weighted_vote(answers, scores) in right_answers - {None},
            "any": bool(right_answers),
        }
        for rule, right in found.items():
            rules.setdefault(rule, []).append(right)
    return {rule: wilson(sum(rights), len(rights)).as_dict() for rule, rights in rules.items()}
