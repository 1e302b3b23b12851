"""Sections of training: rewards, pass@k, what preferences move, health, over-optimisation, losses, lost samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clew.report import captions, plots
from clew.report.data import Run, number
from clew.report.parting_plot import WatchPoint, proxy_and_truth, told
from clew.report.section import Figure, Section, capitalised, curve, drawn, reward_stage, rows_of, said, series
from clew.report.several_curves import several_curves
from clew.report.words import count, listed, short, stage_label

HEALTH = {
    "entropy": "entropy, nats per token",
    "kl": "KL to the reference, nats per token",
    "kl_penalised": "KL that is penalised, nats per response",
    "kl_coefficient": "KL coefficient",
    "ratio_off": "sampler against trainer, worst token's ratio minus 1",
    "ess": "effective sample size, share of tokens",
    "clipped": "clipped, share of tokens",
    "reference_point": "reference point of KTO, nats per response",
    "chosen_logprob": "log-prob of the chosen, nats per token",
    "behind_mean": "updates that tokens are behind",
    "grad_norm": "gradient norm",
    "repetition": "repetition, share of repeated 3-grams",
    "truncated": "truncated, share of responses",
    "groups_dropped": "groups dropped",
    "tokens_per_second": "tokens per second",
    "lr": "learning rate",
}
"""Metrics that are watched, with their unit after a comma."""
ALARM = "alarm_"
ACCOUNT = {
    "samples": "samples in all",
    "samples_learnt": "learnt from",
    "samples_without_advantage": "without an advantage",
    "samples_rejected": "in groups that were rejected and drawn anew",
    "samples_masked": "masked by the correction for another policy",
    "samples_unscored": "that nobody could judge",
    "samples_dropped": "dropped for their age",
    "samples_waiting": "not yet ended when the run did",
    "groups": "groups",
    "groups_rejected": "groups rejected",
    "prompts_too_long": "prompts longer than the context",
    "updates": "updates",
    "updates_skipped": "updates with nothing to learn from",
}
STEADY = 1e-3
"""A curve that moves by less than this share of its level is told in words instead."""


def learning(run: Run) -> Section:
    """Reward over steps and over time, pass@k and length, of the last stage that learns from reward or preferences."""
    stage, key = reward_stage(run)
    if not stage:
        return Section(anchor="learning", title="Learning curve")
    rows = rows_of(run, stage)
    name = stage_label(stage)
    preferences = any("reward_margin" in row for row in rows)
    figures = _of_preferences(rows, name) if preferences else _of_rewards(rows, name, key)
    unscored = sum(y for _, y in series(rows, "step", "unscored"))
    lead = captions.CURVES if figures else ""
    if unscored:
        lead += f" {count(unscored)} answers could not be scored and are left out of the rewards."
    return Section(anchor="learning", title="Learning curve", lead=lead, figures=figures)


def _of_rewards(rows: Sequence[Mapping[str, Any]], name: str, key: str) -> tuple[Figure, ...]:
    steps, times = series(rows, "step", key), series(rows, "seconds", key)
    lengths = series(rows, "step", "length")
    minutes = [(x / 60, y) for x, y in times]
    what = f"training {key} in {name}"
    coverage = pass_rates(rows)
    return drawn(
        (f"{key.capitalize()} over steps", curve("curve-steps", "step", key, steps), said(what, steps)),
        (f"{key.capitalize()} over time", curve("curve-time", "minutes", key, minutes), said(what, minutes)),
        (
            "Pass@k over steps",
            several_curves("curve-pass", ("pass@k of the training problems", "step", "solved"), coverage),
            " ".join(said(f"{label} of the training problems", points) for label, points in coverage.items()),
        ),
        (
            "Response length",
            curve("curve-length", "step", "tokens per response", lengths),
            said(f"the mean response in {name}", lengths, " tokens"),
        ),
    )


def _of_preferences(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[Figure, ...]:
    lines = {
        "chosen": series(rows, "step", "reward_chosen"),
        "rejected": series(rows, "step", "reward_rejected"),
    }
    margins, right = series(rows, "step", "reward_margin"), series(rows, "step", "accuracy")
    loss = series(rows, "step", "loss")
    return drawn(
        (
            "Rewards of chosen and rejected",
            several_curves("curve-rewards", ("implicit rewards", "step", "implicit reward"), lines),
            " ".join(said(f"the implicit reward of the {label}", points) for label, points in lines.items()),
        ),
        ("Margin", curve("curve-margin", "step", "chosen minus rejected", margins), said("their difference", margins)),
        (
            "Told apart",
            curve("curve-steps", "step", "accuracy", right),
            said(f"the share on the right side in {name}", right),
        ),
        ("Loss", curve("curve-loss", "step", "loss", loss), said(f"the loss of {name}", loss)),
    )


def pass_rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[plots.Point]]:
    """pass@1 and pass@k of the largest k that was measured throughout; sharpening is the first up, the other down."""
    sizes = {int(key[8:]) for row in rows for key in row if key.startswith("pass_at_") and key[8:].isdecimal()}
    if len(sizes) < 2:
        return {}
    found = {k: series(rows, "step", f"pass_at_{k}") for k in sorted(sizes)}
    most = max((k for k in sizes if 2 * len(found[k]) > len(found[1])), default=1) if 1 in found else 1
    return {f"pass@{k}": found[k] for k in (1, most)} if most > 1 else {}


def stability(run: Run) -> Section:
    """Entropy, KL, sampler against trainer and their like, of what learns from reward or preferences."""
    stage, _ = reward_stage(run)
    rows = rows_of(run, stage) if stage else rounds_on_end(run)
    figures, steady = [], []
    for key, label in HEALTH.items():
        points = series(rows, "step", key)
        name, _, unit = label.partition(", ")
        values = [y for _, y in points]
        if len(values) > 1 and max(values) - min(values) <= STEADY * max(map(abs, values)):
            steady.append(f"{name} {short(values[-1])}")
            continue
        figures.append(
            (capitalised(name), curve(f"health-{key}", "step", unit, points, small=True), said(name, points))
        )
    found = drawn(*figures)
    lead = captions.CURVES if found else ""
    if steady:
        lead += f" Steady throughout: {listed(steady)}."
    return Section(
        anchor="stability",
        title="Health of the training",
        lead=f"{lead} {alarms(rows)}".strip(),
        figures=found,
        layout="small",
    )


def rounds_on_end(run: Run) -> list[Mapping[str, Any]]:
    """The updates of all rounds of a loop that took a policy gradient, one after another; empty for other runs."""
    rows = [row for row in run.metrics if row.get("learner") == "rl"]
    return [{**row, "step": at} for at, row in enumerate(rows)]


def alarms(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which alarms rang, and when first."""
    first: dict[str, float] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith(ALARM) and number(value) and (step := number(row.get("step"))) is not None:
                first.setdefault(key.removeprefix(ALARM), step)
    if not first:
        return ""
    rung = listed([f"{name} at step {step:.0f}" for name, step in first.items()])
    return f"Alarms that rang, each at its first time: {rung}."


