"""The section of labelled steps: what they say along a solution, whether they are true, and how many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clew.report.data import Run, number
from clew.report.label_plots import labels_along, reliability
from clew.report.section import Section, drawn
from clew.report.words import count, percent, short
from clew.stats.calibration import CalibrationBin

COUNTED = {
    "solutions": "solutions",
    "steps": "steps",
    "labels": "steps with a label",
    "labels_that_count": "labels that count, the others stand in another solution too",
    "solutions_with_a_wrong_step": "solutions with a wrong step",
    "unscored_rollouts": "roll-outs that nobody could judge",
}


def step_labels(run: Run) -> Section:
    """Of `clew reward label`."""
    labels = run.summary.labels
    section = Section(anchor="labels", title="Step labels")
    if not labels:
        return section
    bins = reliability_bins(labels.get("reliability"))
    lines = along(labels.get("along"))
    figures = drawn(
        ("Along a solution", labels_along(lines), _told_along(lines)),
        ("Against the true value", reliability({"labels": bins}), _told_reliability(labels, bins)),
    )
    rows = [["", "number"]]
    rows += [[label, f"{n:,.0f}"] for key, label in COUNTED.items() if (n := number(labels.get(key))) is not None]
    if (mean := number(labels.get("mean_label"))) is not None:
        rows.append(["mean label", short(mean)])
    cost = labels.get("cost")
    if isinstance(cost, Mapping) and (tokens := number(cost.get("tokens"))):
        rows.append(["tokens sampled and read", count(tokens)])
    lead = f"Labels of {labels.get('task', 'a task')}, made by {labels.get('method', 'hand')}."
    return Section(anchor=section.anchor, title=section.title, lead=lead, figures=figures, table=rows)


def reliability_bins(raw: object) -> list[CalibrationBin]:
    """The bins that the summary tells; those that are damaged are left out."""
    found = []
    for one in raw if isinstance(raw, list) else []:
        values = [number(one.get(name)) for name in CalibrationBin._fields] if isinstance(one, Mapping) else []
        low, high, predicted, observed, n = values or [None] * 5
        if low is None or high is None or predicted is None or observed is None or n is None:
            continue
        found.append(CalibrationBin(low, high, predicted, observed, int(n)))
    return found


def along(raw: object) -> dict[str, list[tuple[float, float]]]:
    """(place from 0 to 1, mean label) of right and wrong solutions."""
    if not isinstance(raw, Mapping):
        return {}
    return {str(name): points for name, found in raw.items() if (points := _points(found))}


def _points(raw: object) -> list[tuple[float, float]]:
    pairs = [pair for pair in raw if isinstance(pair, Sequence) and len(pair) == 2] if isinstance(raw, list) else []
    numbers = [(number(x), number(y)) for x, y in pairs]
    return [(x, y) for x, y in numbers if x is not None and y is not None]


def _told_along(lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    parts = [f"of {name} ones from {short(p[0][1])} to {short(p[-1][1])}" for name, p in lines.items() if p]
    return f"The mean label from the first fifth of a solution to the last: {', '.join(parts)}." if parts else ""


def _told_reliability(labels: Mapping[str, Any], bins: Sequence[CalibrationBin]) -> str:
    exact = labels.get("exact_value")
    rank = number(exact.get("spearman")) if isinstance(exact, Mapping) else None
    steps = sum(one.n for one in bins)
    off = sum(one.n * abs(one.predicted - one.observed) for one in bins) / steps if steps else 0.0
    text = f"Over {steps:,} steps the labels are off by {percent(off)} in the mean of the bins"
    text += "" if rank is None else f"; their rank correlation with the truth is {short(rank)}"
    truth = "The truth is whether the step can still lead to a solution; labels by a policy that misses some lie above."
    return f"{text}. {truth}"
