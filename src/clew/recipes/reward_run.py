"""The run of a reward: one stage that learns and measures, and where that is told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from clew.recipes.progress import Progress

if TYPE_CHECKING:
    from clew.data.run import RunDirectory
    from clew.recipes.stage import Stage


class Told(Protocol):
    """What a configuration says of its run."""

    @property
    def out(self) -> Path: ...
    @property
    def seed(self) -> int: ...
    @property
    def overwrite(self) -> bool: ...
    @property
    def json(self) -> bool: ...


def measured_run(
    config: Told, name: str, work: Callable[[RunDirectory, Stage], dict[str, Any]], *, started: float
) -> int:
    """Make the run of `config` and do `work` as its stage `name`; print what it measured, or where the checkpoint is.

    `started` is the time of `time.perf_counter` when the command began.
    """
    from clew.data.files import jsonable
    from clew.data.run import RunDirectory
    from clew.recipes.stage import resolved, running

    run = RunDirectory.create(config.out, resolved(config), overwrite=config.overwrite)
    with running(name, run, Progress({name: 1.0}), total=1.0) as stage:
        measured = work(run, stage)
        result = {"name": name, "seconds": stage.seconds, "tokens": stage.tokens, **measured}
    run.mark_done(name, jsonable(result))
    summary = {"total_seconds": time.perf_counter() - started, "device": "cpu", "seed": config.seed, "stages": [result]}
    run.write_json("summary.json", summary)
    print(json.dumps(jsonable(result), indent=2) if config.json else run.checkpoint_path(name))
    return 0
