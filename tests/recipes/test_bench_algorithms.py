"""Curves of algorithms: what they come to, by hand; and two names end to end on a policy of seconds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import small_policy
from rich.console import Console

from clew.core.cost import Cost
from clew.core.errors import InvalidValue, RunDirectoryError, TrainingDiverged
from clew.core.types import (
    Completion,
    FinishReason,
    Group,
    Message,
    Outcome,
    Problem,
    Reward,
    State,
    Trajectory,
    Verdict,
)
from clew.recipes import bench
from clew.recipes.bench_algorithms import Ground, Plan, entropy_of, look, measure_algorithms, one_run
from clew.recipes.bench_algorithms_summary import algorithms_table, apart, at_tokens, noise_of, summarised
from clew.recipes.rl_settings import PolicyGradient
from clew.recipes.stage import load_policy, training_problems


def row(rates, tokens, noise=(3.0, 1.0), learnt=40):
    looks = [
        {"updates": at * 10, "tokens": at * tokens, "pass_at_1": rate, "pass_at_k": rate + 0.1, "length": 40.0 + at}
        | {"entropy": 0.1, "cpu_s": 2.0 * at, "seconds": 3.0 * at}
        for at, rate in enumerate(rates)
    ]
    logged = {"noise_variance": noise[0], "noise_squared_gradient": noise[1], "ess": 1.0}
    return {"looks": looks, "logged": logged, "account": {"samples_learnt": learnt}, "diverged_after": None}


ROWS = {
    "cheap": [row([0.2, 0.3, 0.4], 100), row([0.1, 0.2, 0.32], 100, noise=(5.0, -0.5))],
    "dear": [row([0.2, 0.3, 0.44], 400), row([0.1, 0.2, 0.36], 400)],
    "still": [row([0.2, 0.2, 0.2], 100), row([0.1, 0.1, 0.12], 100, noise=(1.0, -2.0))],
}


def test_the_summary_by_hand():
    found = summarised(ROWS)
    dear = found["algorithms"]["dear"]
    assert found["equal_tokens"] == 200.0
    assert dear["pass_at_1"] == pytest.approx(0.40)
    assert [point["pass_at_1"] for point in dear["curve"]] == pytest.approx([0.15, 0.25, 0.40])
    # Half of the way to the first look: 0.25 and 0.15.
    assert dear["pass_at_1_at_equal_tokens"] == pytest.approx(0.20)
    assert dear["gained_by_seed"] == pytest.approx([0.24, 0.26])
    assert (dear["tokens_an_update"], dear["cpu_s_an_update"], dear["seconds_an_update"]) == (40.0, 0.2, 0.3)
    assert dear["samples_with_an_advantage_an_update"] == 2.0
    assert dear["clipped"] is None
    assert dear["ess"] == 1.0
    cheap = found["algorithms"]["cheap"]
    assert cheap["pass_at_1_at_equal_tokens"] == cheap["pass_at_1"] == pytest.approx(0.36)
    assert cheap["gradient_noise"] == pytest.approx(16.0)
    assert found["algorithms"]["still"]["gradient_noise"] is None


def test_the_names_that_end_apart_by_hand():
    found = apart(ROWS)
    # Residuals of [[.40, .32], [.44, .36], [.20, .12]] are all zero: seeds differ by 0.08 everywhere.
    assert found["least_difference"] == pytest.approx(0.0, abs=1e-12)
    assert found["order"] == ["dear", "cheap", "still"]
    assert [(a, b, round(away, 6)) for a, b, away in found["pairs_apart"]] == [
        ("dear", "cheap", 0.04),
        ("dear", "still", 0.24),
        ("cheap", "still", 0.2),
    ]
    ends = {"cheap": 0.2, "dear": 0.5, "still": 0.4}
    noisy = {name: [own[0], row([0.1, 0.1, ends[name]], 100)] for name, own in ROWS.items()}
    assert apart(noisy)["pairs_apart"] == []


def test_tokens_are_read_off_the_curve():
    looks = ROWS["cheap"][0]["looks"]
    assert [at_tokens(looks, tokens) for tokens in (0, 50, 100, 150, 200, 900)] == pytest.approx(
        [0.2, 0.25, 0.3, 0.35, 0.4, 0.4]
    )


def test_noise_is_a_quotient_of_sums():
    parts = [(4.0, 2.0), (6.0, -1.0), (5.0, 4.0)]
    logged = [{"noise_variance": v, "noise_squared_gradient": g} for v, g in parts]
    assert noise_of(logged) == pytest.approx(3.0)
    assert noise_of(logged[1:2]) is None


def test_the_entropy_is_that_of_the_distribution_sampled_from():
    probabilities = np.array([0.6, 0.3, 0.1])
    tokens = np.random.default_rng(0).choice(3, size=40_000, p=probabilities)
    problem = Problem("p", "", (Message("user", "1"),))
    logprobs = tuple(float(np.log(probabilities[token])) for token in tokens)
    completion = Completion(tokens=tuple(map(int, tokens)), logprobs=logprobs, finish=FinishReason.STOP)
    verdict = Verdict(Outcome.WRONG, 0.0, "")
    told = Trajectory(State(problem), "", verdict, Reward(0.0), Cost(), 0, completion)
    assert entropy_of([Group(problem, (told,))]) == pytest.approx(
        -(probabilities * np.log(probabilities)).sum(), abs=0.01
    )
    assert math.isnan(entropy_of([]))


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    base = PolicyGradient(direct=1.0, problems=6, group_size=4, max_tokens=40, noise_scale=1)
    return Plan(
        checkpoint=small_policy.fine_tuned(tmp_path_factory.mktemp("small"), steps=60),
        task=small_policy.SPEC,
        seeds=2,
        names=("reinforce", "vineppo"),
        looks=(0, 1, 2),
        held_out=20,
        samples=2,
        base=base,
    )


@pytest.mark.slow
def test_two_names_end_to_end(plan, tmp_path):
    measured = measure_algorithms(plan)
    rows = measured["seeds"]
    for seed in (0, 1):
        first = [rows[name][seed]["looks"][0] for name in plan.names]
        assert first[0] == first[1]
        assert [at["updates"] for at in rows["reinforce"][seed]["looks"]] == [0, 1, 2]
    # Both begin with the same samples; VinePPO samples on from the ends of their steps and is charged for it.
    plain, vine = (rows[name][0] for name in plan.names)
    assert vine["looks"][1]["tokens"] > 1.5 * plain["looks"][1]["tokens"]
    assert plain["account"]["samples"] == vine["account"]["samples"] == 48
    assert all(at["cpu_s"] >= 0 for at in vine["looks"])
    shown = Console(width=200, record=True)
    shown.print(algorithms_table(measured))
    assert "vineppo" in shown.export_text()
    bench.draw(tmp_path / "curves.svg", measured)
    assert "vineppo" in (tmp_path / "curves.svg").read_text()
    json.dumps(measured, allow_nan=False)


@pytest.mark.slow
def test_looking_changes_nothing_that_is_learnt(plan, monkeypatch):
    """The same run with other looks, and without measuring noise, ends with the same answers."""
    one = measure_algorithms(plan)
    from dataclasses import replace

    other = measure_algorithms(replace(plan, looks=(0, 2), base=replace(plan.base, noise_scale=None)))
    for name in plan.names:
        for a, b in zip(one["seeds"][name], other["seeds"][name], strict=True):
            assert a["looks"][-1]["rate"] == b["looks"][-1]["rate"]
            assert a["looks"][-1]["entropy"] == b["looks"][-1]["entropy"]


@pytest.mark.slow
def test_a_run_that_diverges_keeps_its_last_weights(plan, monkeypatch):
    from clew.learn import guard

    calls = iter(range(100))

    def breaks(model, optimizer, **how):
        if next(calls) == 1:
            raise TrainingDiverged("training diverged", "finite", "lower it")
        return real(model, optimizer, **how)

    real = guard.guarded_step
    monkeypatch.setattr(guard, "guarded_step", breaks)
    ground = Ground(
        policy=load_policy(plan.checkpoint),
        task=small_policy.TASK,
        problems=training_problems(small_policy.TASK, 0, most=50),
        held_out=small_policy.TASK.problems("test", 20, 0),
        seed=0,
    )
    found = one_run(plan, "reinforce", look(plan, ground.policy, ground), ground)
    assert found["diverged_after"] == 1
    assert [at["updates"] for at in found["looks"]] == [0, 1, 2]
    assert found["looks"][1]["rate"] == found["looks"][2]["rate"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"what": "algorithms"}, InvalidValue),
        ({"what": "verify", "figure": Path("x.svg")}, InvalidValue),
        ({"what": "algorithms", "checkpoint": Path("x"), "figure": Path("nowhere/x.svg")}, RunDirectoryError),
    ],
)
def test_what_does_not_go_together_is_told(options, error):
    with pytest.raises(error):
        bench.main(bench.BenchConfig(**options))
