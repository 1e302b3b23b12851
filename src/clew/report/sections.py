"""The sections of the report that hold figures: each is there when its data are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clew.report import captions, plots
from clew.report.data import Run, SearchPoint
from clew.report.label_section import step_labels
from clew.report.learning_sections import learning, losses, over_optimisation, stability, where_samples_went
from clew.report.loop_section import rounds
from clew.report.section import Section, drawn
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


def sections(run: Run) -> list[Section]:
    """All sections that have something to show, in reading order."""
    makers: tuple[Callable[[Run], Section], ...] = (
        accuracy,
        rounds,
        search,
        step_labels,
        thinking,
        learning,
        behaviours,
        stability,
        where_samples_went,
        over_optimisation,
        losses,
        failures,
        claims,
    )
    return [s for s in (make(run) for make in makers) if s.figures or s.lead or s.table]


def accuracy(run: Run) -> Section:
    """By stage, by k, by difficulty."""
    stages = run.summary.stages
    figures = drawn(
        ("By stage", plots.accuracy_by_stage(stages), captions.accuracy(stages)),
        ("With k samples", plots.pass_at_k(stages), captions.pass_at_k(stages)),
        ("By difficulty", plots.accuracy_by_difficulty(stages), captions.difficulty(stages)),
    )
    return Section(anchor="accuracy", title="Accuracy", figures=figures)


def search(run: Run) -> Section:
    """Test-time scaling, and the numbers behind it."""
    points = run.summary.search
    figures = drawn(
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
    figures = drawn(("Same weights, asked to think and asked not to retry", plots.thinking(stages), caption))
    return Section(anchor="thinking", title="Does thinking pay?", lead=lead, figures=figures)


def behaviours(run: Run) -> Section:
    """Counts by stage, and transition maps of the first and the last stage."""
    stages = run.summary.stages
    with_pairs = [s for s in stages if any(sum(row.values()) > 0 for row in s.transitions.values())]
    ends = with_pairs[:1] + with_pairs[1:][-1:]
    figures = drawn(
        ("How often", plots.behaviours(stages), captions.behaviours(stages)),
        *(
            (f"What follows what, {stage_label(s.name)}", plots.transition_map(s), captions.transitions(s))
            for s in ends
        ),
    )
    return Section(anchor="behaviours", title="Behaviours", figures=figures, layout="first")


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


def _search_table(points: Sequence[SearchPoint]) -> list[list[str]]:
    if not points:
        return []
    used = [k for k in COST_COLUMNS if any(k in p.cost for p in points)]
    rows = [["search", "accuracy (95 % interval)", *(COST_COLUMNS[k] for k in used)]]
    for p in points:
        cells = [NONE if k not in p.cost else f"{p.cost[k]:.3f}" if k == "seconds" else count(p.cost[k]) for k in used]
        rows.append([p.label, f"{percent(p.accuracy.mean)} ({interval(p.accuracy)})", *cells])
    return rows
