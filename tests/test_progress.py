"""Progress: what it draws for any width, what it prints without a terminal, what it estimates, what it costs."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.recipes.progress import (
    Bar,
    Left,
    Progress,
    clock_time,
    fit,
    live_lines,
    observed_pace,
    short,
    stage_left,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def bar_at(share: float, **metrics: float) -> Bar:
    bar = Bar("rl", 100.0, 50.0, 0.0, lambda: 10.0, lambda bar: None)
    bar.advance(100.0 * share, tokens=12_000, **metrics)
    return bar


def test_live_lines_golden():
    lines = live_lines(bar_at(0.5, pass_at_1=0.4123), "3/4 rl", Left(10.0, 95.0), width=70)
    assert lines == [
        "3/4 rl " + "━" * 20 + "╌" * 20 + "  50%",
        "run 1:35 left  pass_at_1 0.412  5.00/s  1.2k tok/s  0:10 + 0:10 left",
    ]


def test_a_share_is_told_in_percent_until_it_is_whole_and_one_unit_has_no_pace():
    first, second = live_lines(bar_at(0.5, searched=1.0, evaluated=0.25), "1/1 dpo", Left(1.0, 1.0), width=90)
    assert "evaluated 25%" in second and "searched" not in second
    whole = Bar("round-01", 1.0, 1.0, 0.0, lambda: 10.0, lambda bar: None)
    assert "/s" not in live_lines(whole, "1/1 round-01", Left(1.0, 1.0), width=90)[1]
    assert "50%" in first


@given(st.integers(1, 200), st.floats(0, 3), st.dictionaries(st.sampled_from(["pass", "loss"]), st.floats()))
def test_no_line_is_wider_than_the_terminal(width, share, metrics):
    lines = live_lines(bar_at(share, **metrics), "3/4 expert iteration", Left(1e6, 1e7), width=width)
    assert len(lines) == 2
    assert all(len(line) <= width and "\n" not in line for line in lines)


def test_bar_without_unicode_is_ascii():
    assert "".join(live_lines(bar_at(0.3), "1/1 rl", Left(1, 1), width=60, ascii_only=True)).isascii()


@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=9), max_size=6), st.integers(0, 60))
def test_fit_keeps_order_and_the_first_that_fits(parts, width):
    line = fit(parts, width)
    assert len(line) <= width
    assert line.startswith(parts[0]) if parts and len(parts[0]) <= width else True
    if sum(map(len, parts)) + 2 * max(0, len(parts) - 1) <= width:
        assert line == "  ".join(parts)


def test_a_stage_that_knows_its_own_time_does_not_hide_how_slow_the_plan_makes_later_ones():
    clock, stream = Clock(), io.StringIO()
    with Progress({"search": 4.0, "learn": 4.0}, stream=stream, clock=clock).stage("search", total=2.0) as bar:
        clock.now, bar.expected_seconds = 50.0, 100.0
        bar.advance(1.0)
    # 50 s of this stage, and 25 s for each of the 4 that were planned for the next.
    assert "run 2:30 left" in stream.getvalue()


def test_stage_left():
    assert stage_left(0.0, 0.0, 100.0) == 100.0
    assert stage_left(130.0, 0.0, 100.0) == 0.0
    assert stage_left(70.0, 1.0, 100.0) == 0.0
    # Twice as slow as planned: half the weight says 50 (plan), half says 100 (rate).
    assert stage_left(100.0, 0.5, 100.0) == 75.0
    assert observed_pace([(10.0, 20.0), (30.0, 60.0)]) == 2.0
    assert observed_pace([]) == 1.0


def test_words_for_numbers():
    assert [clock_time(s) for s in (-3.0, 0.0, 59.9, 75.2, 3675.0)] == ["0:00", "0:00", "0:59", "1:15", "1:01:15"]
    assert [short(v) for v in (0.456, 9.5, 12.3, 45_678.0, 2.5e6)] == ["0.46", "9.50", "12", "45.7k", "2.5M"]


def test_plain_lines_and_the_estimate_of_the_whole_run():
    clock, stream = Clock(), io.StringIO()
    progress = Progress({"pretrain": 10.0, "sft": 20.0, "rl": 40.0}, stream=stream, clock=clock)
    progress.skip("pretrain")
    with progress.stage("sft", total=4) as bar:
        for _ in range(4):
            clock.now += 10.0
            bar.advance(tokens=500, loss=0.5)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["1/3 pretrain  already done", "2/3 sft  begins"]
    # Half done after 20 of 20 expected seconds: (10 by plan + 20 by rate) / 2 left, so a pace of 35 / 20 for rl's 40.
    assert lines[3] == "2/3 sft  50%  run 1:25 left  loss 0.5  0.10/s  50 tok/s  0:20 + 0:15 left"
    assert lines[-1] == "2/3 sft  done in 0:40  50 tok/s  loss 0.5"
    assert len(lines) == 7


def test_plain_lines_are_few():
    clock, stream = Clock(), io.StringIO()
    progress = Progress({"rl": 100.0}, stream=stream, clock=clock)
    with progress.stage("rl", total=10_000) as bar:
        for _ in range(10_000):
            clock.now += 0.01
            bar.advance()
    assert 10 <= len(stream.getvalue().splitlines()) <= 13


def test_a_stage_that_fails_is_not_said_to_be_done():
    stream = io.StringIO()
    progress = Progress({"rl": 1.0}, stream=stream)
    with pytest.raises(ValueError, match="diverged"), progress.stage("rl", total=1):
        raise ValueError("diverged")
    assert "done" not in stream.getvalue()


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_terminal_draws_and_leaves_one_line_a_stage(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    progress = Progress({"sft": 1.0, "rl": 1.0}, stream=stream)
    with progress.stage("sft", total=20_000) as bar:
        started = time.perf_counter()
        for _ in range(20_000):
            bar.advance(tokens=3, loss=1.0)
        each = (time.perf_counter() - started) / 20_000
    assert each < 1e-3
    out = stream.getvalue()
    assert "1/2 sft ━" in out
    assert out.rstrip().splitlines()[-1].endswith("loss 1")
    assert "\x1b[?25h" in out, "the cursor must be shown again"
