"""How a reward of any kind is fitted: passes, rates, when it ends and which weights it keeps."""

from __future__ import annotations

import io
import random
from functools import partial

import pytest
import torch
from one_token_world import learner as policy_learner
from torch import nn

from clew.core.cost import Cost
from clew.core.types import Completion, FinishReason, Group, Outcome, Problem, Reward, State, Trajectory, Verdict
from clew.data.run import RunDirectory
from clew.learn.optim import make_optimizer
from clew.recipes.process_reward import ProcessRewardSettings
from clew.recipes.progress import Progress
from clew.recipes.reward_fit import Learner, fit
from clew.recipes.reward_kinds import ImplicitSettings, PreferenceSettings, Source, implicit, outcome, preference
from clew.recipes.stage import running
from clew.reward.bradley_terry import mean_loss
from clew.reward.fit import Update
from clew.reward.implicit import implicit_loss
from clew.reward.load import RewardCard


def fitted(tmp_path, losses, **settings):
    """A fit of a model whose one weight counts its updates, given what the held-out loss is at each look."""
    model, seen = nn.ParameterList([torch.zeros(1)]), []
    model.config, looks = None, iter(losses)

    def update(optimizer, batch, **limits):
        with torch.no_grad():
            model[0].add_(1.0)
        seen.append((list(batch), limits))
        return Update(0.5, 0.25, len(batch))

    run = RunDirectory.create(tmp_path / "run", {})
    with run.writing_checkpoint("before") as directory:
        (directory / "config.json").write_text("{}")
    how = ProcessRewardSettings(rows=2, **settings)
    learner = Learner(
        model=model, card=RewardCard(), examples=list(range(10)), update=update, held_out_loss=partial(next, looks)
    )
    with running("reward", run, Progress({"reward": 1.0}, stream=io.StringIO()), total=1.0) as stage:
        told = fit(learner, how, rng=random.Random(0), stage=stage)
    return model[0].item(), told, seen, run


def test_every_example_is_learnt_from_once_an_epoch_at_rates_that_rise_and_fall(tmp_path):
    weight, told, seen, run = fitted(tmp_path, [9.0, 8.0, 7.0], epochs=2, evaluate_every=5, patience=9)
    assert (weight, told) == (10.0, {"loss_before": 9.0, "loss": 7.0, "updates": 10})
    for epoch in (seen[:5], seen[5:]):
        assert sorted(example for batch, _ in epoch for example in batch) == list(range(10))
    rates = [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert [limits["multiplier"] for _, limits in seen] == pytest.approx(rates)
    assert [limits["step"] for _, limits in seen] == list(range(10))
    assert {limits["checkpoint"] for _, limits in seen} == {run.checkpoint_path("before")}
    rows = run.metrics("reward")
    assert [row["lr"] for row in rows] == pytest.approx(rates)
    assert [row.get("validation_loss") for row in rows] == [None] * 4 + [8.0] + [None] * 4 + [7.0]


def test_the_weights_of_the_lowest_loss_are_kept_and_patience_ends_it(tmp_path):
    weight, told, seen, _ = fitted(tmp_path, [9.0, 5.0, 6.0, 5.0], epochs=4, evaluate_every=2, patience=2)
    assert len(seen) == 6
    assert (weight, told) == (2.0, {"loss_before": 9.0, "loss": 5.0, "updates": 6})


def test_a_loss_that_never_falls_leaves_the_first_weights_and_says_so(tmp_path, capsys):
    weight, told, _, _ = fitted(tmp_path, [1.0, 2.0], epochs=1, evaluate_every=5, patience=3)
    assert (weight, told["loss"]) == (0.0, 1.0)
    assert "no update lowered the loss" in capsys.readouterr().err


def judged(problem, *rows):
    """A group of responses, each with its tokens and whether it is right."""
    return Group(
        problem,
        tuple(
            Trajectory(
                state=State(problem, tokens, finished=True),
                text="",
                verdict=Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right)),
                reward=Reward(float(right), {}),
                cost=Cost(),
                seed=0,
                completion=Completion(tokens, None, FinishReason.STOP),
            )
            for tokens, right in rows
        ),
    )


@pytest.fixture
def source():
    who = policy_learner()
    groups = [judged(Problem("p", "t", ()), ((300, 301), True), ((302,), False), ((303, 304, 305), False))]
    return Source(
        model=who.policy.model, tokenizer=who.tokenizer, prompt_ids=who.prompt_ids, mode="direct", seed=0,
        train=groups, held_out=groups,
    )  # fmt: skip


def test_centring_and_margin_are_those_that_are_asked_for(source):
    made = preference(source, PreferenceSettings(pairs=9, margin=0.5, centring=3.0))
    head = made.model.score.weight
    with torch.no_grad():
        head.copy_(torch.randn(head.shape, generator=torch.Generator().manual_seed(0)))
    assert len(made.examples) == 2
    assert made.card == RewardCard(kind="preference", mode="direct")
    expected = mean_loss(made.model, made.examples, centring=3.0)
    assert made.held_out_loss() == pytest.approx(expected)
    told = made.update(make_optimizer(made.model), made.examples, step=0)
    assert told.loss == pytest.approx(expected, rel=1e-5)
    assert {pair.margin for pair in made.examples} == {0.5}
    assert expected != pytest.approx(mean_loss(made.model, made.examples), rel=1e-3)


def test_beta_is_the_one_that_is_asked_for(source):
    made = implicit(source, ImplicitSettings(beta=2.0))
    with torch.no_grad():
        made.model.model.norm.weight.mul_(1.5)
    assert made.card == RewardCard(kind="implicit", mode="direct", beta=2.0)
    expected = implicit_loss(made.model, made.examples, beta=2.0)
    assert expected != pytest.approx(implicit_loss(made.model, made.examples), rel=1e-3)
    assert made.held_out_loss() == pytest.approx(expected)
    told = made.update(make_optimizer(made.model), made.examples, step=0)
    assert told.loss == pytest.approx(expected, rel=1e-5)


def test_an_outcome_reward_says_which_prompts_it_learnt_from(source):
    made = outcome(source)
    assert made.card == RewardCard(kind="outcome", mode="direct")
    prompt = len(source.prompt_ids(Problem("p", "t", ())))
    found = [(len(example.ids) - prompt, example.labels) for example in made.examples]
    assert found == [(2, (1.0,)), (1, (0.0,)), (3, (0.0,))]


def test_examples_hold_what_was_judged(source):
    first = implicit(source, ImplicitSettings()).examples[0]
    prompt = source.prompt_ids(Problem("p", "t", ()))
    assert (first.prompt_ids, first.response_ids, first.outcome) == (prompt, (300, 301), 1.0)
    ids = torch.tensor([[*prompt, 300, 301]])
    with torch.no_grad():
        logprobs = source.model(input_ids=ids).logits[0].log_softmax(-1)
    expected = [logprobs[len(prompt) - 1 + at, token].item() for at, token in enumerate((300, 301))]
    assert first.reference == pytest.approx(expected, abs=1e-4)
