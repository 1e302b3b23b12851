"""What the corpora become: nothing held out is shown, and the right sample is kept."""

from __future__ import annotations

import random
import re

import pytest

from clew.core.task import split_of
from clew.initialize.countdown_world import reachable
from clew.learn.batch import Example
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.recipes.examples import corpus_batch, demonstrable, wider_problem
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


def test_pre_training_tells_nothing_of_problems_that_are_held_out() -> None:
    tokenizer = build_tokenizer()
    model = build_model(SmallQwen3(width=48, layers=1, heads=2, head_width=24, ffn_width=48), tokenizer, 0)
    policy, rng, task = LocalPolicy(model, tokenizer), random.Random(0), Countdown()
    told = set()
    for example in corpus_batch(policy, task, rng, rows=1500, tokens=63):
        assert example.learnt is not None
        assert 0 < example.num_learnt < len(example.response_ids) == len(example.learnt)
        for passage in tokenizer.decode(example.response_ids).split(" ; "):
            hint = re.match(r"make (\d+) from (\d+ \d+ \d+ \d+) have", passage)
            played = re.match(r"have (\d+ \d+ \d+ \d+) try .* = (\d+) answer", passage)
            if hint or played:
                target, numbers = hint.groups() if hint else reversed(played.groups())
                told.add(task.problem({"numbers": [int(n) for n in numbers.split()], "target": int(target)}).id)
    assert len(told) > 200
    assert {split_of(problem_id) for problem_id in told} == {"train"}


def test_pre_training_documents_are_whole_and_tokenised_as_one_text() -> None:
    tokenizer = build_tokenizer()
    model = build_model(SmallQwen3(width=48, layers=1, heads=2, head_width=24, ffn_width=48), tokenizer, 0)
    policy = LocalPolicy(model, tokenizer)
    for tokens in (1, 15, 63, 200):
        for example in corpus_batch(policy, Countdown(), random.Random(tokens), rows=60, tokens=tokens):
            assert len(example.response_ids) == tokens
            text = tokenizer.decode(example.response_ids)
            assert list(example.response_ids) == tokenizer.encode(text, add_special_tokens=False)


def test_nearly_every_whole_problem_can_be_demonstrated() -> None:
    problems = Countdown().problems("validation", 500, 0)
    assert len(demonstrable(problems)) / len(problems) > 0.995


def test_batches_of_similar_length_keep_every_example_and_waste_little() -> None:
    rng = random.Random(1)
    examples = [Example(prompt_ids=(2,), response_ids=tuple(range(rng.randint(20, 130)))) for _ in range(256)]
    batches = similar_lengths(examples, 32)
    assert sorted(id(e) for batch in batches for e in batch) == sorted(map(id, examples))
    assert [len(batch) for batch in batches] == [32] * 8
    middle = sorted(e.length for e in examples)[128]
    assert all(sum(e.length < middle for e in batch) >= 14 for batch in batches), "short ones are in every batch"
    halves = [sorted(batch, key=lambda e: e.length) for batch in batches]
    padded = sum(16 * (half[15].length + half[31].length) for half in halves)
    assert padded / sum(e.length for e in examples) < 1.12
