"""The figures of a report: data in, SVG text out, one function a figure. Each returns "" when there is nothing to draw.

Every rate is drawn with its 95 % interval: whiskers where sizes are names, bands where they are numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clew.initialize.behaviours import Behaviour
from clew.report.data import Rate, SearchPoint, Stage
from clew.report.palette import BLUE, MARKERS, MUTED, PAPER, SERIES, SLATE, TEXT, VERMILION, Ink, ramp
from clew.report.svg import REGULAR, SMALL, figure_svg, legend_above
from clew.report.words import clipped, count, short, stage_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
POINTS = 300
"""Points drawn of a training curve; more are averaged in runs of equal length."""
FEW = 5
"""Points of a curve below which a running mean would hide them."""


def accuracy_by_stage(stages: Sequence[Stage]) -> str:
    """pass@1 and greedy accuracy of each stage."""
    series = {"one sample (pass@1)": ("pass_at_1", BLUE), "greedy": ("greedy", VERMILION)}
    return _rates_by_stage("accuracy", "Accuracy by stage", stages, series)


def thinking(stages: Sequence[Stage]) -> str:
    """The direct policy, the first attempt of a thinking answer and the whole thinking answer, by stage."""
    series = {
        "thinking (pass@1)": ("pass_at_1", BLUE),
        "its first attempt alone": ("first_attempt", SLATE),
        "direct policy": ("direct", VERMILION),
    }
    if not any("direct" in s.rates or "first_attempt" in s.rates for s in stages):
        return ""
    return _rates_by_stage("thinking", "Thinking against the direct policy", stages, series)


def pass_at_k(stages: Sequence[Stage]) -> str:
    """pass@k against k for every stage, and majority@k of the last one that has it."""
    curves = [(clipped(stage_label(s.name)), s.pass_at_k, ink) for s, ink in _inked(stages) if s.pass_at_k]
    votes = [(clipped(stage_label(s.name)), s.majority_at_k) for s in stages if s.majority_at_k][-1:]
    if not curves and not votes:
        return ""

    def draw(ax: Axes) -> None:
        for label, rates, ink in curves:
            _band(ax, [(float(k), r) for k, r in rates.items()], ink, label)
        for label, rates in votes:
            _band(
                ax,
                [(float(k), r) for k, r in rates.items()],
                VERMILION,
                f"{label}, majority of k",
                marker="s",
                dash=True,
            )
        sizes = sorted({k for _, rates, _ in curves for k in rates} | {k for _, rates in votes for k in rates})
        _log_axis(ax, [float(k) for k in sizes], base=2.0)
        _rate_axis(ax)
        ax.set_xlabel("k, samples per problem")
        legend_above(ax, columns=3)

    return figure_svg("pass-at-k", "pass@k by stage", draw)


def accuracy_by_difficulty(stages: Sequence[Stage]) -> str:
    """pass@1 of each stage in each difficulty bin."""
    shown = [(s, ink) for s, ink in _inked(stages) if s.by_difficulty]
    bins = list(dict.fromkeys(name for s, _ in shown for name in s.by_difficulty))
    if not bins:
        return ""

    def draw(ax: Axes) -> None:
        for i, (stage, ink) in enumerate(shown):
            at = [(b + _offset(i, len(shown)), stage.by_difficulty.get(name)) for b, name in enumerate(bins)]
            _whiskers(ax, at, ink, MARKERS[0], clipped(stage_label(stage.name)))
        _name_axis(ax, bins)
        _rate_axis(ax)
        legend_above(ax)

    return figure_svg("difficulty", "Accuracy by difficulty", draw)


def search_scaling(points: Sequence[SearchPoint]) -> str:
    """Accuracy against tokens processed per problem (log axis), one line a strategy and guidance."""
    lines: dict[str, list[tuple[float, Rate]]] = {}
    for p in points:
        if p.tokens is not None and p.tokens > 0:
            lines.setdefault(p.line, []).append((p.tokens, p.accuracy))
    if not lines:
        return ""

    def draw(ax: Axes) -> None:
        for i, (label, rates) in enumerate(lines.items()):
            ink, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
            _band(ax, sorted(rates), ink, clipped(label), marker=marker)
        _log_axis(ax, sorted(x for rates in lines.values() for x, _ in rates))
        _rate_axis(ax)
        ax.set_xlabel("tokens processed per problem")
        legend_above(ax, columns=3)

    return figure_svg("search", "Accuracy against test-time compute", draw, (9.4, 5.0))


def behaviours(stages: Sequence[Stage]) -> str:
    """How often each behaviour occurs in a response, by stage."""
    shown = [(s, ink) for s, ink in _inked(stages) if s.behaviours]
    if not shown:
        return ""
    names = behaviour_names(stages)

    def draw(ax: Axes) -> None:
        height = 0.8 / len(shown)
        for i, (stage, ink) in enumerate(shown):
            at = [b - 0.4 + (i + 0.5) * height for b in range(len(names))]
            values = [stage.behaviours.get(name, 0.0) for name in names]
            ax.barh(at, values, height=0.86 * height, color=ink.light, label=clipped(stage_label(stage.name)))
        ax.set_yticks(range(len(names)), [clipped(name) for name in names])
        ax.invert_yaxis()
        ax.grid(visible=True, axis="x")
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("times per response")
        legend_above(ax)

    return figure_svg("behaviours", "Behaviours by stage", draw, (6.6, 4.6))


def transition_map(stage: Stage) -> str:
    """Which behaviour follows which: each row is the share of what comes next."""
    if not any(row and sum(row.values()) > 0 for row in stage.transitions.values()):
        return ""
    names = [b.value for b in Behaviour]

    def draw(ax: Axes) -> None:
        for y, source in enumerate(names):
            row = stage.transitions.get(source, {})
            total = sum(row.values())
            for x, target in enumerate(names):
                _cell(ax, x, y, row.get(target, 0.0) / total if total else 0.0)
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_aspect("equal")
        ax.grid(visible=False)
        ax.spines["bottom"].set_visible(False)
        ax.set_xticks(range(len(names)), names, rotation=40, ha="left", rotation_mode="anchor")
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)

    title = f"Transitions after {stage_label(stage.name)}"
    return figure_svg(f"transitions-{_slug(stage.name)}", title, draw, (6.6, 5.7))


def training_curve(name: str, labels: tuple[str, str, str], points: Sequence[Point], *, small: bool = False) -> str:
    """A quantity over training, raw (pale) and as a running mean; `labels`: title, x axis, y axis."""
    if len(points) < 2:
        return ""
    title, xlabel, ylabel = labels
    thin = thinned(points)
    smooth = smoothed(thin)

    def draw(ax: Axes) -> None:
        ax.plot(*zip(*thin, strict=True), color=BLUE.light, alpha=0.3, linewidth=1.0)
        ax.plot(*zip(*smooth, strict=True), color=BLUE.light)
        ax.set_xlabel(xlabel)
        if ylabel in ("accuracy", "reward") and all(0 <= y <= 1 for _, y in thin):
            ax.set_ylim(0, None)
        value_axis(ax, xlabel, [y for _, y in thin], small=small)
        ax.set_title(ylabel, loc="left", color=MUTED.light)

    return figure_svg(name, title, draw, SMALL if small else REGULAR)


def value_axis(ax: Axes, xlabel: str, values: Sequence[float], *, small: bool = False) -> None:
    """Ticks of a curve: steps are whole, and two ticks of a value never read alike."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.margins(x=0.01)
    whole = {"integer": True} if xlabel == "step" else {}
    ax.xaxis.set_major_locator(MaxNLocator(5 if small else 7, steps=[1, 2, 5, 10], **whole))
    ax.yaxis.set_major_locator(MaxNLocator(4 if small else 6, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: tick_text(v, max(values) - min(values))))


