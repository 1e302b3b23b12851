"""The sections of the report that hold figures: each is there when its data are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clew.report import captions, loop_plot, plots
from clew.report.data import Run, SearchPoint, number
from clew.report.parting_plot import WatchPoint, proxy_and_truth, told
from clew.report.words import NONE, count, interval, percent, stage_label

COST_COLUMNS = {
    "tokens_sampled": "sampled",
    "prompt_tokens_read": "prompt read",
    "prompt_tokens_cached": "from cache",
    "scorer_tokens": "scorer",
    "verifier_calls": "verifier calls",
    "model_calls": "model calls",
    "seconds": "seconds",
}
SMALL_MULTIPLES = {
    "entropy": "entropy, nats per token",
    "kl": "KL to the reference, nats",
    "grad_norm": "gradient norm",
    "groups_dropped": "groups dropped",
    "tokens_per_second": "tokens per second",
    "lr": "learning rate",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure, its title and the sentence under it."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    anchor: str
    title: str
    lead: str = ""
    figures: tuple[Figure, ...] = ()
    layout: str = "two"
    """CSS class of the figure grid: `one` wide, `two` columns, `first` alone and then two, `small` multiples."""
    table: Sequence[Sequence[str]] = ()
    table_title: str = ""
    table_class: str = ""
    """`prose` where the cells are sentences."""


def sections(run: Run) -> list[Section]:
    """All sections that have something to show, in reading order."""
    makers: tuple[Callable[[Run], Section], ...] = (
        accuracy,
        rounds,
        search,
        thinking,
        learning,
        behaviours,
        stability,
        over_optimisation,
        losses,
        failures,
        claims,
    )
    return [s for s in (make(run) for make in makers) if s.figures or s.lead or s.table]


def rounds(run: Run) -> Section:
    """Of `clew loop`: the pass rate against all that searching and learning cost."""
    points = loop_plot.round_points(run.metrics)
    figures = _drawn(("Round by round", loop_plot.pass_rate_over_compute(points), loop_plot.told(points)))
    return Section(anchor="rounds", title="Search and learning", figures=figures, layout="one")


def accuracy(run: Run) -> Section:
    """By stage, by k, by difficulty."""
    stages = run.summary.stages
    figures = _drawn(
        ("By stage", plots.accuracy_by_stage(stages), captions.accuracy(stages)),
        ("With k samples", plots.pass_at_k(stages), captions.pass_at_k(stages)),
        ("By difficulty", plots.accuracy_by_difficulty(stages), captions.difficulty(stages)),
    )
    return Section(anchor="accuracy", title="Accuracy", figures=figures)


def search(run: Run) -> Section:
    """Test-time scaling, and the numbers behind it."""
    points = run.summary.search
    figures = _drawn(
        (
            "Accuracy against tokens spent",
            plots.search_scaling(points),
            captions.search(points, run.summary.stages),
        )
    )
    table = _search_table(points)
    return Section(
        anchor="search",
        title="Test-time search",
        figures=figures,
        layout="one",
        table=table,
        table_title="Every search, with its mean cost per problem",
    )


def thinking(run: Run) -> Section:
    """Thinking against the direct policy of the same weights."""
    stages = run.summary.stages
    claim = next((c for c in run.summary.claims if c.name == "thinking"), None)
    last = next((s for s in reversed(stages) if {"pass_at_1", "direct"} <= s.rates.keys()), None)
    pair = None
    if claim is not None and {"think", "direct"} <= claim.rates.keys():
        pair = claim.rates["think"], claim.rates["direct"]
    elif last is not None:
        pair = last.rates["pass_at_1"], last.rates["direct"]
    lead = captions.thinking(*pair) if pair else ""
    if lead and claim is not None and claim.note:
        lead += f" The run notes: {claim.note.strip()}"
    caption = (
        "Thinking may propose, check and retry; the direct policy is the same weights asked not to retry, which "
        "they do not always heed; a policy trained on direct answers alone is a run of its own. "
        "Whiskers are 95 % intervals."
    )
    figures = _drawn(("Same weights, asked to think and asked not to retry", plots.thinking(stages), caption))
    return Section(anchor="thinking", title="Does thinking pay?", lead=lead, figures=figures)


def learning(run: Run) -> Section:
    """Reward over steps and over time, and length over training, of the last stage that learns from reward."""
    stage, key = _reward_stage(run)
    if not stage:
        return Section(anchor="learning", title="Learning curve")
    rows = _rows(run, stage)
    steps, times = series(rows, "step", key), series(rows, "seconds", key)
    lengths = series(rows, "step", "length")
    name = stage_label(stage)
    minutes = [(x / 60, y) for x, y in times]
    what = f"training {key} in {name}"
    figures = _drawn(
        (f"{key.capitalize()} over steps", _curve("curve-steps", "step", key, steps), _said(what, steps)),
        (f"{key.capitalize()} over time", _curve("curve-time", "minutes", key, minutes), _said(what, minutes)),
        (
            "Response length",
            _curve("curve-length", "step", "tokens per response", lengths),
            _said(f"the mean response in {name}", lengths, " tokens"),
        ),
    )
    unscored = sum(y for _, y in series(rows, "step", "unscored"))
    lead = captions.CURVES if figures else ""
    if unscored:
        lead += f" {count(unscored)} answers could not be scored and are left out of the rewards."
    return Section(anchor="learning", title="Learning curve", lead=lead, figures=figures)


def behaviours(run: Run) -> Section:
    """Counts by stage, and transition maps of the first and the last stage."""
    stages = run.summary.stages
    with_pairs = [s for s in stages if any(sum(row.values()) > 0 for row in s.transitions.values())]
    ends = with_pairs[:1] + with_pairs[1:][-1:]
    figures = _drawn(
        ("How often", plots.behaviours(stages), captions.behaviours(stages)),
        *(
            (f"What follows what, {stage_label(s.name)}", plots.transition_map(s), captions.transitions(s))
            for s in ends
        ),
    )
    return Section(anchor="behaviours", title="Behaviours", figures=figures, layout="first")


def stability(run: Run) -> Section:
    """Entropy, KL, gradient norm and their like, of the stage that learns from reward."""
    stage, _ = _reward_stage(run)
    rows = _rows(run, stage) if stage else []
    drawn = []
    for key, label in SMALL_MULTIPLES.items():
        points = series(rows, "step", key)
        name, _, unit = label.partition(", ")
        drawn.append((_title(name), _curve(f"health-{key}", "step", unit, points, small=True), _said(name, points)))
    figures = _drawn(*drawn)
    lead = captions.CURVES if figures else ""
    return Section(anchor="stability", title="Health of the training", lead=lead, figures=figures, layout="small")


def over_optimisation(run: Run) -> Section:
    """The looks at held-out problems of the stage that watched what it optimises, if one did."""
    wanted = ("step", "kl_response", "proxy", "truth", "parted")
    found = ([n for name in wanted if (n := number(row.get(name))) is not None] for row in run.metrics)
    points = [
        WatchPoint(int(step), max(kl, 0.0) ** 0.5, proxy, truth, parted > 0)
        for step, kl, proxy, truth, parted in (row for row in found if len(row) == len(wanted))
    ]
    figures = _drawn(("Reward optimised and reward wanted", proxy_and_truth(points), told(points) if points else ""))
    return Section(anchor="over-optimisation", title="Over-optimisation", figures=figures, layout="one")


def losses(run: Run) -> Section:
    """Loss curves of the stages that imitate; the surrogate loss of policy gradients says nothing and is not drawn."""
    reward_stage, _ = _reward_stage(run)
    names = list(dict.fromkeys(str(row.get("stage", "")) for row in run.metrics))
    drawn = []
    for i, name in enumerate(n for n in names if n != reward_stage):
        points = series(_rows(run, name), "step", "loss")
        label = stage_label(name)
        said = _said(f"the loss of {label}", points)
        drawn.append((_title(label), _curve(f"loss-{i}", "step", "nats per token", points, small=True), said))
    return Section(anchor="loss", title="Loss", figures=_drawn(*drawn), layout="small")


def failures(run: Run) -> Section:
    """Why the verifier refused the last stage's answers."""
    last = next((s for s in reversed(run.summary.stages) if s.verdict_reasons), None)
    if last is None:
        return Section(anchor="failures", title="How it fails")
    found = captions.reasons(last.verdict_reasons)
    rows = [["the verifier's reason (# is a number)", "times", "share"]]
    rows += [[reason, f"{n:,}", percent(share)] for reason, n, share in found]
    lead = f"What the verifier said of the answers of {stage_label(last.name)}, the commonest first."
    return Section(
        anchor="failures", title="What the verifier said", lead=lead if found else "", table=rows if found else ()
    )


