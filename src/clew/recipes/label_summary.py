"""What is told of labelled steps: how many, of what, at what cost; for Countdown how they agree with V*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from clew.data.step_labels import StepLabels
    from clew.recipes.reward_label import LabelConfig


FIFTHS = 5


def summarise(config: LabelConfig, labels: Sequence[StepLabels]) -> dict[str, Any]:
    """`summary.json`: how many labels, of what, at what cost; for Countdown how they agree with V*."""
    from clew.core.cost import Cost

    cost = sum((one.cost for one in labels), Cost())
    known = [label for one in labels for label in one.labels if label is not None]
    first = [one.first_wrong for one in labels if one.first_wrong is not None]
    return {
        "method": config.method,
        "task": config.task,
        "seed": config.seed,
        "solutions": len(labels),
        "steps": sum(len(one.steps) for one in labels),
        "labels": len(known),
        "labels_that_count": sum(weight > 0 for one in labels for weight in one.weights),
        "mean_label": sum(known) / len(known) if known else None,
        "solutions_with_a_wrong_step": len(first),
        "unscored_rollouts": sum(one.unscored for one in labels),
        "cost": {**asdict(cost), "tokens": cost.tokens},
        "along": along(labels),
        **against_exact_value(labels, cost),
    }


def along(labels: Sequence[StepLabels]) -> dict[str, list[tuple[float, float]]]:
    """Mean label by place in the solution, from 0 to 1 in fifths, of right and of wrong solutions."""
    of: dict[str, dict[int, list[float]]] = {"right": {}, "wrong": {}}
    for one in labels:
        if one.outcome in of:
            for at, label in enumerate(one.labels):
                if label is not None:
                    of[one.outcome].setdefault(FIFTHS * at // len(one.labels), []).append(label)
    return {
        outcome: [((fifth + 0.5) / FIFTHS, sum(found) / len(found)) for fifth, found in sorted(places.items())]
        for outcome, places in of.items()
        if places
    }


def against_exact_value(labels: Sequence[StepLabels], cost: Any) -> dict[str, Any]:
    """How good the labels that count are against V*, whole solutions left out; None for a task without a solver.

    `exact_value`: measures of an estimator. `reliability`: bins of labels and how often V* was 1.
    """
    from clew.reward.countdown_value import exact_value
    from clew.reward.estimator_quality import Reference, estimator_quality
    from clew.stats.calibration import calibration_bins

    nothing = {"exact_value": None, "reliability": None}
    found, exact = [], []
    for one in labels:
        facts = one.problem.metadata
        if one.problem.task != "countdown" or not {"numbers", "target"} <= facts.keys():
            return nothing
        for at in range(len(one.steps) - 1):
            value = one.labels[at]
            if value is not None and one.weights[at]:
                found.append(value)
                exact.append(float(exact_value("".join(one.steps[: at + 1]), facts["numbers"], facts["target"])))
    if not found:
        return nothing
    quality = estimator_quality(found, Reference(values=tuple(exact)), cost)
    bins = [one._asdict() for one in calibration_bins(found, exact)]
    return {"exact_value": asdict(quality), "reliability": bins}


def table(summary: dict[str, Any], path: Path) -> Table:
    """One screen: how many labels there are, and what they cost."""
    from rich import box
    from rich.table import Table

    # A title would be folded to the width of the rows.
    shown = Table(box=box.SIMPLE, show_header=False)
    shown.add_row("labels", f"{summary['method']}, of {summary['task']}")
    shown.add_row("file", str(path))
    names = {"labels": "steps with a label"}
    for name in ("solutions", "steps", "labels", "labels_that_count", "mean_label", "solutions_with_a_wrong_step"):
        value = summary[name]
        shown.add_row(
            names.get(name, name.replace("_", " ")), f"{value:.3f}" if isinstance(value, float) else str(value)
        )
    for name in ("unscored_rollouts", "skipped"):
        if summary.get(name):
            shown.add_row(name.replace("_", " "), str(summary[name]))
    for name, what in {"model_calls": "roll-outs", "tokens": "tokens sampled and read"}.items():
        shown.add_row(what, f"{summary['cost'][name]:,}")
    if summary["exact_value"]:
        shown.add_row("rank correlation with V*", f"{summary['exact_value']['spearman']:.3f}")
    return shown
