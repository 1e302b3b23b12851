"""Preferences: loss against formula and a peer, gradient against autograd, and a preference that is learnt."""

from __future__ import annotations

import copy
import math
import random
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.learn.optim import make_optimizer
from clew.reward.bradley_terry import (
    Preference,
    bradley_terry_loss,
    mean_loss,
    preference_accuracy,
    preference_step,
)
from clew.reward.outcome import outcome_model_of

rewards = st.floats(-30, 30) | st.sampled_from([0.0, 1e-8, -1e-8])


def with_head(model, seed=5):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model.score.weight.normal_()
    return model


def drawn_pairs(rng, count, vocab=300):
    def text():
        return tuple(rng.randrange(6, vocab) for _ in range(rng.randint(1, 20)))

    return [Preference(chosen=text(), rejected=text(), margin=rng.choice((0.0, 0.5))) for _ in range(count)]


@given(rewards, rewards, st.floats(0, 3), st.floats(0, 1))
def test_loss_is_its_formula(chosen, rejected, margin, centring):
    found = bradley_terry_loss(
        torch.tensor([chosen], dtype=torch.float64),
        torch.tensor([rejected], dtype=torch.float64),
        margin=margin,
        centring=centring,
    ).item()
    expected = math.log1p(math.exp(-(chosen - rejected - margin))) + centring * (chosen + rejected) ** 2
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(rewards, rewards, st.floats(-5, 5))
def test_only_the_difference_counts_and_a_swap_flips_it(chosen, rejected, shift):
    a, b, c = (torch.tensor([x], dtype=torch.float64) for x in (chosen, rejected, shift))
    assert bradley_terry_loss(a, b).item() == pytest.approx(bradley_terry_loss(a + c, b + c).item(), abs=1e-9)
    # The two losses are -log of two probabilities that add up to one.
    both = math.exp(-bradley_terry_loss(a, b).item()) + math.exp(-bradley_terry_loss(b, a).item())
    assert both == pytest.approx(1.0, abs=1e-9)


def test_equal_answers_cost_ln_2():
    assert bradley_terry_loss(torch.zeros(3), torch.zeros(3)).tolist() == pytest.approx([math.log(2)] * 3)


def plain_rewards(model, answers):
    return torch.stack([model(input_ids=torch.tensor([answer])).logits[0, 0] for answer in answers])


def test_an_update_follows_the_gradient_of_the_plain_loss(backbone, monkeypatch):
    monkeypatch.setattr("clew.reward.bradley_terry.TOKENS_PER_PASS", 60)
    model = with_head(outcome_model_of(backbone))
    reference = copy.deepcopy(model)
    pairs = drawn_pairs(random.Random(0), 7)
    chosen, rejected = (plain_rewards(reference, [getattr(p, side) for p in pairs]) for side in ("chosen", "rejected"))
    margins = torch.tensor([pair.margin for pair in pairs])
    loss = (torch.log1p(torch.exp(-(chosen - rejected - margins))) + 0.1 * (chosen + rejected) ** 2).mean()
    loss.backward()
    seen = {}

    class Recorder:
        def step(self, *, multiplier):
            seen.update({name: p.grad.clone() for name, p in model.named_parameters()})

        def zero_grad(self):
            pass

    update = preference_step(model, Recorder(), pairs, step=0, centring=0.1, max_grad_norm=1e9)
    assert update.loss == pytest.approx(loss.item(), rel=2e-5)
    assert mean_loss(model, pairs, centring=0.1) == pytest.approx(loss.item(), rel=2e-5)
    accuracy = (chosen > rejected).float().mean().item()
    assert preference_accuracy(model, pairs) == pytest.approx(accuracy)
    for name, parameter in reference.named_parameters():
        assert torch.allclose(seen[name], parameter.grad, rtol=1e-3, atol=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("centring", [None, 0.01])
def test_loss_is_that_of_the_peer_on_the_same_weights(llama, centring):
    trl = pytest.importorskip("trl")
    model = with_head(outcome_model_of(llama))
    pairs = drawn_pairs(random.Random(2), 5)
    pad = model.config.pad_token_id
    answers = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    width = max(map(len, answers))
    ids = torch.tensor([answer + (pad,) * (width - len(answer)) for answer in answers])
    inputs = {
        "input_ids": ids,
        "attention_mask": (ids != pad).long(),
        "margin": torch.tensor([p.margin for p in pairs]),
    }
    trainer = SimpleNamespace(
        model=model,
        args=SimpleNamespace(center_rewards_coefficient=centring),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={
            "eval": {
                name: [] for name in ("num_tokens", "min_reward", "mean_reward", "max_reward", "accuracy", "margin")
            }
        },
        _total_train_tokens=0,
        _tp_size=1,
    )
    with torch.no_grad():
        peer = trl.RewardTrainer.compute_loss(trainer, model, inputs).item()
    assert mean_loss(model, pairs, centring=centring or 0.0) == pytest.approx(peer, rel=1e-5)


def test_a_preference_is_learnt_and_the_centring_keeps_rewards_near_zero(backbone):
    rng = random.Random(0)

    def drawn():
        first, last = rng.randrange(50, 90), rng.randrange(50, 90)
        return Preference(chosen=(7, first, 30, last), rejected=(7, first, 31, last))

    model = outcome_model_of(backbone)
    optimizer = make_optimizer(model, lr_matrix=0.01, lr_other=4e-3)
    before = preference_accuracy(model, [drawn() for _ in range(20)])
    for step in range(25):
        preference_step(model, optimizer, [drawn() for _ in range(16)], step=step, centring=0.05)
    held_out = [drawn() for _ in range(40)]
    assert before == 0.5
    assert preference_accuracy(model, held_out) == 1.0
    both = plain_rewards(model, [side for pair in held_out for side in (pair.chosen, pair.rejected)])
    assert abs(both.mean().item()) < 1.0


def test_an_empty_answer_is_refused():
    with pytest.raises(InvalidValue, match="at least one token"):
        Preference(chosen=(1,), rejected=())
