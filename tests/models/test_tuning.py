"""Adapters, precision, recomputed activations and averages: what each changes, and what it must not."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from clew.core.errors import InvalidValue
from clew.learn.batch import Example, pad
from clew.learn.ema import Average
from clew.models.any_backbone import plain_qwen3, target_logprobs
from clew.models.policy import LocalPolicy
from clew.models.tuning import ADAPTER, Tuning, recomputing
from clew.recipes.learner import Learner
from clew.recipes.stage import save_policy

EXAMPLES = [
    Example(prompt_ids=(2, 5, 6), response_ids=(7, 8, 9, 10)),
    Example(prompt_ids=(2, 5, 6, 8), response_ids=(7, 8)),
]


def learnt(make_model, tokenizer, tuning, *, updates=3):
    """A learner after some updates, its first log-probs and the last loss."""
    who = Learner(LocalPolicy(make_model(), tokenizer), tuning)
    optimizer = who.optimizer(lr_matrix=0.01, lr_other=0.01)
    first = who.logprobs(pad(EXAMPLES)).detach()

    def loss_of(rows):
        batch = pad([EXAMPLES[row] for row in rows])
        part = -(who.logprobs(batch) * batch.target_mask).sum()
        return part, part.item()

    for step in range(updates):
        update = who.update(optimizer, [e.length for e in EXAMPLES], loss_of, sum, step=step)
    who.finish()
    return who, first, update


def test_recomputed_activations_give_the_same_gradients(make_model, tokenizer):
    plain, _, kept = learnt(make_model, tokenizer, Tuning())
    again, _, recomputed = learnt(make_model, tokenizer, Tuning(gradient_checkpointing=True))
    assert recomputed.noted[0] == pytest.approx(kept.noted[0], rel=1e-5)
    assert recomputed.grad_norm == pytest.approx(kept.grad_norm, rel=1e-4)
    with recomputing(plain.model, Tuning(gradient_checkpointing=True)):
        assert not plain_qwen3(plain.model)
    assert plain_qwen3(again.model)


def test_bf16_is_near_float32_and_leaves_weights_in_it(make_model, tokenizer):
    _, exact, _ = learnt(make_model, tokenizer, Tuning())
    who, rough, _ = learnt(make_model, tokenizer, Tuning(precision="bf16"))
    assert 0.0 < float((rough - exact).abs().max()) < 0.05
    assert {p.dtype for p in who.model.parameters()} == {torch.float32}


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")  # what peft itself calls
def test_adapters_learn_alone_and_are_merged_into_what_is_saved(make_model, tokenizer, tmp_path):
    from one_token_world import stage
    from peft import PeftModel

    base = make_model()
    who, first, _ = learnt(make_model, tokenizer, Tuning(lora=4))
    batch = pad(EXAMPLES)
    plain = target_logprobs(base, batch.input_ids, batch.targets, batch.target_mask).detach()
    assert torch.allclose(first, plain, atol=1e-5)
    adapted = who.logprobs(batch).detach()
    assert float((adapted - plain).abs().max()) > 0.1
    frozen = {n: p for n, p in who.model.named_parameters() if not p.requires_grad}
    assert all(torch.equal(p, base.state_dict()[n.replace(".base_layer", "")]) for n, p in frozen.items())
    with stage(tmp_path / "run") as at:
        save_policy(who.policy, at.run, "lora", who.save_beside)
        path = at.run.checkpoint_path("lora")
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    merged = target_logprobs(loaded, batch.input_ids, batch.targets, batch.target_mask)
    assert torch.allclose(merged, adapted, atol=1e-4)
    # And peft puts the adapters on the model they were learnt on.
    again = PeftModel.from_pretrained(copy.deepcopy(base), path / ADAPTER)
    logits = again(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.log_softmax(-1)
    told = logits.gather(-1, batch.targets[..., None])[..., 0]
    assert torch.allclose(told[batch.target_mask], adapted[batch.target_mask], atol=1e-4)


def test_the_average_is_what_a_loop_gives_and_what_is_saved(make_model):
    model = make_model()
    name, parameter = next(iter(model.named_parameters()))
    average = Average(model, 0.5)
    expected = parameter.detach().clone()
    for n in range(1, 9):
        with torch.no_grad():
            parameter.add_(1.0)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * parameter.detach()
        average.update()
    assert torch.allclose(average.weights[name], expected, atol=1e-5)
    average.store()
    assert torch.equal(parameter, average.weights[name])


@pytest.mark.parametrize("changes", [{"lora": -1}, {"lora_alpha": 4.0}, {"ema": 1.0}, {"lora": 4, "lora_alpha": -1.0}])
def test_settings_without_sense_are_refused(changes):
    with pytest.raises(InvalidValue):
        Tuning(**changes)
