"""Verifiers that err at set rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import Outcome, Problem, Verdict
from clew.tasks import Arithmetic, make_task
from clew.tasks.noisy import Noisy, noisy_task

TRUTH = Arithmetic(operations=1)
PROBLEMS = TRUTH.problems("train", 200, seed=0)


def share_right(task: Noisy, answers: dict[str, str]) -> float:
    return sum(task.verify(p, f"answer {answers[p.id]}").right for p in PROBLEMS) / len(PROBLEMS)


RIGHT = {p.id: TRUTH.gold(p) for p in PROBLEMS}
WRONG = {p.id: str(int(TRUTH.gold(p)) + 1) for p in PROBLEMS}


@pytest.mark.parametrize(("positive", "negative"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.1, 0.4), (1.0, 1.0)])
def test_rates_are_those_that_were_set(positive: float, negative: float) -> None:
    """Four standard deviations of 200 draws."""
    task = Noisy(task=TRUTH, false_positive=positive, false_negative=negative)
    for answers, rate in ((WRONG, positive), (RIGHT, 1 - negative)):
        assert abs(share_right(task, answers) - rate) <= 4 * (rate * (1 - rate) / len(PROBLEMS)) ** 0.5


def test_the_same_answer_is_judged_the_same_and_another_seed_errs_elsewhere() -> None:
    one, two = (Noisy(task=TRUTH, false_positive=0.5, seed=seed) for seed in (1, 2))
    texts = [f"answer {n}" for n in range(-40, 40)]
    problem = PROBLEMS[0]
    first = [one.verify(problem, text).right for text in texts]
    assert [one.verify(problem, f"let me think, {text}").right for text in texts] == first
    assert [two.verify(problem, text).right for text in texts] != first
    assert 20 < sum(first) < 60


def test_votes_count_the_same_answers_and_the_reason_tells_the_truth() -> None:
    task = Noisy(task=TRUTH, false_positive=1.0, false_negative=1.0)
    problem = PROBLEMS[0]
    wrong, right = (task.verify(problem, f"answer {a[problem.id]}") for a in (WRONG, RIGHT))
    assert (wrong.outcome, wrong.value, wrong.answer) == (Outcome.RIGHT, 1.0, WRONG[problem.id])
    assert (right.outcome, right.value, right.answer) == (Outcome.WRONG, 0.0, RIGHT[problem.id])
    assert "in truth wrong" in wrong.reason and "in truth right" in right.reason


class Undecided(Arithmetic):
    def verify(self, problem: Problem, text: str) -> Verdict:
        return Verdict(Outcome.UNSCORED, None, None, "down")


def test_unscored_is_never_turned_round() -> None:
    task = Noisy(task=Undecided(), false_positive=1.0, false_negative=1.0)
    assert task.verify(PROBLEMS[0], "answer 3").outcome is Outcome.UNSCORED


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    verdict = Noisy(task=TRUTH, false_positive=0.5).verify(PROBLEMS[0], text + "\ud800")
    assert verdict.value == float(verdict.right)


def test_the_problems_are_those_of_the_task() -> None:
    task = make_task("noisy:fp=0.1,fn=0.05,seed=3:countdown:count=3")
    assert task == Noisy(task=make_task("countdown:count=3"), false_positive=0.1, false_negative=0.05, seed=3)
    assert task.problems("test", 5, seed=1) == make_task("countdown:count=3").problems("test", 5, seed=1)
    assert task.name == "countdown"
    assert noisy_task("fp=.5:countdown").count_problems("test") == make_task("countdown").count_problems("test")
    assert noisy_task("fp=.5:arithmetic").count_problems("test") is None


@pytest.mark.parametrize(
    "spec",
    [
        "fp=0.1",
        "fp=1.1:countdown",
        "fp=-1:countdown",
        "fp=:countdown",
        "fp=0.1,fp=0.2:countdown",
        "seed=a:countdown",
        "",
    ],
)
def test_bad_settings(spec: str) -> None:
    with pytest.raises(InvalidValue):
        noisy_task(spec)


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match="fn, fp, seed"):
        noisy_task("rate=0.1:countdown")
    with pytest.raises(UnknownName, match="did you mean 'countdown'"):
        noisy_task("fp=0.1:contdown")
    with pytest.raises(InvalidValue):
        Noisy(task=TRUTH, false_positive=1.5)
