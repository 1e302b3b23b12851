"""Reading run directories: what is missing stays missing, what is damaged is a three-part error."""

from __future__ import annotations

import json
import math
from pathlib import Path

import fake_run
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import ClewError, RunDirectoryError
from clew.report.data import Rate, parse_summary, rate, read_run


@pytest.mark.parametrize(
    "content", [None, "", "{", "[1]", '{"stages": 3}', '{"stages": [{"seconds": 1}]}', '{"claims": []}x']
)
def test_an_unusable_summary_is_a_three_part_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(RunDirectoryError) as caught:
        read_run(tmp_path)
    assert all(part.strip() for part in (caught.value.given, caught.value.accepted, caught.value.advice))


def test_bytes_that_are_no_text_are_a_three_part_error(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(b'\xff\xfe{"stages": []}')
    with pytest.raises(ClewError):
        read_run(tmp_path)


def test_a_rate_needs_its_interval_and_n() -> None:
    assert rate({"mean": 0.5, "low": 0.4, "high": 0.6, "n": 100}) == Rate(0.5, 0.4, 0.6, 100)
    assert rate({"mean": 0.5}) is None
    assert rate({"mean": math.nan, "low": 0.4, "high": 0.6, "n": 100}) is None
    assert rate({"mean": True, "low": 0, "high": 1, "n": 1}) is None
    assert rate(0.5) is None


def test_sizes_are_sorted_as_numbers_not_as_text() -> None:
    found = parse_summary(
        {"stages": [{"name": "rl", "pass_at_k": {k: fake_run.rate(0.5) for k in ("16", "2", "128", "x")}}]}
    )
    assert list(found.stages[0].pass_at_k) == [2, 16, 128]


def test_a_torn_last_line_of_metrics_is_remarked_and_the_rest_kept(tmp_path: Path) -> None:
    fake_run.write(tmp_path, metrics=None)
    good = [{"stage": "rl", "step": 0, "reward": 0.1}, {"stage": "rl", "step": 1, "reward": 0.2}]
    lines = [json.dumps(row) for row in good]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"stage": "rl", "st']))
    run = read_run(tmp_path)
    assert list(run.metrics) == good
    assert len(run.remarks) == 1
    assert "1 line " in run.remarks[0]


def test_a_step_that_a_resumed_run_repeated_counts_once(tmp_path: Path) -> None:
    rows = [{"stage": "rl", "step": s, "reward": r} for s, r in ((0, 0.1), (1, 0.2), (1, 0.3), (2, 0.4))]
    run = read_run(fake_run.write(tmp_path, metrics=rows))
    assert [(row["step"], row["reward"]) for row in run.metrics] == [(0, 0.1), (1, 0.3), (2, 0.4)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
summary_keys = st.sampled_from(["stages", "search", "claims", "seed", "device", "total_seconds"])


@given(st.dictionaries(summary_keys, json_values) | json_values)
def test_any_json_parses_or_is_refused_politely(raw: object) -> None:
    try:
        parse_summary(raw)
    except ClewError as error:
        advice = error.advice
    else:
        advice = "none needed"
    assert advice
