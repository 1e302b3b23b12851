"""What every task promises; a new task adds a row."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clew.tasks
from clew.core.task import Split, Task, split_of
from clew.core.types import Outcome
from clew.tasks import TASK_NAMES, AnyTask, make_task

SPECS = [
    *TASK_NAMES,
    "countdown:count=3",
    "countdown:count=5,high=7",
    "arithmetic:operations=1,high=60",
    "maze:width=4,height=3",
]
SPLITS: tuple[Split, ...] = get_args(Split)
TASKS = pytest.mark.parametrize("task", [make_task(spec) for spec in SPECS], ids=SPECS)
ANY_SPLIT = pytest.mark.parametrize("split", SPLITS)


@TASKS
@ANY_SPLIT
def test_problems_are_different_and_of_their_split(task: AnyTask, split: Split) -> None:
    problems = task.problems(split, 40, seed=5)
    assert len({problem.id for problem in problems}) == 40
    assert {split_of(problem.id) for problem in problems} == {split}
    assert {problem.task for problem in problems} == {task.name}
    assert all(problem.id.startswith(f"{task.name}:") for problem in problems)
    assert len({problem.prompt for problem in problems}) == 40
    assert all(problem.prompt[-1].role == "user" for problem in problems)


@TASKS
@ANY_SPLIT
def test_problems_derive_from_the_seed(task: AnyTask, split: Split) -> None:
    assert task.problems(split, 20, seed=5) == task.problems(split, 20, seed=5)
    assert task.problems(split, 20, seed=5) == task.problems(split, 30, seed=5)[:20]
    assert task.problems(split, 20, seed=5) != task.problems(split, 20, seed=6)


@TASKS
def test_gold_is_right_and_is_its_own_canonical_form(task: AnyTask) -> None:
    for problem in task.problems("test", 20, seed=1):
        gold = task.gold(problem)
        verdict = task.verify(problem, f"answer {gold}")
        assert (verdict.outcome, verdict.value, verdict.answer) == (Outcome.RIGHT, 1.0, gold)
        assert task.extract(f"answer {gold}") == task.extract(gold) == gold
        for mutant in ("", gold[:-1], f"{gold} {gold}", f"{gold}.", f"{gold}\u200b", f"{gold} x", gold.upper() + "!"):
            assert task.verify(problem, f"answer {mutant}").outcome is Outcome.WRONG


@TASKS
def test_problems_hold_no_answer(task: AnyTask) -> None:
    """Rebuilding from the public facts through JSON gives the same problem."""
    for problem in task.problems("train", 10, seed=2):
        facts = json.loads(json.dumps(dict(problem.metadata)))
        assert task.problem(facts) == problem
        assert task.gold(problem) not in json.dumps(facts).split('"')


@TASKS
def test_difficulty_names_are_few(task: AnyTask) -> None:
    names = {task.difficulty(problem) for problem in task.problems("train", 25, seed=3)}
    assert 1 <= len(names) <= 6


@TASKS
@given(text=st.text())
def test_garbage_never_raises(task: AnyTask, text: str) -> None:
    problem = task.problems("train", 1, seed=0)[0]
    verdict = task.verify(problem, text)
    assert verdict.outcome in (Outcome.RIGHT, Outcome.WRONG)
    assert verdict.value == float(verdict.right)
    assert verdict.answer == task.extract(text)


@TASKS
def test_is_a_task(task: AnyTask) -> None:
    as_protocol: Task = task
    assert as_protocol.name in TASK_NAMES
    assert hash(task) == hash(make_task(task.name)) or task != make_task(task.name)


@pytest.mark.parametrize("module", [module.name for module in pkgutil.iter_modules(clew.tasks.__path__, "clew.tasks.")])
def test_examples_in_the_docstrings(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0
