"""Live progress of a run of several stages, on standard error: one line of bar and one of numbers.

On a terminal a thread redraws twice a second, so `advance` only adds numbers; elsewhere a plain line is printed
every ten seconds or tenth of a stage. What is drawn is decided by the pure functions of the second half.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO, final

if TYPE_CHECKING:
    from rich.text import Text

REFRESHES_PER_SECOND = 2
PLAIN_SECONDS = 10.0
PLAIN_SHARE = 0.1
_MIN_BAR, _MAX_BAR = 8, 40


@dataclass(slots=True)
class Bar:
    """A stage that is under way: what it has done and the numbers it last reported."""

    name: str
    total: float
    expected_seconds: float
    """Of the stage, as it is known by now; the plan's to begin with."""
    started: float
    clock: Callable[[], float] = field(repr=False)
    after: Callable[[Bar], None] = field(repr=False)
    done: float = 0.0
    tokens: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def advance(self, increment: float = 1.0, /, *, tokens: int = 0, **metrics: float) -> None:
        """Add `increment` to what is done and `tokens` to those processed, and show `metrics` from now on."""
        self.done += increment
        self.tokens += tokens
        if metrics:
            # A new dict, not an update: the thread that draws may be reading the old one.
            self.metrics = {**self.metrics, **metrics}
        self.after(self)

    @property
    def seconds(self) -> float:
        return self.clock() - self.started

    @property
    def share(self) -> float:
        """Done of total, from 0 to 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


@final
class Progress:
    """The stages of one run, in order, with the seconds each is expected to take (only their ratios need be right)."""

    def __init__(
        self,
        stages: Mapping[str, float],
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stages = dict(stages)
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._finished: dict[str, float] = {}
        """Seconds each stage took; absent for those skipped or to come."""
        self._skipped: set[str] = set()
        self._plain_at = 0.0
        self._plain_share = 0.0

    def skip(self, name: str) -> None:
        """Say that stage `name` need not run, e.g. because a resumed run has it already."""
        assert name in self._stages, name
        self._skipped.add(name)
        self._print(f"{self._label(name)}  already done")

    @contextmanager
    def stage(self, name: str, *, total: float) -> Iterator[Bar]:
        """Run stage `name`, which is complete when its bar has advanced by `total` (steps, seconds, problems)."""
        assert name in self._stages, name
        bar = Bar(name, total, self._stages[name], self._clock(), self._clock, self._plain)
        self._plain_at, self._plain_share = 0.0, 0.0
        terminal = self._stream.isatty()
        with self._live(bar) if terminal else self._quiet(bar):
            yield bar
        self._finished[name] = bar.seconds
        self._print(summary_line(bar, self._label(name)))

    @contextmanager
    def _live(self, bar: Bar) -> Iterator[None]:
        from rich.console import Console
        from rich.live import Live

        bar.after = _nothing
        console = Console(file=self._stream)

        def draw() -> Text:
            from rich.text import Text

            ascii_only = not console.encoding.startswith("utf")
            lines = live_lines(
                bar, self._label(bar.name), self._left(bar), width=console.width - 1, ascii_only=ascii_only
            )
            return Text("\n".join(lines), no_wrap=True, overflow="crop")

        # Standard output that is piped elsewhere must arrive there, not above the bar.
        live = Live(
            get_renderable=draw,
            console=console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        with live:
            yield

    @contextmanager
    def _quiet(self, bar: Bar) -> Iterator[None]:
        self._print(f"{self._label(bar.name)}  begins")
        yield

    def _plain(self, bar: Bar) -> None:
        seconds = bar.seconds
        if seconds - self._plain_at < PLAIN_SECONDS and bar.share - self._plain_share < PLAIN_SHARE:
            return
        # Tenths of a stage that lasts a second are noise.
        if seconds - self._plain_at < 1.0:
            return
        self._plain_at, self._plain_share = seconds, bar.share
        self._print("  ".join(numbers(bar, self._label(bar.name), self._left(bar))))

    def _left(self, bar: Bar) -> Left:
        names = list(self._stages)
        later = [n for n in names[names.index(bar.name) + 1 :] if n not in self._skipped]
        finished = [(self._stages[n], seconds) for n, seconds in self._finished.items()]
        stage = stage_left(bar.seconds, bar.share, bar.expected_seconds)
        pace = observed_pace([*finished, (self._stages[bar.name], bar.seconds + stage)])
        return Left(stage, stage + pace * sum(self._stages[n] for n in later))

    def _label(self, name: str) -> str:
        return f"{list(self._stages).index(name) + 1}/{len(self._stages)} {name}"

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


@dataclass(frozen=True, slots=True)
class Left:
    """Seconds that the stage and the whole run still need."""

    stage: float
    run: float


def stage_left(seconds: float, share: float, expected: float) -> float:
    """Seconds a stage still needs: the plan's at its start, its own rate's at its end, mixed by its share between.

    >>> stage_left(30.0, 0.5, expected=100.0)
    40.0
    """
    by_plan = max(0.0, expected * (1.0 - share))
    if share <= 0.0:
        return max(0.0, expected - seconds)
    by_rate = seconds * (1.0 - share) / share
    return share * by_rate + (1.0 - share) * by_plan


def observed_pace(stages: list[tuple[float, float]]) -> float:
    """How many seconds pass for each that was expected, over (expected, actual) pairs; 1 if nothing was expected."""
    expected = sum(e for e, _ in stages)
    return sum(a for _, a in stages) / expected if expected > 0 else 1.0


def live_lines(bar: Bar, label: str, left: Left, *, width: int, ascii_only: bool = False) -> list[str]:
    """Two lines of at most `width` characters: what does not fit is left out, the least needed first."""
    first = f"{label} "
    tail = f" {bar.share:4.0%}"
    room = min(_MAX_BAR, width - len(first) - len(tail))
    if room >= _MIN_BAR:
        full, empty = ("#", "-") if ascii_only else ("━", "╌")
        filled = round(room * bar.share)
        first += full * filled + empty * (room - filled)
    return [(first + tail)[:width], fit(numbers(bar, "", left)[1:], width)]


def numbers(bar: Bar, label: str, left: Left) -> list[str]:
    """The parts of a line, the most needed first."""
    seconds = max(bar.seconds, 1e-9)
    parts = [f"{label}  {bar.share:.0%}", f"run {clock_time(left.run)} left"]
    parts += [told(name, value) for name, value in bar.metrics.items() if name not in SHARES or value < 1]
    # A stage of one unit, like a round, has no pace that says anything.
    if bar.total > 1:
        parts.append(f"{short(bar.done / seconds)}/s")
    if bar.tokens:
        parts.append(f"{short(bar.tokens / seconds)} tok/s")
    return [*parts, f"{clock_time(seconds)} + {clock_time(left.stage)} left"]


def summary_line(bar: Bar, label: str) -> str:
    """What stays on the screen of a stage that has finished."""
    seconds = max(bar.seconds, 1e-9)
    parts = [f"{label}  done in {clock_time(seconds)}"]
    if bar.tokens:
        parts.append(f"{short(bar.tokens / seconds)} tok/s")
    return "  ".join([*parts, *(told(name, value) for name, value in bar.metrics.items() if name not in SHARES)])


SHARES = frozenset({"searched", "evaluated"})
"""Metrics that say how much of a part of a stage is done; of one that is over they say no more."""


def told(name: str, value: float) -> str:
    """
    >>> told("loss", 0.46512), told("evaluated", 0.5)
    ('loss 0.465', 'evaluated 50%')
    """
    return f"{name} {value:.0%}" if name in SHARES else f"{name} {value:.3g}"


def fit(parts: list[str], width: int) -> str:
    """As many of `parts` as fit in `width`, in order, two blanks apart."""
    line = ""
    for part in parts:
        longer = f"{line}  {part}" if line else part
        if len(longer) <= width:
            line = longer
    return line


def clock_time(seconds: float) -> str:
    """
    >>> clock_time(75.2), clock_time(3675.0)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(value: float) -> str:
    """
    >>> short(0.456), short(12.3), short(45_678.0), short(2_500_000.0)
    ('0.46', '12', '45.7k', '2.5M')
    """
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def _nothing(*_: Any) -> None:
    pass
