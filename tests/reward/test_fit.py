"""Learning values: the gradient is that of the plain loss, and the right probability is learnt from outcomes."""

from __future__ import annotations

import copy
import random

import pytest
import torch

from clew.core.errors import TrainingDiverged
from clew.learn.optim import make_optimizer, split_parameters
from clew.models.value_head import value_model_of
from clew.reward.fit import Labelled, outcome_labels, probabilities, value_step


def examples_of(rng, count=9):
    made = []
    for _ in range(count):
        prompt = tuple(rng.randrange(6, 300) for _ in range(rng.randint(1, 4)))
        response = tuple(rng.randrange(6, 300) for _ in range(rng.randint(1, 20)))
        made.append(outcome_labels(prompt, response, rng.random(), end_weight=3.0))
    return made


def test_a_label_after_the_prompt_and_after_every_token():
    assert outcome_labels((7, 8), (9, 10, 11), 1.0, end_weight=4.0) == Labelled(
        ids=(7, 8, 9, 10, 11), places=(1, 2, 3, 4), labels=(1.0,) * 4, weights=(1.0, 1.0, 1.0, 4.0)
    )
    assert outcome_labels((7,), (), 0.0, end_weight=4.0).weights == (4.0,)


def plain_loss(model, examples):
    """One sequence after another, through transformers."""
    total = weight = 0.0
    for example in examples:
        logits = model(input_ids=torch.tensor([example.ids])).logits[0, :, 0]
        for place, label, w in zip(example.places, example.labels, example.weights, strict=True):
            p = torch.sigmoid(logits[place])
            total = total - w * (label * torch.log(p) + (1 - label) * torch.log(1 - p))
            weight += w
    return total / weight


def test_an_update_follows_the_gradient_of_the_plain_loss(value_model, monkeypatch):
    examples = examples_of(random.Random(0))
    model, reference = copy.deepcopy(value_model), copy.deepcopy(value_model)
    monkeypatch.setattr("clew.reward.fit.TOKENS_PER_PASS", 30)
    loss = plain_loss(reference, examples)
    loss.backward()
    seen = {}

    class Recorder:
        def step(self, *, multiplier):
            seen.update({name: p.grad.clone() for name, p in model.named_parameters()})

        def zero_grad(self):
            pass

    update = value_step(model, Recorder(), examples, step=0, max_grad_norm=1e9)
    assert update.loss == pytest.approx(loss.item(), rel=2e-5)
    assert update.tokens == sum(len(example.ids) for example in examples)
    for name, parameter in reference.named_parameters():
        assert torch.allclose(seen[name], parameter.grad, rtol=1e-3, atol=1e-4), name


def test_probabilities_are_those_of_each_sequence_alone(value_model):
    examples = examples_of(random.Random(1))
    for example, found in zip(examples, probabilities(value_model, examples), strict=True):
        with torch.no_grad():
            logits = value_model(input_ids=torch.tensor([example.ids])).logits[0, :, 0]
        assert found == pytest.approx(logits.sigmoid()[list(example.places)].tolist(), abs=2e-5)


def test_a_head_is_no_hidden_matrix(value_model):
    split = split_parameters(value_model)
    assert not any(parameter is value_model.score.weight for parameter in split.matrices)
    assert any(parameter is value_model.score.weight for parameter in split.others)


def test_values_are_learnt_from_outcomes(policy_model):
    """The last token of the prompt says how likely a response is right, a token in it then says whether it is."""
    rng = random.Random(0)
    chance = {20: 0.2, 21: 0.8}
    right, wrong = 30, 31

    def drawn():
        hint = rng.choice((20, 21))
        outcome = rng.random() < chance[hint]
        told = right if outcome else wrong
        return outcome_labels((7, hint), (40, told, rng.randrange(50, 60)), float(outcome))

    model = value_model_of(policy_model)
    optimizer = make_optimizer(model, lr_matrix=0.01, lr_other=4e-3)
    for step in range(60):
        value_step(model, optimizer, [drawn() for _ in range(64)], step=step)
    for hint, p in chance.items():
        for told, end in ((right, 1.0), (wrong, 0.0)):
            (found,) = probabilities(model, [outcome_labels((7, hint), (40, told, 55), 0.0)])
            assert found == pytest.approx([p, p, end, end], abs=0.12)


def test_an_update_that_is_not_finite_is_refused(policy_model, tmp_path):
    model = value_model_of(policy_model)
    with torch.no_grad():
        model.score.bias.fill_(float("nan"))
    before = model.model.norm.weight.clone()
    optimizer = make_optimizer(model)
    with pytest.raises(TrainingDiverged, match="step 5"):
        value_step(model, optimizer, examples_of(random.Random(2)), step=5, checkpoint=tmp_path)
    assert torch.equal(model.model.norm.weight, before)
