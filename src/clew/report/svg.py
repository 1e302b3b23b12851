"""A matplotlib figure as an SVG that belongs in a page: text stays text, colours become CSS variables.

Nothing here knows what is plotted. matplotlib is imported when the first figure is drawn, never before.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from clew.report.palette import MUTED, PAPER, ROLES, RULE, TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Size = tuple[float, float]
REGULAR: Size = (6.6, 3.9)
"""Inches at 72 units an inch: about half of the page's width."""
SMALL: Size = (4.4, 2.7)

FONT = "var(--sans, system-ui, sans-serif)"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "clew",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 11.0,
    "axes.labelsize": 11.0,
    "axes.titlesize": 11.0,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "legend.fontsize": 11.0,
    "text.color": TEXT.light,
    "axes.labelcolor": MUTED.light,
    "axes.edgecolor": RULE.light,
    "xtick.color": RULE.light,
    "ytick.color": RULE.light,
    "xtick.labelcolor": MUTED.light,
    "ytick.labelcolor": MUTED.light,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE.light,
    "grid.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "legend.handletextpad": 0.5,
}
_INK_OF = {ink.light: ink for ink in ROLES}
_HEX = re.compile(r"#[0-9a-f]{6}\b")
_FONT = re.compile(r"(font: [^;\"]*?px) [^;\"]*")


def figure_svg(name: str, title: str, draw: Callable[[Axes], None], size: Size = REGULAR) -> str:
    """The SVG of one pair of axes that `draw` fills; `name` makes its ids unique, `title` is read to the blind."""
    return sheet_svg(name, title, lambda figure: draw(figure.add_subplot()), size)


def sheet_svg(name: str, title: str, draw: Callable[[Figure], None], size: Size) -> str:
    """The SVG of a figure of as many axes as `draw` makes, otherwise as `figure_svg`."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        # Neither matters here: the browser brings the glyphs, and a crowded figure is still readable.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _for_a_page(buffer.getvalue(), name, title)


def alone(svg: str) -> str:
    """`svg` as a file of its own: with a ground, and in the dark colours where the reader prefers them."""
    light, dark = (" ".join(f"--{ink.name}: {getattr(ink, of)};" for ink in ROLES) for of in ("light", "dark"))
    font = "text { font-family: system-ui, sans-serif !important; }"
    style = f"svg {{ {light} }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }} {font}"
    ground = f'<rect width="100%" height="100%" rx="6" style="fill: {PAPER.css}"/>'
    at = svg.index(">") + 1
    return f"{svg[:at]}<style>{style}</style>{ground}{svg[at:]}"


def legend_above(ax: Axes, columns: int = 4) -> None:
    """A frameless legend over the axes, left-aligned, where no data can be under it."""
    handles, _ = ax.get_legend_handles_labels()
    if handles:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(columns, len(handles)), borderaxespad=0.2)


def _for_a_page(svg: str, name: str, title: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    body = body.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")
    # Ids repeat from figure to figure, and one page holds them all.
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    body = _FONT.sub(rf"\1 {FONT}", body)
    body = _HEX.sub(lambda m: _INK_OF[m.group()].css if m.group() in _INK_OF else m.group(), body)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body).groups()  # type: ignore[union-attr]
    head = f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width} {height}" '
    return head + f'width="{width}" height="{height}" xmlns="http://www.w3.org/2000/svg">' + body[body.index(">") + 1 :]