def where_samples_went(run: Run) -> Section:
    """What became of every sample of a run of policy gradients."""
    section = Section(anchor="account", title="Where every sample went")
    total = run.account.get("samples", 0.0)
    if not total:
        return section
    rows = [["", "number", "share of the samples"]]
    for key, label in ACCOUNT.items():
        if value := run.account.get(key):
            share = f"{100 * value / total:.1f} %" if key.startswith("samples_") else ""
            rows.append([label, f"{value:,.0f}", share])
    return Section(anchor=section.anchor, title=section.title, table=rows)


def over_optimisation(run: Run) -> Section:
    """The looks at held-out problems of the stage that watched what it optimises, if one did."""
    wanted = ("step", "kl_response", "proxy", "truth", "parted")
    found = ([n for name in wanted if (n := number(row.get(name))) is not None] for row in run.metrics)
    points = [
        WatchPoint(int(step), max(kl, 0.0) ** 0.5, proxy, truth, parted > 0)
        for step, kl, proxy, truth, parted in (row for row in found if len(row) == len(wanted))
    ]
    figures = drawn(("Reward optimised and reward wanted", proxy_and_truth(points), told(points) if points else ""))
    return Section(anchor="over-optimisation", title="Over-optimisation", figures=figures, layout="one")


def losses(run: Run) -> Section:
    """Loss curves of the stages that imitate; the surrogate loss of policy gradients says nothing and is not drawn."""
    of_reward, _ = reward_stage(run)
    names = list(dict.fromkeys(str(row.get("stage", "")) for row in run.metrics))
    figures = []
    for i, name in enumerate(n for n in names if n != of_reward):
        points = series([row for row in rows_of(run, name) if row.get("learner") != "rl"], "step", "loss")
        label = stage_label(name)
        text = said(f"the loss of {label}", points)
        figures.append((capitalised(label), curve(f"loss-{i}", "step", "nats per token", points, small=True), text))
    return Section(anchor="loss", title="Loss", figures=drawn(*figures), layout="small")
