"""No verifier is fooled: hundreds of attacks for each kind of task."""

from __future__ import annotations

import json

import pytest

from clew.core.types import Outcome
from clew.tasks import make_task
from clew.tasks.adversarial import adversarial_answers

pytest.importorskip("math_verify")

ROWS = [
    {"question": "What is 7*8?", "answer": 56, "verifier": "math"},
    {"question": "Solve x^2 = 4.", "answer": "\\{-2, 2\\}", "verifier": "math"},
    {"question": "What is the area of a circle of radius 3 cm?", "answer": "9\\pi", "verifier": "math"},
    {"question": "Capital of France? (A) Rome (B) Paris", "answer": "B", "verifier": "choice"},
    {"question": "Expand (x+1)^2.", "answer": "x^2+2x+1", "verifier": "math"},
    {"question": "Where is x^2 < 1?", "answer": "(-1, 1)", "verifier": "math"},
    {"question": "Name the capital of Italy.", "answer": "Rome", "verifier": "exact"},
    {"question": "What is one half?", "answer": "0.5", "verifier": "numbers"},
]


@pytest.fixture
def rows_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return f"file:{path},split=all"


@pytest.mark.slow
def test_attacks_on_answers_of_files_fail(rows_file):
    assert attacked(rows_file, len(ROWS)) > 1500


@pytest.mark.parametrize("spec", ["countdown", "arithmetic", "maze"])
def test_attacks_on_the_own_tasks_fail(spec):
    assert attacked(spec, 1) > 150


def attacked(spec: str, count: int) -> int:
    task, tried = make_task(spec), 0
    for problem in task.problems("test", count, 0):
        assert task.verify(problem, f"answer {task.gold(problem)}").right
        for text in adversarial_answers(task, problem):
            tried += 1
            verdict = task.verify(problem, text)
            assert verdict.outcome is not Outcome.RIGHT, (problem.id, text[:100])
    return tried
