"""Tasks by name."""

from __future__ import annotations

import pytest

from clew.core.errors import InvalidValue, UnknownName
from clew.tasks import TASK_NAMES, AnyTask, Arithmetic, Countdown, Maze, make_task


@pytest.mark.parametrize(
    ("spec", "task"),
    [
        ("countdown", Countdown()),
        ("countdown:count=5,high=20", Countdown(count=5, high=20)),
        ("countdown: count = 5 , target_low=-3", Countdown(count=5, target_low=-3)),
        ("arithmetic:operations=2", Arithmetic(operations=2)),
        ("maze:walls=0.25,width=7", Maze(walls=0.25, width=7)),
        ("maze:walls=0", Maze(walls=0.0)),
        ("countdown:whole=false", Countdown(whole=False)),
    ],
)
def test_make_task(spec: str, task: AnyTask) -> None:
    assert make_task(spec) == task


def test_names() -> None:
    assert TASK_NAMES == ("arithmetic", "countdown", "maze")
    assert [make_task(name).name for name in TASK_NAMES] == list(TASK_NAMES)


@pytest.mark.parametrize(
    ("spec", "nearest"),
    [("contdown", "countdown"), ("mazes:width=3", "maze"), ("countdown:cuont=5", "count"), ("maze:hight=3", "height")],
)
def test_unknown_names_suggest_the_nearest(spec: str, nearest: str) -> None:
    with pytest.raises(UnknownName, match=f"did you mean '{nearest}'"):
        make_task(spec)


@pytest.mark.parametrize(
    "spec",
    [
        "countdown:count=five",
        "countdown:count=4.0",
        "countdown:count=",
        "countdown:count",
        "countdown:count=1",
        "maze:walls=nan",
        "maze:walls=1e-1",
        "countdown:count=\uff15",
        "countdown:count=4,count=5",
        "countdown:count=" + "9" * 5000,
        "maze:walls=inf",
        "countdown:",
        "maze: ",
        "countdown:whole=1",
        "countdown:whole=True",
    ],
)
def test_bad_values(spec: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        make_task(spec)
    assert caught.value.given and caught.value.accepted and caught.value.advice


@pytest.mark.parametrize("spec", ["", ":", "countdown:name=x", "countdown:,", "no-such-task", "COUNTDOWN"])
def test_bad_specs(spec: str) -> None:
    with pytest.raises(UnknownName):
        make_task(spec)