def claims(run: Run) -> Section:
    """What else the run set out to show."""
    rest = [c for c in run.summary.claims if c.name != "thinking"]
    rows = [["claim", "held", "numbers", "note"]] if rest else []
    for claim in rest:
        held = {True: "yes", False: "no", None: "not decided"}[claim.holds]
        numbers = "; ".join(f"{stage_label(k)} {percent(r.mean)} ({interval(r)})" for k, r in claim.rates.items())
        rows.append([stage_label(claim.name), held, numbers or NONE, claim.note or NONE])
    return Section(anchor="claims", title="Claims", table=rows, table_class="prose")


def series(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> list[plots.Point]:
    """The finite (x, y) pairs of `rows`, in order."""
    pairs = ((number(row.get(x)), number(row.get(y))) for row in rows)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def _reward_stage(run: Run) -> tuple[str, str]:
    """The last stage with a reward or accuracy at its steps, and which of the two; empty without one."""
    for key in ("accuracy", "reward"):
        names = [str(row.get("stage", "")) for row in run.metrics if number(row.get(key)) is not None]
        if names:
            return names[-1], key
    return "", ""


def _rows(run: Run, stage: str) -> list[Mapping[str, Any]]:
    return [row for row in run.metrics if str(row.get("stage", "")) == stage]


def _curve(name: str, xlabel: str, ylabel: str, points: Sequence[plots.Point], *, small: bool = False) -> str:
    return plots.training_curve(name, (f"{ylabel} against {xlabel}", xlabel, ylabel), points, small=small)


def _said(what: str, points: Sequence[plots.Point], unit: str = "") -> str:
    return captions.curve(what, points, unit) if points else ""


def _drawn(*figures: tuple[str, str, str]) -> tuple[Figure, ...]:
    return tuple(Figure(title=title, svg=svg, caption=caption) for title, svg, caption in figures if svg)


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]


def _search_table(points: Sequence[SearchPoint]) -> list[list[str]]:
    if not points:
        return []
    used = [k for k in COST_COLUMNS if any(k in p.cost for p in points)]
    rows = [["search", "accuracy (95 % interval)", *(COST_COLUMNS[k] for k in used)]]
    for p in points:
        cells = [NONE if k not in p.cost else f"{p.cost[k]:.3f}" if k == "seconds" else count(p.cost[k]) for k in used]
        rows.append([p.label, f"{percent(p.accuracy.mean)} ({interval(p.accuracy)})", *cells])
    return rows
