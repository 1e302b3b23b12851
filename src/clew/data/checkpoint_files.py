"""Checkpoint directories that are whole or absent, and tell when they were damaged, whatever is in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from clew.core.errors import CheckpointError
from clew.data.files import friendly_os_errors, sync_directory, write_json_atomically

CHECKSUMS = "checksums.json"
CHECKPOINTS = "checkpoints"
STAGES = "stages"
_ACCEPTED = "a run directory with a finished stage, or a checkpoint directory"


def commit_directory(tmp: Path, final: Path) -> None:
    """Add checksums to the files in `tmp`, flush them to disk and rename `tmp` to `final`, replacing it.

    `tmp` must be on the same file system. Killed at any moment, `final` is absent, the old one or the new one; the old
    one that was set aside comes back by `recover_directory`.
    """
    with friendly_os_errors(final):
        write_json_atomically(tmp / CHECKSUMS, {name: _sha256(tmp / name) for name in _files(tmp)})
        for name in _files(tmp):
            with (tmp / name).open("rb") as file:
                os.fsync(file.fileno())
        final.parent.mkdir(parents=True, exist_ok=True)
        recover_directory(final)
        aside = _aside(final)
        if final.exists():
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        tmp.rename(final)
        sync_directory(final.parent)
        shutil.rmtree(aside, ignore_errors=True)


def recover_directory(final: Path) -> None:
    """Undo a replacement of `final` that was killed half-way."""
    if not final.exists() and _aside(final).exists():
        _aside(final).rename(final)


def verify_directory(path: Path) -> None:
    """Raise `CheckpointError` unless every file that was committed to `path` is there and unchanged."""
    if not path.is_dir():
        raise _error(f"there is no checkpoint at {path}")
    try:
        sums = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _error(f"checkpoint {path} has no {CHECKSUMS}: it was not written to its end") from None
    except ValueError:
        raise _error(f"{CHECKSUMS} of checkpoint {path} is damaged") from None
    for name, digest in sums.items():
        if not (path / name).is_file():
            raise _error(f"checkpoint {path} is damaged: {name} is missing")
        if _sha256(path / name) != digest:
            raise _error(f"checkpoint {path} is damaged: {name} is not the file that was written")


def resolve_checkpoint(path: Path) -> Path:
    """The checkpoint directory that `path` names: itself, or that of the last finished stage of a run directory.

    Checkpoints of clew are verified; one from elsewhere, which has no checksums, must have a `config.json`. A GGUF file
    is a checkpoint of its own.
    """
    if path.suffix == ".gguf" and path.is_file():
        return path
    checkpoint = _last_stage(path) if (path / CHECKPOINTS).is_dir() else path
    if (checkpoint / CHECKSUMS).exists() or not (checkpoint / "config.json").exists():
        verify_directory(checkpoint)
    return checkpoint


def _last_stage(run: Path) -> Path:
    markers = [json.loads(file.read_text(encoding="utf-8")) for file in (run / STAGES).glob("[!.]*.json")]
    for marker in sorted(markers, key=lambda m: m["order"], reverse=True):
        checkpoint = run / CHECKPOINTS / str(marker["stage"])
        recover_directory(checkpoint)
        if checkpoint.exists():
            return checkpoint
    raise _error(f"run {run} has no finished stage with a checkpoint")


def _files(path: Path) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _error(given: str) -> CheckpointError:
    return CheckpointError(given, _ACCEPTED, "check the path, or make the checkpoint again by running its recipe")
