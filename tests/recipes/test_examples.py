"""What the corpora become: nothing held out is shown, and the right sample is kept."""

from __future__ import annotations

import random

import pytest

from clew.core.task import split_of
from clew.initialize.countdown_world import reachable
from clew.learn.batch import Example
from clew.recipes.examples import demonstrable, wider_problem
from clew.recipes.sft import similar_lengths
from clew.tasks.countdown import Countdown


@pytest.mark.parametrize("task", [Countdown(), Countdown(count=3, high=6, target_high=20)])
def test_wider_problems_are_solvable_and_never_held_out(task: Countdown) -> None:
    rng = random.Random(0)
    drawn = [wider_problem(task, rng) for _ in range(1500)]
    held_out = {
        p.id for split in ("validation", "test") for p in task.problems(split, task.count_problems(split) or 0, 0)
    }
    assert held_out
    for problem in drawn:
        assert split_of(problem.id) == "train"
        assert problem.id not in held_out
        numbers = tuple(sorted(problem.metadata["numbers"], reverse=True))
        assert problem.metadata["target"] in reachable(numbers)
    assert any(max(p.metadata["numbers"]) > task.high for p in drawn)
    assert any(p.metadata["target"] > task.target_high for p in drawn)


def test_nearly_every_whole_problem_can_be_demonstrated() -> None:
    problems = Countdown().problems("validation", 500, 0)
    assert len(demonstrable(problems)) / len(problems) > 0.995


def test_batches_of_similar_length_keep_every_example_and_waste_little() -> None:
    rng = random.Random(1)
    examples = [Example(prompt_ids=(2,), response_ids=tuple(range(rng.randint(20, 130)))) for _ in range(256)]
    batches = similar_lengths(examples, 32)
    assert sorted(id(e) for batch in batches for e in batch) == sorted(map(id, examples))
    assert [len(batch) for batch in batches] == [32] * 8
    padded = sum(len(batch) * max(e.length for e in batch) for batch in batches)
    assert padded / sum(e.length for e in examples) < 1.12
