"""Settings varied over a grid, texts with other numbers, and when a majority is believed."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.tasks import make_task
from clew.tasks.generator import Agreement, mutated, numbers_in, row_of, settings_grid, vote

few = settings(max_examples=20, deadline=None)


def test_a_grid_is_every_combination_and_each_makes_a_task():
    specs = settings_grid("countdown:high=20,whole=false", "count=3|4|5,high=9|13")
    assert [(make_task(s).count, make_task(s).high) for s in specs] == list(itertools.product((3, 4, 5), (9, 13)))
    assert not any(make_task(spec).whole for spec in specs)


def test_settings_of_other_tasks_may_hold_commas():
    specs = settings_grid('rg:basic_arithmetic,operators=["+","-"]', 'operators=["+"]|["+","*"],max_terms=3')
    assert specs == [
        'rg:basic_arithmetic,operators=["+"],max_terms=3',
        'rg:basic_arithmetic,operators=["+","*"],max_terms=3',
    ]


@pytest.mark.parametrize(
    "grid", ["", "count", "count=", "count=3", "count=3|4,count=5", "a=1|2|3|4|5,b=1|2|3|4|5,c=1|2|3"]
)
def test_a_grid_that_says_too_little_or_too_much_is_refused(grid):
    with pytest.raises(InvalidValue):
        settings_grid("countdown", grid)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tom has 12 apples, eats 3.", ["12", "3"]),
        ("x2 + 3/4 = y_1, 2^3, 1,234 and -5", []),
        ("at 3.5 kg a bag, 40% of 250", ["3.5", "40", "250"]),
        ("$12$ and (7)", ["12", "7"]),
        ("007 and 08", []),
    ],
)
def test_only_numbers_that_stand_alone_may_change(text, expected):
    assert numbers_in(text) == expected


@few
@given(st.lists(st.integers(0, 999), min_size=1, max_size=5), st.integers(0, 99))
def test_a_mutant_differs_in_its_numbers_alone(numbers, seed):
    question = " then ".join(f"{number} cows" for number in numbers) + "?"
    changed = mutated(question, seed)
    if max(numbers) < 2:
        assert changed is None
        return
    assert changed is not None
    assert changed != question
    assert re.sub(r"[0-9]+", "#", changed) == re.sub(r"[0-9]+", "#", question)
    new = [int(text) for text in re.findall(r"[0-9]+", changed)]
    for before, after in zip(numbers, new, strict=True):
        assert after == before if before < 2 else 2 <= after <= max(2 * before, 3)
    for before in set(numbers):
        assert len({after for b, after in zip(numbers, new, strict=True) if b == before}) == 1
    assert mutated(question, seed) == changed


def test_decimals_keep_their_places():
    assert re.fullmatch(r"costs [0-9]+\.[0-9]{2} each", mutated("costs 3.50 each", 1) or "")


@few
@given(st.text(max_size=60), st.integers(0, 9))
def test_no_text_breaks_it(text, seed):
    mutated(text, seed)


@few
@given(st.lists(st.sampled_from(["1", "2", None]), min_size=1, max_size=12))
def test_a_vote_is_the_largest_share(answers):
    shares = {answer: answers.count(answer) / len(answers) for answer in answers if answer is not None}
    assert vote(answers).share == max(shares.values(), default=0.0)


@few
@given(
    st.lists(st.booleans(), max_size=6),
    st.lists(st.sampled_from(["1", "2", None]), max_size=6),
    st.sampled_from([0.6, 0.75, 1.0]),
)
def test_a_majority_is_believed_only_where_its_solvers_are(original, answers, least):
    found = Agreement(least=least, solutions=4).accepted(original, answers)
    trusted = len(original) >= 4 and sum(original) / len(original) >= least
    agreed = [a for a in ("1", "2") if len(answers) >= 4 and answers.count(a) / len(answers) >= least]
    assert found == (agreed[0] if trusted and agreed else None)


def test_half_is_no_majority():
    with pytest.raises(InvalidValue):
        Agreement(least=0.5)


def test_a_row_is_a_problem_of_a_file(tmp_path):
    path = tmp_path / "new.jsonl"
    path.write_text(row_of("What is 2 + 5?", "7", "exact", "file:a") + "\n", encoding="utf-8")
    task = make_task(f"file:{path},verifier=exact,split=all")
    (problem,) = task.problems("train", 1, 0)
    assert task.verify(problem, "answer 7").right
    assert not task.verify(problem, "answer 8").right
    assert json.loads(path.read_text())["source"] == "file:a"
