"""What the doctor says of the extras and of the sandbox."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from clew.recipes import doctor
from clew.sandbox import bubblewrap
from clew.sandbox.errors import SandboxBroken
from clew.sandbox.pool import Pool
from clew.sandbox.programs import Ran

NOT_FOR_USERS = {"test", "bench"}


def test_every_extra_of_the_package_is_looked_at_by_what_it_brings():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: needs for name, needs in project["optional-dependencies"].items() if name not in NOT_FOR_USERS}
    assert set(doctor.EXTRAS) == set(extras)
    for name, needs in extras.items():
        assert doctor.EXTRAS[name][0] in {re.split(r"[^\w-]", need)[0] for need in needs}


def test_an_extra_that_is_there_is_told_with_its_version(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"7 of {name}")
    assert doctor.check_extra("math") == doctor.Check("extra math", "ok", "math-verify 7 of math-verify")


def test_an_extra_that_is_missing_is_a_warning_that_says_who_needs_it_and_how_to_get_it(monkeypatch):
    monkeypatch.setitem(doctor.EXTRAS, "math", ("no-such-distribution-at-all", "mathematical answers"))
    check = doctor.check_extra("math")
    assert check.status == "warn"
    assert "no-such-distribution-at-all" in check.found and "mathematical answers" in check.found
    assert "pip install 'clew[math]'" in check.advice


def test_the_sandbox_is_tried():
    check = doctor.check_sandbox()
    if check.status == "warn":
        assert "only tasks that run code" in check.found
        pytest.skip(f"no sandbox can be made here: {check.found}")
    assert check == doctor.Check("sandbox", "ok", "bubblewrap isolates programs")


def test_without_bubblewrap_the_doctor_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(bubblewrap.sys, "platform", "linux")
    monkeypatch.setattr(bubblewrap.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    check = doctor.check_sandbox()
    assert check.status == "warn"
    assert "bwrap is not on the PATH" in check.found
    assert "apt-get install bubblewrap" in check.advice


def broken(pool: Pool, source: str) -> Ran:
    raise SandboxBroken("the sandbox is gone")


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (broken, "the sandbox is gone"),
        (lambda pool, source: Ran("ran out of time", b"", b"", odd=True), "ran out of time"),
        (lambda pool, source: Ran("", b"41\n", b"", odd=False), "41"),
    ],
    ids=["broken", "did not end", "wrong output"],
)
def test_a_sandbox_that_does_not_do_its_work_is_a_failure(run, found, monkeypatch):
    monkeypatch.setattr(Pool, "run", run)
    check = doctor.check_sandbox()
    assert check.status == "fail"
    assert found in check.found and check.advice
