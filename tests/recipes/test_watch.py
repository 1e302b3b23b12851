"""Reinforcement learning on a reward of several terms, and the looks that compare it with the truth."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import Sampling
from clew.data.run import RunDirectory
from clew.evaluate import sample_groups
from clew.models.architecture import SmallQwen3, build_model
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.recipes.progress import Progress
from clew.recipes.rl import PolicyGradient, rl
from clew.recipes.stage import running
from clew.recipes.watch import make_terms, noted, response_kl, take_look, watched_problems
from clew.report.data import read_run
from clew.report.parting_plot import WatchPoint, proxy_and_truth, told
from clew.report.sections import over_optimisation
from clew.reward.length import Overlong
from clew.reward.overoptimisation import Look
from clew.reward.terms import Verified
from clew.tasks import Countdown

TASK = Countdown(count=2, high=20, target_high=60)
SIZE = SmallQwen3(width=40, layers=1, heads=2, kv_heads=1, head_width=16, ffn_width=48, context=128)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh(seed=0):
    return LocalPolicy(build_model(SIZE, build_tokenizer(), seed=seed), build_tokenizer())


@pytest.fixture(scope="module")
def paid_for_brevity(tmp_path_factory):
    """Metrics of a policy that began at random and was paid for ending early, and its run."""
    run = RunDirectory.create(tmp_path_factory.mktemp("watch") / "run", {})
    settings = PolicyGradient(
        steps=25,
        problems=8,
        group_size=16,
        max_tokens=24,
        lr_matrix=0.02,
        lr_other=4e-3,
        reward=("verifier", "overlong:longest=24,margin=23", "repetition:n=2"),
        watch=8,
    )
    with running("rl", run, Progress({"rl": 1.0}), total=25) as stage:
        rl(settings, policy=fresh(), task=TASK, problems=TASK.problems("train", 30, 0), seed=0, stage=stage)
    return run


def test_what_is_paid_for_is_learnt_and_told_part_by_part(paid_for_brevity):
    rows = paid_for_brevity.metrics("rl")
    # More than four standard errors of a mean of 128 lengths.
    assert rows[-1]["length"] < rows[0]["length"] - 3.0
    assert rows[-1]["reward_overlong"] > rows[0]["reward_overlong"] + 0.13
    assert all(row["accuracy"] == row["reward_verifier"] for row in rows)


def test_looks_begin_at_the_start_and_move_away_from_it(paid_for_brevity):
    looked = [row for row in paid_for_brevity.metrics("rl") if "proxy" in row]
    assert [row["step"] for row in looked] == [0, 8, 16, 24]
    assert looked[0]["kl_response"] == pytest.approx(0.0, abs=1e-6)
    assert looked[-1]["kl_response"] > 0.1
    assert looked[-1]["proxy"] > looked[0]["proxy"] + 0.1
    assert not any(row["parted"] for row in looked)


def test_the_report_draws_the_looks(paid_for_brevity):
    paid_for_brevity.write_json("summary.json", {"stages": []})
    section = over_optimisation(read_run(paid_for_brevity.path))
    (figure,) = section.figures
    assert "what is optimised" in figure.svg
    assert "what is wanted" in figure.svg
    assert "The alarm did not ring." in figure.caption


def test_a_figure_needs_two_looks_and_shows_the_alarm():
    points = [WatchPoint(0, 0.0, 0.1, 0.5, parted=False), WatchPoint(10, 1.5, 0.9, 0.2, parted=True)]
    assert proxy_and_truth(points[:1]) == ""
    assert ">alarm<" in proxy_and_truth(points)
    assert told(points).endswith("The alarm rang at step 10.")
    assert "from 0.5 to 0.2" in told(points)


def test_kl_of_responses_against_one_sequence_after_another():
    policy, reference = fresh(), build_model(SIZE, build_tokenizer(), seed=3).eval()
    groups = sample_groups(policy, TASK, TASK.problems("train", 3, 0), n=3, sampling=Sampling(max_tokens=10))
    total, responses = 0.0, 0
    for group in groups:
        prompt = policy.prompt_ids(group.problem, "think")
        for t in group.trajectories:
            logits = reference(input_ids=torch.tensor([prompt + t.completion.tokens])).logits[0]
            logprobs = logits.detach().double().log_softmax(-1)
            for at, (token, ours) in enumerate(zip(t.completion.tokens, t.completion.logprobs, strict=True)):
                d = logprobs[len(prompt) - 1 + at, token].item() - ours
                total += math.exp(d) - 1 - d
            responses += 1
    assert response_kl(policy, reference, groups, "think") == pytest.approx(total / responses, rel=1e-3)


def test_a_look_sees_the_same_problems_and_both_rewards():
    policy, problems = fresh(), watched_problems(TASK, 0)
    terms = (Verified(), Overlong(longest=8, margin=1))
    how = {"max_tokens": 8, "seed": 1, "step": 2}
    look = take_look(policy, copy.deepcopy(policy.model), TASK, problems, terms, **how)
    assert look == take_look(policy, copy.deepcopy(policy.model), TASK, problems, terms, **how)
    assert len(look.true_P) == len(problems) == len({p.id for p in problems})
    assert look.true <= 0.2
    assert look.proxy < look.true


def test_the_alarm_is_logged_and_said(capsys):
    steady = [Look(step=i, kl=float(i), proxy_P=(0.0, 0.1, 0.2), true_P=(0.5, 0.6, 0.7)) for i in range(3)]
    assert noted(steady[:1])["parted"] == 0.0
    assert noted(steady, window=2)["parted"] == 0.0
    assert capsys.readouterr().err == ""
    parted = Look(step=9, kl=4.0, proxy_P=(1.0, 1.1, 1.21), true_P=(0.1, 0.2, 0.31))
    assert noted([*steady, parted], window=3) == {
        "proxy": pytest.approx(3.31 / 3),
        "truth": pytest.approx(0.61 / 3),
        "kl_response": 4.0,
        "parted": 1.0,
    }
    assert "over-optimisation at step 9" in capsys.readouterr().err


def test_terms_that_do_not_exist_are_refused_before_anything_is_sampled():
    with pytest.raises(UnknownName, match="did you mean 'verifier'"):
        make_terms(("verifer",))
    with pytest.raises(InvalidValue, match="at least one term"):
        make_terms(())
    with pytest.raises(OSError, match="nowhere"):
        make_terms(("model:nowhere",))