def tick_text(value: float, span: float) -> str:
    """`value` in as many digits as ticks over `span` need to differ.

    >>> tick_text(42.85, 0.25), tick_text(0.4, 1.0), tick_text(40512.0, 30000.0)
    ('42.85', '0.4', '40.5 k')
    """
    if span <= 0.0 or abs(value) >= 999.5 or abs(value) < 20 * span:
        return short(value)
    return f"{value:.{min(9, math.ceil(math.log10(abs(value) / span)) + 2)}g}"


def behaviour_names(stages: Sequence[Stage]) -> list[str]:
    """The six behaviours in the order of the roadmap, then any other name that a stage counted."""
    return list(dict.fromkeys([*(b.value for b in Behaviour), *(name for s in stages for name in s.behaviours)]))


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """`points` as at most `most` means of neighbours, in order."""
    run = -(-len(points) // most)
    groups = [points[i : i + run] for i in range(0, len(points), run)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def smoothed(points: Sequence[Point], share: float = 0.05) -> list[Point]:
    """The centred running mean over `share` of the points, its window cut at both ends."""
    if len(points) < FEW:
        return list(points)
    half = max(1, round(share * len(points) / 2))
    windows = (points[max(0, i - half) : i + half + 1] for i in range(len(points)))
    # x is averaged too: otherwise a cut window would pull a slope's ends off its line.
    return [(sum(x for x, _ in w) / len(w), sum(y for _, y in w) / len(w)) for w in windows]


def _rates_by_stage(name: str, title: str, stages: Sequence[Stage], series: Mapping[str, tuple[str, Ink]]) -> str:
    shown = [s for s in stages if any(key in s.rates for key, _ in series.values())]
    used = {label: v for label, v in series.items() if any(v[0] in s.rates for s in shown)}
    if not shown:
        return ""

    def draw(ax: Axes) -> None:
        for i, (label, (key, ink)) in enumerate(used.items()):
            at = [(x + _offset(i, len(used)), s.rates.get(key)) for x, s in enumerate(shown)]
            _whiskers(ax, at, ink, MARKERS[i], label, values=True)
        _name_axis(ax, [stage_label(s.name) for s in shown])
        _rate_axis(ax)
        legend_above(ax)

    return figure_svg(name, title, draw, REGULAR)


def _whiskers(
    ax: Axes, at: Sequence[tuple[float, Rate | None]], ink: Ink, marker: str, label: str, *, values: bool = False
) -> None:
    kept = [(x, r) for x, r in at if r is not None]
    for x, r in kept:
        ax.plot([x, x], [r.low, r.high], color=ink.light, linewidth=1.6)
        if values:
            ax.annotate(
                f"{100 * r.mean:.0f}", (x, r.mean), xytext=(6, -3.5), textcoords="offset points", color=ink.light
            )
    ax.plot([x for x, _ in kept], [r.mean for _, r in kept], marker, color=ink.light, markersize=6, label=label)


def _band(
    ax: Axes, rates: Sequence[tuple[float, Rate]], ink: Ink, label: str, *, marker: str = "o", dash: bool = False
) -> None:
    xs = [x for x, _ in rates]
    ax.fill_between(xs, [r.low for _, r in rates], [r.high for _, r in rates], color=ink.light, alpha=0.16, linewidth=0)
    for x, r in rates:
        ax.plot([x, x], [r.low, r.high], color=ink.light, linewidth=1.0, alpha=0.6)
    style = (0, (4, 2)) if dash else "-"
    ax.plot(
        xs, [r.mean for _, r in rates], color=ink.light, marker=marker, markersize=4.5, linestyle=style, label=label
    )


def _cell(ax: Axes, x: int, y: int, share: float) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, color=BLUE.light, alpha=0.05 + 0.85 * share, linewidth=0))
    if share >= 0.005:
        ink = PAPER if share > 0.55 else TEXT
        ax.text(x, y, f"{100 * share:.0f}", ha="center", va="center", color=ink.light)


def _rate_axis(ax: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    ax.set_ylim(0, 1.02)
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _name_axis(ax: Axes, names: Sequence[str]) -> None:
    ax.set_xticks(range(len(names)), [clipped(name, 84 // len(names)) for name in names])
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.tick_params(axis="x", length=0)


def _log_axis(ax: Axes, values: Sequence[float], base: float = 10.0) -> None:
    """A log axis with ticks at the values themselves (base 2) or at 1, 2, 5 times powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = values[0], values[-1]
    steps = [m * 10.0**e for e in range(-1, 12) for m in (1, 2, 5)]
    ticks = list(values) if base == 2.0 else [t for t in steps if low / 1.3 <= t <= high * 1.3]
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: count(v).replace(".00", "").replace(".0 ", " ")))
    ax.set_xlim(low / 1.25, high * 1.25)


def _inked(stages: Sequence[Stage]) -> list[tuple[Stage, Ink]]:
    return list(zip(stages, ramp(len(stages)), strict=True))


def _offset(i: int, n: int) -> float:
    return (i - (n - 1) / 2) * min(0.22, 0.7 / max(n, 1))


def _slug(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)
