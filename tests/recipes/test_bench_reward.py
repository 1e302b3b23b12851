"""The bench of rewards: what is compared is compared at equal tokens, and held-out agreement is measured as it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_policy import SPEC, TASK, fine_tuned

from clew import cli
from clew.core.errors import InvalidValue
from clew.recipes import bench_reward
from clew.recipes.bench_reward import agreement, at_equal_tokens, compare_guides, measure_reward
from clew.recipes.process_reward import ProcessRewardSettings
from clew.recipes.reward_train import RewardTrainConfig
from clew.recipes.reward_train import main as train
from clew.recipes.stage import load_policy
from clew.reward.countdown_value import ExactCountdownValue

FEW = replace(
    bench_reward.PRM, problems=60, samples=2, held_out=8, measured=8, measured_samples=4, rows=8, max_tokens=32
)


def row(reward, tokens, mean, gap=0.02):
    return {
        "reward": reward,
        "cost": {"tokens": tokens},
        "accuracy": {"mean": mean, "low": mean - gap, "high": mean + gap},
    }


def test_the_process_reward_may_not_take_more_tokens_than_the_best_of_the_outcome_rewards():
    rows = [
        row("outcome", 100, 0.4),
        row("outcome", 200, 0.6),
        row("process", 90, 0.5),
        row("process", 200, 0.7),
        row("process", 201, 0.9),
    ]
    found = at_equal_tokens(rows)
    assert (found["outcome"], found["process"], found["better"]) == (rows[1], rows[3], True)
    assert not at_equal_tokens([rows[1], row("process", 200, 0.63)])["better"]
    alone = at_equal_tokens([rows[0], row("process", 101, 1.0)])
    assert alone["process"] is None and not alone["better"]
    tied = at_equal_tokens([row("outcome", 200, 0.6), row("outcome", 50, 0.6), row("process", 50, 0.8)])
    assert tied["outcome"]["cost"]["tokens"] == 50 and tied["better"]


@pytest.fixture(scope="module")
def policy_run(tmp_path_factory):
    """A policy that has learnt to write derivations, some of them right."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield fine_tuned(tmp_path_factory.mktemp("policy"), steps=100)
    torch.set_num_threads(before)


def test_the_exact_value_agrees_with_itself(policy_run, monkeypatch):
    monkeypatch.setattr(bench_reward, "MEASURED", 20)
    policy = load_policy(policy_run)
    found = agreement(ExactCountdownValue(task=TASK, policy=policy), policy, TASK, seed=0, settings=FEW)
    assert 0.0 < found["reachable"] < 1.0
    assert found["spearman"] == pytest.approx(1.0) and found["auc"] == 1.0


def test_guides_of_two_rewards_are_compared(policy_run, tmp_path):
    settings = replace(FEW, mode="think")
    for kind in ("outcome", "process"):
        # The weight of ends is a setting of process rewards alone.
        changes = {"end_weight": ProcessRewardSettings().end_weight} if kind == "outcome" else {}
        config = RewardTrainConfig(
            kind=kind,
            checkpoint=policy_run,
            out=tmp_path / kind,
            task=SPEC,
            settings=replace(settings, **changes),
            json=True,
        )
        assert train(config) == 0
    found = compare_guides(
        policy_run,
        tmp_path / "process",
        tmp_path / "outcome",
        task=SPEC,
        problems=6,
        sizes=(2,),
        strategies=("best-of-n:n=*", "beam:n=*,m=2"),
        max_tokens=32,
    )
    told = [(r["reward"], r["strategy"].partition(":")[0]) for r in found["rows"]]
    assert told == [(reward, name) for reward in ("outcome", "process") for name in ("best-of-n", "beam")]
    assert all(r["cost"]["scorer_tokens"] > 0 and r["num_failed"] == 0 for r in found["rows"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["rollout", "--process-reward", "x", "--outcome-reward", "y"],
        ["reward", "--checkpoint", "x", "--process-reward", "x"],
        ["reward"],
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, capsys):
    assert cli.main(["bench", *arguments]) == InvalidValue.exit_status
    assert "what to do" in capsys.readouterr().err


def test_a_policy_is_needed():
    with pytest.raises(InvalidValue, match="--checkpoint"):
        measure_reward(checkpoint=None, seed=0)
