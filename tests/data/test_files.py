"""Run directories, checkpoint directories and the environment file, with kills, full disks and damage."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

import clew
from clew.core.errors import CheckpointError, RunDirectoryError
from clew.core.types import FinishReason
from clew.data.checkpoint_files import commit_directory, recover_directory, resolve_checkpoint, verify_directory
from clew.data.environment import available_cores, describe_environment, peak_rss_mib
from clew.data.files import friendly_os_errors, jsonable, write_json_atomically
from clew.data.run import RunDirectory

CONFIG = {"seed": 1, "task": {"count": 4, "high": 9}, "stages": ["sft", "rl"]}


def assert_three_parts(error: RunDirectoryError | CheckpointError) -> None:
    text = str(error)
    assert "accepted:" in text and "what to do:" in text


def save(run: RunDirectory, stage: str, content: str = "weights") -> None:
    with run.writing_checkpoint(stage) as tmp:
        (tmp / "model.safetensors").write_text(content)
        (tmp / "config.json").write_text("{}")


# --- files ---


def test_jsonable() -> None:
    @dataclass(frozen=True)
    class Settings:
        where: Path
        finish: FinishReason
        rate: float

    value = {"s": Settings(Path("a/b"), FinishReason.STOP, math.inf), 3: (1, True, None, math.nan, {2, 1})}
    assert jsonable(value) == {
        "s": {"where": "a/b", "finish": "stop", "rate": "inf"},
        "3": [1, True, None, "nan", [1, 2]],
    }


def test_a_failed_write_leaves_the_old_file_and_nothing_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_json_atomically(path, {"old": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunDirectoryError, match="No space left") as caught:
        write_json_atomically(path, {"new": 2})
    assert_three_parts(caught.value)
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_really_full_disk_is_told_in_three_parts(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    run.metrics_path.symlink_to("/dev/full")
    with pytest.raises(RunDirectoryError, match="No space left") as caught:
        run.log("sft", loss=1.0)
    assert_three_parts(caught.value)


def test_errors_nobody_can_advise_on_pass_through(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError), friendly_os_errors(tmp_path):
        raise InterruptedError(errno.EINTR, "interrupted")


# --- run directory ---


def test_create_writes_config_and_environment(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "deep" / "run", CONFIG)
    assert json.loads((run.path / "config.json").read_text()) == CONFIG
    assert json.loads((run.path / "environment.json").read_text())["cores"] == available_cores()
    assert run.metrics() == []


def test_an_existing_run_is_not_touched_unless_told(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    run.write_json("summary.json", {"best": 1})
    with pytest.raises(RunDirectoryError, match="--resume") as caught:
        RunDirectory.create(run.path, CONFIG)
    assert_three_parts(caught.value)
    assert (run.path / "summary.json").exists()
    RunDirectory.create(run.path, {"seed": 2}, overwrite=True)
    assert not (run.path / "summary.json").exists()
    assert json.loads((run.path / "config.json").read_text()) == {"seed": 2}


def test_overwrite_never_deletes_what_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        RunDirectory.create(tmp_path, CONFIG, overwrite=True)
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        RunDirectory.create(tmp_path, CONFIG, resume=True)
    with pytest.raises(RunDirectoryError, match="is a file"):
        RunDirectory.create(tmp_path / "thesis.tex", CONFIG)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(RunDirectoryError, match="there is no run directory"):
        RunDirectory.create(tmp_path / "typo", CONFIG, resume=True)
    assert not (tmp_path / "typo").exists()


def test_a_place_below_a_file_is_told_in_three_parts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="Not a directory") as caught:
        RunDirectory.create(tmp_path / "file" / "run", CONFIG)
    assert_three_parts(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_place_without_permission_is_told_in_three_parts(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(RunDirectoryError, match="Permission denied") as caught:
        RunDirectory.create(locked / "run", CONFIG)
    assert_three_parts(caught.value)


def test_resume_needs_the_saved_config_and_names_the_keys_that_differ(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    RunDirectory.create(run.path, {"stages": ("sft", "rl"), "task": {"high": 9, "count": 4}, "seed": 1}, resume=True)
    changed = {"seed": 1, "task": {"count": 5, "high": 9}, "stages": ["sft"], "lr": 0.1}
    with pytest.raises(RunDirectoryError) as caught:
        RunDirectory.create(run.path, changed, resume=True)
    assert_three_parts(caught.value)
    for part in ("task.count: 4 -> 5", "lr: absent -> 0.1", 'stages: ["sft", "rl"] -> ["sft"]'):
        assert part in str(caught.value)
    assert "high" not in str(caught.value) and "seed" not in str(caught.value)
    (run.path / "config.json").write_text('{"seed": ')
    with pytest.raises(RunDirectoryError, match="damaged"):
        RunDirectory.create(run.path, CONFIG, resume=True)


def test_a_run_killed_while_it_was_created_can_be_created_again_or_resumed(tmp_path: Path) -> None:
    for resume in (False, True):
        path = tmp_path / str(resume)
        (path / "checkpoints").mkdir(parents=True)
        (path / ".config.json.77.tmp").write_text('{"se')
        RunDirectory.create(path, CONFIG, resume=resume)
        assert json.loads((path / "config.json").read_text()) == CONFIG


def test_resume_repairs_a_torn_line_and_removes_files_aside(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    run.log("sft", step=1, loss=math.nan)
    with run.metrics_path.open("a") as file:
        file.write('{"stage": "sft", "st')
    (run.path / ".summary.json.12.tmp").write_text("{")
    (run.path / "checkpoints" / ".sft.tmp").mkdir()
    assert len(run.metrics()) == 1
    resumed = RunDirectory.create(run.path, CONFIG, resume=True)
    resumed.log("sft", step=2)
    assert resumed.metrics() == [{"stage": "sft", "step": 1, "loss": "nan"}, {"stage": "sft", "step": 2}]
    assert list(run.path.rglob("*.tmp")) == []


def test_begin_stage_forgets_only_that_stage(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    for stage in ("sft", "rl", "sft"):
        run.log(stage, step=0)
    run.begin_stage("rl")
    assert [row["stage"] for row in run.metrics()] == ["sft", "sft"]
    assert run.metrics("rl") == []


def test_stage_results_round_trip(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    assert not run.stage_done("sft")
    run.mark_done("sft", {"tokens": 12, "rate": 0.5})
    again = RunDirectory.create(run.path, CONFIG, resume=True)
    assert again.stage_done("sft") and again.stage_result("sft") == {"tokens": 12, "rate": 0.5}


# --- checkpoints ---


def test_resolve_gives_the_last_finished_stage_or_the_directory_itself(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    with pytest.raises(CheckpointError, match="no finished stage") as caught:
        resolve_checkpoint(run.path)
    assert_three_parts(caught.value)
    for stage in ("sft", "pretrain"):  # in the order of finishing, not of names
        save(run, stage)
        run.mark_done(stage, {})
    run.mark_done("evaluate", {})  # has no checkpoint
    save(run, "rl")  # is not finished
    assert resolve_checkpoint(run.path) == run.checkpoint_path("pretrain")
    assert resolve_checkpoint(run.checkpoint_path("sft")) == run.checkpoint_path("sft")
    run.mark_done("sft", {})  # again: its place stays
    assert resolve_checkpoint(run.path) == run.checkpoint_path("pretrain")


def test_a_checkpoint_from_elsewhere_needs_only_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_checkpoint(tmp_path) == tmp_path
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        resolve_checkpoint(tmp_path / "typo")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: (path / "model.safetensors").write_text("weightz"), "model.safetensors is not the file"),
        (lambda path: (path / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda path: (path / "checksums.json").write_text("{"), "checksums.json"),
        (lambda path: [(path / name).unlink() for name in ("checksums.json", "config.json")], "not written to its end"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, told: str) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    save(run, "sft")
    run.mark_done("sft", {})
    verify_directory(run.checkpoint_path("sft"))
    damage(run.checkpoint_path("sft"))  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=told) as caught:
        resolve_checkpoint(run.path)
    assert_three_parts(caught.value)


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    save(run, "sft", "old")
    with pytest.raises(RunDirectoryError, match="No space left"), run.writing_checkpoint("sft") as tmp:  # noqa: PT012
        (tmp / "model.safetensors").write_text("half")
        raise OSError(errno.ENOSPC, "full")
    verify_directory(run.checkpoint_path("sft"))
    assert (run.checkpoint_path("sft") / "model.safetensors").read_text() == "old"
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["sft"]


def test_replacing_a_checkpoint_survives_a_kill_between_its_renames(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    save(run, "sft", "old")
    run.mark_done("sft", {})
    script = f"""
        import os, signal
        from pathlib import Path
        from clew.data.checkpoint_files import commit_directory
        rename, calls = Path.rename, []
        def dying(self, target):
            if calls:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(self)
            return rename(self, target)
        Path.rename = dying
        tmp = Path({str(tmp_path / "new")!r})
        tmp.mkdir()
        (tmp / "model.safetensors").write_text("new")
        commit_directory(tmp, Path({str(run.checkpoint_path("sft"))!r}))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=child_environment(), timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not run.checkpoint_path("sft").exists()
    assert resolve_checkpoint(run.path) == run.checkpoint_path("sft")
    assert (run.checkpoint_path("sft") / "model.safetensors").read_text() == "old"
    commit_directory(tmp_path / "new", run.checkpoint_path("sft"))
    recover_directory(run.checkpoint_path("sft"))
    assert (run.checkpoint_path("sft") / "model.safetensors").read_text() == "new"


# --- environment ---


def test_environment_reads_versions_without_importing() -> None:
    facts = describe_environment()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["packages"]["numpy"] is not None
    assert facts["memory_mib"] > 100
    assert json.loads(json.dumps(facts)) == facts
    script = "import sys, clew.data.run, clew.data.store, clew.data.environment as e; e.describe_environment();"
    script += "print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", script], env=child_environment(), capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_peak_rss_grows_with_what_is_held() -> None:
    before = peak_rss_mib()
    held = bytearray(os.urandom(1) * (200 << 20))
    assert peak_rss_mib() >= len(held) >> 20
    assert peak_rss_mib() >= before


def child_environment() -> dict[str, str]:
    assert clew.__file__ is not None
    return {**os.environ, "PYTHONPATH": str(Path(clew.__file__).parents[1])}
