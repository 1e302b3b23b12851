"""Runs stop when too many verdicts are unscored."""

from __future__ import annotations

import pytest

from clew.core.errors import InvalidValue, TooManyUnscored
from clew.core.types import Outcome, Problem, Sampling, Verdict
from clew.evaluate.memo import MemoJudge
from clew.evaluate.sample import sample_groups
from clew.evaluate.unscored import UnscoredGuard
from clew.search.policies import ScriptedPolicy
from clew.tasks import make_task

RIGHT = Verdict(Outcome.RIGHT, 1.0)
LOST = Verdict(Outcome.UNSCORED, None, reason="the judge is away")


class Failing:
    """A verifier that fails on every `period`-th call."""

    def __init__(self, period: int) -> None:
        self.calls, self.period = 0, period

    def verify(self, problem: Problem, text: str) -> Verdict:
        self.calls += 1
        return LOST if self.calls % self.period == 0 else RIGHT

    def extract(self, text: str) -> str | None:
        return text


def test_it_stops_with_the_first_above_the_limit_and_not_before_enough_were_seen():
    guard = UnscoredGuard(limit=0.05, at_least=100)
    for _ in range(94):
        guard.see(RIGHT)
    for _ in range(5):
        guard.see(LOST)
    guard.see(RIGHT)  # 5 of 100 is not more than 5 %
    with pytest.raises(TooManyUnscored, match=r"6 of 101.*the judge is away") as caught:
        guard.see(LOST)
    assert caught.value.accepted and caught.value.advice and caught.value.exit_status == 1


def test_all_lost_is_told_at_the_hundredth():
    guard = UnscoredGuard()
    for _ in range(99):
        guard.see(LOST)
    with pytest.raises(TooManyUnscored):
        guard.see(LOST)


def test_texts_judged_again_count_again():
    judge = MemoJudge(Failing(1), UnscoredGuard(at_least=3))
    problem = make_task("countdown").problems("test", 1, 0)[0]
    for _ in range(2):
        judge.verify(problem, "same")
    with pytest.raises(TooManyUnscored):
        judge.verify(problem, "same")


@pytest.mark.parametrize(("period", "stops"), [(10, True), (25, False)])
def test_samples_of_a_policy_stop_a_run(period, stops):
    problems = make_task("countdown").problems("test", 40, 0)
    policy = ScriptedPolicy(lambda prompt, sampling: f"answer {prompt.seed}")

    def sample():
        return sample_groups(policy, Failing(period), problems, n=4, sampling=Sampling())

    if stops:
        with pytest.raises(TooManyUnscored):
            sample()
    else:
        assert sum(len(group.scored) for group in sample()) == 160 - 160 // period


@pytest.mark.parametrize("settings", [{"limit": -0.1}, {"limit": 1.1}, {"limit": float("nan")}, {"at_least": 0}])
def test_limits_that_make_no_sense(settings):
    with pytest.raises(InvalidValue):
        UnscoredGuard(**settings)
