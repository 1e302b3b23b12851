"""The directory a run writes, and from which it resumes after having been killed at any moment.

config.json        the resolved configuration          environment.json   machine, versions, commit
metrics.jsonl      one JSON object a line              stages/<name>.json  what a finished stage answered
checkpoints/<name> one checkpoint a stage              trajectories.sqlite see `clew.data.store`
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from clew.core.errors import RunDirectoryError
from clew.data.checkpoint_files import CHECKPOINTS, STAGES, commit_directory, recover_directory
from clew.data.environment import describe_environment
from clew.data.files import friendly_os_errors, jsonable, write_json_atomically, write_text_atomically

CONFIG = "config.json"
_ABSENT = object()


@final
class RunDirectory:
    """An open run directory; make one with `create`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, path: Path, config: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
    ) -> RunDirectory:
        """Make a new run at `path`, or open one to resume.

        Refuses a directory that is not empty unless `resume` (which needs an equal `config`) or `overwrite` (which
        deletes the run that is there, but never a directory that is not a run). Raises `RunDirectoryError`.
        """
        with friendly_os_errors(path):
            occupied = _check(path, config, resume=resume, overwrite=overwrite)
            if occupied and overwrite and not resume:
                shutil.rmtree(path)
            for directory in (path, path / CHECKPOINTS, path / STAGES):
                directory.mkdir(parents=True, exist_ok=True)
            run = cls(path)
            if occupied and resume:
                run._repair()
            else:
                write_json_atomically(path / "environment.json", describe_environment())
                # Last, because its presence says that the directory is a run.
                write_json_atomically(path / CONFIG, config)
        return run

    @property
    def store_path(self) -> Path:
        return self.path / "trajectories.sqlite"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def write_json(self, name: str, value: Any) -> Path:
        """Write `value` to the file `name` of this run, atomically."""
        path = self.path / name
        write_json_atomically(path, value)
        return path

    def log(self, stage: str, **metrics: Any) -> None:
        """Append one line to `metrics.jsonl`. Numbers that are not finite are written as strings."""
        line = json.dumps(jsonable({"stage": stage, **metrics}), allow_nan=False)
        with friendly_os_errors(self.metrics_path), self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def metrics(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, of one stage or of all; a last line that is torn is not one yet."""
        rows = map(json.loads, self._metric_lines())
        return [row for row in rows if stage is None or row["stage"] == stage]

    def begin_stage(self, stage: str) -> None:
        """Forget the metrics of an earlier attempt at `stage` that did not finish; call it before the stage."""
        lines = self._metric_lines()
        kept = [line for line in lines if json.loads(line)["stage"] != stage]
        if len(kept) < len(lines):
            write_text_atomically(self.metrics_path, "".join(kept))

    def mark_done(self, stage: str, result: Mapping[str, Any]) -> None:
        """Record that `stage` finished and what it answered; commit its checkpoint first."""
        marker = self._marker(stage)
        order = json.loads(marker.read_text())["order"] if marker.exists() else len(self._markers())
        write_json_atomically(marker, {"stage": stage, "order": order, "result": result})

    def stage_done(self, stage: str) -> bool:
        return self._marker(stage).exists()

    def stage_result(self, stage: str) -> dict[str, Any]:
        """What `mark_done` was given, as JSON gives it back."""
        result: dict[str, Any] = json.loads(self._marker(stage).read_text(encoding="utf-8"))["result"]
        return result

    def checkpoint_path(self, stage: str) -> Path:
        return self.path / CHECKPOINTS / stage

    @contextmanager
    def writing_checkpoint(self, stage: str) -> Iterator[Path]:
        """An empty directory to save a checkpoint into; it becomes `checkpoints/<stage>` if the block succeeds."""
        final_path = self.checkpoint_path(stage)
        tmp = final_path.with_name(f".{stage}.tmp")
        with friendly_os_errors(final_path):
            shutil.rmtree(tmp, ignore_errors=True)
            tmp.mkdir(parents=True)
            try:
                yield tmp
                commit_directory(tmp, final_path)
            finally:
                shutil.rmtree(tmp, ignore_errors=True)

    def _marker(self, stage: str) -> Path:
        return self.path / STAGES / f"{stage}.json"

    def _metric_lines(self) -> list[str]:
        if not self.metrics_path.exists():
            return []
        with self.metrics_path.open(encoding="utf-8", newline="") as file:
            return [line for line in file if line.endswith("\n")]

    def _markers(self) -> list[Path]:
        return list((self.path / STAGES).glob("[!.]*.json"))

    def _repair(self) -> None:
        """Undo what a kill left half-done: a torn line of metrics, files aside, a checkpoint being replaced."""
        if self.metrics_path.exists():
            data = self.metrics_path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                with self.metrics_path.open("r+b") as file:
                    file.truncate(whole)
        for old in (self.path / CHECKPOINTS).glob(".*.old"):
            recover_directory(old.with_name(old.name[1:].removesuffix(".old")))
        for aside in list(self.path.rglob(".*.tmp")):
            shutil.rmtree(aside) if aside.is_dir() else aside.unlink()


def _check(path: Path, config: Mapping[str, Any], *, resume: bool, overwrite: bool) -> bool:
    """Whether there is a run at `path` already; raises if `path` cannot be used as asked."""
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path} is a file", "a directory, new or empty", "choose another directory")
    # A run killed before its configuration was written holds only the empty rooms and files aside: as good as empty.
    early = {CHECKPOINTS, STAGES, "environment.json"}
    is_run = (path / CONFIG).exists() and (path / CHECKPOINTS).is_dir()
    occupied = is_run or (path.exists() and any(p.name not in early and p.suffix != ".tmp" for p in path.iterdir()))
    if resume:
        if not is_run and (occupied or not path.exists()):
            given = f"{path} is not a run directory" if occupied else f"there is no run directory {path}"
            raise RunDirectoryError(
                f"cannot resume: {given}", "the directory of a run", "check the path, or start anew"
            )
        if is_run:
            _check_config(path, config)
    elif occupied and not overwrite:
        raise RunDirectoryError(
            f"run directory {path} is not empty",
            "a directory that is new or empty",
            "choose another directory, continue that run with --resume, or delete it with --overwrite",
        )
    elif occupied and not is_run:
        given = f"{path} holds files but is not a run directory, so it is not overwritten"
        raise RunDirectoryError(given, "a directory that is new, empty or a run", "choose another directory")
    return occupied


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    try:
        saved = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        given = f"{path / CONFIG} is damaged: {error}"
        raise RunDirectoryError(
            given, "the configuration that the run wrote", "start anew in another directory"
        ) from None
    differing = _differences(saved, jsonable(config))
    if differing:
        raise RunDirectoryError(
            f"the configuration differs from the one saved in {path}: " + "; ".join(differing),
            "the configuration the run was started with",
            "use the saved values, or start anew in another directory",
        )


def _differences(saved: Any, given: Any, key: str = "") -> list[str]:
    """`key: saved value -> given value` for each differing key, nested keys joined by dots."""
    if not (isinstance(saved, dict) and isinstance(given, dict)):
        shown = [("absent" if v is _ABSENT else json.dumps(v)) for v in (saved, given)]
        return [] if saved == given and type(saved) is type(given) else [f"{key}: {shown[0]} -> {shown[1]}"]
    names = sorted(saved.keys() | given.keys())
    pairs = ((name, saved.get(name, _ABSENT), given.get(name, _ABSENT)) for name in names)
    return [line for name, s, g in pairs for line in _differences(s, g, f"{key}.{name}" if key else name)]
