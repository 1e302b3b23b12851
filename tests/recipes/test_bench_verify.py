"""The bench of verifiers: its tallies are right and it sees what goes wrong."""

from __future__ import annotations

import json
import random

import pytest

from clew import cli
from clew.core.types import Outcome, Problem, Verdict
from clew.recipes import bench_verify, bench_verify_code, bench_verify_rates
from clew.recipes.bench_verify import judge_tasks
from clew.tasks.arithmetic import Arithmetic


def accepts_anything(self: Arithmetic, problem: Problem, text: str) -> Verdict:
    return Verdict(Outcome.RIGHT, 1.0, text)


def rejects_everything(self: Arithmetic, problem: Problem, text: str) -> Verdict:
    return Verdict(Outcome.WRONG, 0.0, text, "never")


def decides_nothing(self: Arithmetic, problem: Problem, text: str) -> Verdict:
    return Verdict(Outcome.UNSCORED, None, text, "down")


def test_a_sound_verifier_has_no_faults() -> None:
    attacked, gold = judge_tasks(["arithmetic", "countdown"], seed=0)
    assert attacked.tried > 150 and gold.tried == 10
    assert attacked.faults == attacked.unscored == gold.faults == []


def test_a_verifier_that_can_be_fooled_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Arithmetic, "verify", accepts_anything)
    attacked, gold = judge_tasks(["arithmetic"], seed=0)
    assert len(attacked.faults) == attacked.tried > 0
    assert gold.faults == []


def test_rejected_gold_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Arithmetic, "verify", rejects_everything)
    attacked, gold = judge_tasks(["arithmetic"], seed=0)
    assert attacked.faults == []
    assert len(gold.faults) == gold.tried == 5
    assert gold.faults[0]["reason"] == "never"


def test_unscored_gold_is_rejected_and_an_unscored_attack_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Arithmetic, "verify", decides_nothing)
    attacked, gold = judge_tasks(["arithmetic"], seed=0)
    assert attacked.faults == []
    assert len(attacked.unscored) == attacked.tried
    assert len(gold.faults) == gold.tried


def test_every_exception_has_a_reason() -> None:
    listed = bench_verify.exceptions()
    assert {"rg:boxnet", "rg:rush_hour"} <= {entry["task"] for entry in listed}
    assert all(entry["reason"] for entry in listed)


def test_texts_of_the_rates_are_judged_as_they_should_be() -> None:
    part = bench_verify_rates.countdown_part(3, 20)
    assert [part.judge(number) for number in range(8)] == [True, False] * 4
    assert sum(part.judge(number) for number in range(part.answers)) == part.right == 80


def test_a_wrong_count_of_right_answers_is_no_speed() -> None:
    part = bench_verify_rates.Part(lambda number: True, 10, 5)
    with pytest.raises(AssertionError, match="10 of 10"):
        bench_verify_rates._timed(part)


@pytest.mark.slow
def test_mathematical_answers_of_every_kind_are_judged_as_they_should_be() -> None:
    pytest.importorskip("math_verify")
    part = bench_verify_rates.math_part(1, 40)
    assert [part.judge(number) for number in range(40)] == [True, False] * 20


@pytest.mark.parametrize("kind", range(10))
def test_kinds_of_mathematical_answers_never_repeat_the_right_one_as_wrong(kind: int) -> None:
    rng = random.Random(kind)
    for _ in range(20):
        case = bench_verify_rates.math_case(kind, rng)
        assert case.wrong not in (case.right, case.gold)


def test_verify_answers_one_json_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = {
        "sandbox": {"attacks": 3, "escapes": 0},
        "code_per_s": 60.0,
        "lanes": 2,
        "spread": {"code_per_s": {"min": 50.0, "max": 70.0}},
        "gold_humaneval": {"tried": 164, "rejected": 1, "reasons": {"humaneval:1": "late"}},
    }
    rates = {"countdown_per_s": 1.0, "math_per_s": 2.0, "spread": {"math_per_s": {"min": 1.0, "max": 3.0}}}
    monkeypatch.setattr(bench_verify_code, "measure_sandbox", lambda repeats: sandbox)
    monkeypatch.setattr(bench_verify_rates, "measure_rates", lambda repeats, seed: rates)
    monkeypatch.setattr(bench_verify, "specs", lambda: iter(["arithmetic", "maze"]))
    rows = [
        {"question": f"Repeat word {word}", "answer": word, "verifier": "exact"}
        for word in ("ant", "bee", "cat", "dog", "emu")
    ]
    monkeypatch.setattr(bench_verify, "ROWS", rows)
    assert cli.main(["bench", "verify", "--json", "--repeats", "1"]) == 0
    shown, progress = capsys.readouterr()
    measured = json.loads(shown)["verify"]
    assert set(measured) == {"adversarial", "gold", "sandbox", "rates"}
    assert measured["gold"]["tried"] == 15 + 164
    assert measured["gold"]["rejected_cases"] == [{"problem": "humaneval:1", "reason": "late"}]
    assert measured["adversarial"]["accepted"] == 0 < measured["adversarial"]["tried"]
    assert measured["rates"]["code_per_s"] == 60.0
    assert set(measured["rates"]["spread"]) == {"math_per_s", "code_per_s"}
    assert "3/3" in progress
