"""The figure of `clew bench algorithms`: a small panel a name over updates, and all of them over tokens sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clew.report.palette import BLUE, MUTED, RULE, SERIES, TEXT, Ink
from clew.report.plots import Point
from clew.report.svg import sheet_svg
from clew.report.words import count, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 5
HEADS = ("pass@1 on held-out problems after equal updates", "the same when equally many tokens had been sampled")
DEARER = 1.25
"""Times the tokens of the median name, from which a name is told apart in the panel of tokens."""


def learning_curves(measured: Mapping[str, Any]) -> str:
    """pass@1 of each name, best first, every other name pale behind it; below, all against the tokens sampled."""
    names: Sequence[str] = measured["at_the_end"]["order"]
    curves = {name: measured["algorithms"][name]["curve"] for name in names}
    rows = -(-len(names) // COLUMNS)
    title = f"pass@1 of {len(names)} algorithms over {measured['updates']} updates"

    def draw(figure: Figure) -> None:
        _spaced(figure)
        figure.suptitle(HEADS[0], x=0.051, ha="left", color=MUTED.light, fontsize=11.0)
        grid = figure.add_gridspec(rows + 1, COLUMNS, height_ratios=[1.0] * rows + [1.75])
        limits = _limits(curves)
        for place, name in enumerate(names):
            ax = figure.add_subplot(grid[divmod(place, COLUMNS)])
            _panel(ax, name, curves)
            _rate_axis(ax, limits, labelled=place % COLUMNS == 0)
            _update_axis(ax, curves[name], labelled=place + COLUMNS >= len(names))
        below = figure.add_subplot(grid[rows, :])
        _over_tokens(below, curves)
        _rate_axis(below, limits, labelled=True)

    return sheet_svg("algorithms", title, draw, (10.8, 1.6 * rows + 3.3))


def _spaced(figure: Figure) -> None:
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.12, h_pad=0.09, wspace=0.02, hspace=0.02)  # type: ignore[call-arg]


def _panel(ax: Axes, name: str, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for other, curve in curves.items():
        if other != name:
            ax.plot(*_line(curve, "updates"), color=RULE.light, linewidth=1.0)
    xs, means = _line(curves[name], "updates")
    halves = [point["half_width"] for point in curves[name]]
    low, high = ([m + sign * h for m, h in zip(means, halves, strict=True)] for sign in (-1, 1))
    ax.fill_between(xs, low, high, color=BLUE.light, alpha=0.2, linewidth=0)
    ax.plot(xs, means, color=BLUE.light, marker="o", markersize=3.2)
    ax.set_title(name, loc="left", color=TEXT.light, pad=5)
    ax.text(0.04, 0.84, percent(means[-1]), transform=ax.transAxes, color=BLUE.light)


def _over_tokens(ax: Axes, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Names that sample no more than most in one ink, the dearer ones each in its own."""
    totals = {name: curve[-1]["tokens"] for name, curve in curves.items()}
    usual = sorted(totals.values())[len(totals) // 2]
    dear = sorted((name for name in curves if totals[name] > DEARER * usual), key=lambda name: -totals[name])
    inks = dict(zip(dear, [ink for ink in SERIES if ink is not BLUE], strict=False))
    for name, curve in curves.items():
        if name not in inks:
            ax.plot(*_line(curve, "tokens"), color=BLUE.light, linewidth=1.0, alpha=0.5, marker="o", markersize=2.4)
    for place, (name, ink) in enumerate(inks.items()):
        ax.plot(*_line(curves[name], "tokens"), color=ink.light, marker="o", markersize=3.6)
        # Neighbours in cost are often close in pass@1 too.
        _label(ax, curves[name][-1], name, ink, (5.0, -15.0 if place % 2 else 6.0))
    best = max((name for name in curves if name not in inks), key=lambda name: curves[name][-1]["pass_at_1"])
    _label(ax, curves[best][-1], f"{best}, best of the other {len(curves) - len(inks)}", BLUE, (7.0, -3.5))
    _token_axis(ax, max(totals.values()))


def _label(ax: Axes, point: Mapping[str, Any], text: str, ink: Ink, offset: Point) -> None:
    at = (point["tokens"], point["pass_at_1"])
    ax.annotate(text, at, xytext=offset, textcoords="offset points", color=ink.light)


def _line(curve: Sequence[Mapping[str, Any]], axis: str) -> tuple[list[float], list[float]]:
    return [point[axis] for point in curve], [point["pass_at_1"] for point in curve]


def _limits(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[float, float]:
    edges = [p["pass_at_1"] + sign * p["half_width"] for curve in curves.values() for p in curve for sign in (-1, 1)]
    room = 0.06 * (max(edges) - min(edges))
    return max(0.0, min(edges) - room), min(1.0, max(edges) + room)


def _rate_axis(ax: Axes, limits: tuple[float, float], *, labelled: bool) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    ax.set_ylim(*limits)
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    ax.tick_params(axis="y", labelleft=labelled)


def _update_axis(ax: Axes, curve: Sequence[Mapping[str, Any]], *, labelled: bool) -> None:
    ax.set_xticks([point["updates"] for point in curve])
    ax.margins(x=0.04)
    ax.tick_params(axis="x", labelbottom=labelled)
    if labelled:
        ax.set_xlabel("updates")


def _token_axis(ax: Axes, most: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_xlim(-0.012 * most, 1.1 * most)
    ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: count(v).replace(".00", "").replace(".0 ", " ")))
    ax.set_xlabel("tokens sampled, those for baselines, values, refills and trees included")
    ax.set_title(HEADS[1], loc="left", color=MUTED.light, pad=8)
