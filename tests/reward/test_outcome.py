"""Outcome models on several backbones: transformers computes the same score, and right answers are told from wrong."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertLMHeadModel

from clew.core.errors import InvalidValue
from clew.core.types import Message, Problem, State
from clew.learn.optim import make_optimizer, split_parameters
from clew.models.any_backbone import plain_qwen3
from clew.models.plain_reader import PlainReader, reader_of
from clew.reward.fit import final_label, probabilities, value_step
from clew.reward.outcome import HeadReward, outcome_model_of

RIGHT, WRONG = 30, 31


def randomised(model, seed=5):
    """`model` with a head that says something."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
        model.score.weight.normal_()
    return model


def sequences(rng, count):
    return [tuple(rng.randrange(6, 300) for _ in range(rng.randint(1, 30))) for _ in range(count)]


def state_of(tokens):
    return State(Problem("p", "t", (Message("user", "x"),)), tokens)


def test_before_training_everything_is_as_likely_right_as_wrong(backbone):
    model = outcome_model_of(backbone)
    assert probabilities(model, [final_label((7,), (8, 9), 1.0, 1.0)]) == [[pytest.approx(0.5)]]
    assert type(model).__name__.endswith("ForSequenceClassification")


def test_transformers_loads_it_and_scores_a_padded_batch_alike(backbone, tmp_path):
    model = randomised(outcome_model_of(backbone))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    rows = sequences(random.Random(0), 7)
    width = max(map(len, rows))
    pad = loaded.config.pad_token_id
    ids = torch.tensor([row + (pad,) * (width - len(row)) for row in rows])
    with torch.no_grad():
        expected = loaded(input_ids=ids, attention_mask=(ids != pad).long()).logits[:, 0].sigmoid().tolist()
    found = probabilities(model, [final_label((row[0],), row[1:], 1.0, 1.0) for row in rows])
    assert [p for (p,) in found] == pytest.approx(expected, abs=2e-5)
    scorer = HeadReward(reader=reader_of(model), prompt_ids=lambda problem: (7,))
    states = [state_of(row) for row in rows]
    with torch.no_grad():
        alone = [loaded(input_ids=torch.tensor([(7, *row)])).logits.sigmoid().item() for row in rows]
    assert scorer.score(states, [None] * len(states)) == pytest.approx(alone, abs=2e-5)


def test_the_end_of_a_text_is_not_taken_for_padding(llama, tmp_path):
    """A tokenizer that pads with its end token: transformers must not score the token before the end."""
    before = llama.config.pad_token_id
    llama.config.pad_token_id = llama.config.eos_token_id
    try:
        model = randomised(outcome_model_of(llama))
    finally:
        llama.config.pad_token_id = before
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    row = (7, 8, 9, llama.config.eos_token_id)
    with torch.no_grad():
        expected = loaded(input_ids=torch.tensor([row])).logits.sigmoid().item()
    assert probabilities(model, [final_label(row[:1], row[1:], 1.0, 1.0)])[0] == pytest.approx([expected], abs=1e-5)


def test_a_right_answer_is_told_from_a_wrong_one(backbone):
    rng = random.Random(0)

    def drawn():
        right = rng.random() < 0.5
        response = (rng.randrange(50, 90), RIGHT if right else WRONG, rng.randrange(50, 90))
        return final_label((7, rng.randrange(50, 90)), response, float(right), 1.0)

    model = outcome_model_of(backbone)
    optimizer = make_optimizer(model, lr_matrix=0.01, lr_other=4e-3)
    for step in range(50):
        update = value_step(model, optimizer, [drawn() for _ in range(32)], step=step)
    assert update.loss < 0.1
    for example in [drawn() for _ in range(20)]:
        assert probabilities(model, [example])[0] == pytest.approx(example.labels, abs=0.2)


def test_gradients_of_any_backbone_are_those_of_the_plain_loss(llama):
    model = randomised(outcome_model_of(llama))
    rows = sequences(random.Random(1), 6)
    examples = [final_label((row[0],), row[1:], float(at % 2), 1.0) for at, row in enumerate(rows)]
    terms = []
    for at, row in enumerate(rows):
        p = model(input_ids=torch.tensor([row])).logits[0, 0].sigmoid()
        terms.append(-torch.log(p if at % 2 else 1 - p))
    torch.stack(terms).mean().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    seen = {}

    class Recorder:
        def step(self, *, multiplier):
            seen.update({name: p.grad.clone() for name, p in model.named_parameters()})

        def zero_grad(self):
            pass

    value_step(model, Recorder(), examples, step=0, max_grad_norm=1e9)
    for name, gradient in expected.items():
        assert torch.allclose(seen[name], gradient, rtol=1e-3, atol=1e-5), name


def test_readers_agree_and_count_what_they_compute(policy_model, llama):
    qwen = randomised(outcome_model_of(policy_model))
    contexts = [(7, 8, 9), (7, 8), (7, 8, 9), (20, *range(30, 60))]
    cached, plain = reader_of(qwen), PlainReader(qwen)
    for a, b in zip(cached.read(contexts), plain.read(contexts), strict=True):
        assert a.probs == pytest.approx(b.probs, abs=2e-5)
    assert plain_qwen3(qwen) and not isinstance(cached, PlainReader)
    assert [reading.computed for reading in plain.read(contexts)] == [3, 2, 0, 31]
    assert isinstance(reader_of(randomised(outcome_model_of(llama))), PlainReader)
    with pytest.raises(InvalidValue, match="context"):
        plain.read([tuple(range(97))])


def test_scoring_tells_its_cost_once(llama):
    scorer = HeadReward(reader=PlainReader(outcome_model_of(llama)), prompt_ids=lambda problem: (7, 8))
    states = [state_of((9, 10, 11)), state_of((9,))]
    assert scorer.cost_tokens(states) == 8
    scorer.score(states, [None, None])
    assert scorer.cost_tokens(states) == 8


def test_the_head_is_no_hidden_matrix(backbone):
    model = outcome_model_of(backbone)
    assert not any(parameter is model.score.weight for parameter in split_parameters(model).matrices)


def test_a_classifier_of_another_build_is_refused():
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=30)
    with pytest.raises(InvalidValue, match="BertLMHeadModel"):
        outcome_model_of(BertLMHeadModel(config.__class__(**{**config.to_dict(), "is_decoder": True})))
