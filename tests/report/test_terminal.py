"""The table and the colours of the terminal."""

from __future__ import annotations

import io
import re

import fake_run
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from clew.initialize.behaviours import Behaviour
from clew.report.colour import STYLES, coloured, legend
from clew.report.table import print_stages, stage_table
from clew.report.words import NONE


def lines(table: Table, width: int = 200) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get().replace("\xa0", " ").splitlines()


def test_the_numbers_are_those_of_the_summary() -> None:
    summary = fake_run.summary()
    shown = lines(stage_table(summary))
    for stage, label in zip(summary["stages"], ("pre-training", "SFT", "expert iteration", "RL"), strict=True):
        (line,) = (x for x in shown if x.strip().startswith(label + " "))
        r, g, k = stage["pass_at_1"], stage["greedy"], stage["pass_at_k"]["8"]
        assert f"{100 * r['mean']:.1f} % ({100 * r['low']:.1f} to {100 * r['high']:.1f})" in line
        assert re.findall(r"[\d.]+ %", line)[1:] == [f"{100 * g['mean']:.1f} %", f"{100 * k['mean']:.1f} %"]
        assert line.rstrip().endswith(f"{stage['mean_length']:.1f}")
    (line,) = (x for x in shown if x.strip().startswith("best-of-64 (mean-logprob)"))
    accuracy = next(s for s in summary["search"] if s["guidance"] == "mean-logprob" and s["n"] == 64)["accuracy"]
    assert f"{100 * accuracy['mean']:.1f} % ({100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f})" in line
    assert " 5.35 k " in line  # 64 samples of 83.4 tokens and a prompt of 12


def test_one_screen() -> None:
    shown = lines(stage_table(fake_run.summary()))
    assert max(map(len, shown)) <= 100
    assert len(shown) <= 24


def test_a_terminal_of_80_columns_cuts_no_number_and_a_file_has_all() -> None:
    summary = fake_run.summary()
    for terminal, heads in ((True, "greedy"), (False, "length")):
        file = io.StringIO()
        print_stages(summary, Console(file=file, width=80, color_system=None, force_terminal=terminal))
        shown = file.getvalue().replace("\xa0", " ").splitlines()
        assert max(map(len, shown)) <= (80 if terminal else 100)
        assert next(line for line in shown if "stage" in line).split()[-1] == heads
        (line,) = (x for x in shown if x.strip().startswith("RL "))
        assert f"{100 * summary['stages'][-1]['greedy']['mean']:.1f} %" in line


def test_long_names_fold_instead_of_widening() -> None:
    summary = {"stages": [{**fake_run.stage("rl"), "name": "x" * 300}]}
    shown = lines(stage_table(summary))
    assert max(map(len, shown)) <= 100
    assert sum(line.count("x") for line in shown) == 300


def test_without_anything_there_is_still_a_table() -> None:
    assert lines(stage_table({}))
    assert NONE in "".join(lines(stage_table({"stages": [{"name": "rl"}]})))


def test_markup_in_a_name_is_text() -> None:
    assert any("[red]x[/red]" in line for line in lines(stage_table({"stages": [{"name": "[red]x[/red]"}]})))


@given(st.text(alphabet="ab [/]\\\n", max_size=20) | st.sampled_from([fake_run.RIGHT, "[red]try[/red] no back"]))
def test_colouring_never_changes_the_text(text: str) -> None:
    assert coloured(text).plain == text


def test_each_behaviour_has_its_own_style_on_its_own_span() -> None:
    text = coloured("try 2 + 2 no back")
    found = [(text.plain[s.start : s.end], s.style) for s in text.spans]
    styles = STYLES
    assert found == [
        ("try 2 + 2 ", styles[Behaviour.COMPLETION]),
        ("no ", styles[Behaviour.EVALUATION]),
        ("back", styles[Behaviour.CORRECTION]),
    ]
    assert len(set(styles.values())) == len(Behaviour) == len(legend().plain.split())
