"""A policy and a value head on one body: the same logits as the policy alone, saved so that transformers loads them."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from clew.core.errors import CheckpointError
from clew.learn.optim import split_parameters
from clew.models.architecture import SmallQwen3, build_model
from clew.models.checkpoint import load_checkpoint, save_checkpoint
from clew.models.shared_value import HEAD_FILE, PolicyWithValue, save_value_head, with_saved_head
from clew.models.tokenizer import build_tokenizer

SIZE = SmallQwen3(width=36, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=48, context=96)


def qwen():
    return build_model(SIZE, build_tokenizer(), seed=1).eval()


def llama():
    config = LlamaConfig(
        vocab_size=90,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def with_head(policy):
    model = PolicyWithValue(policy)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        model.score.weight.normal_()
        model.score.bias.fill_(0.25)
    return model


IDS = torch.tensor([[7, 8, 9, 10], [11, 12, 0, 0]])
MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])


@pytest.mark.parametrize("make", [qwen, llama])
def test_one_forward_gives_the_policys_logits_and_values_of_the_same_states(make):
    policy = make()
    model = with_head(policy)
    with torch.no_grad():
        found = model(IDS, MASK)
        plain = policy(input_ids=IDS, attention_mask=MASK.long(), output_hidden_states=True)
        states = plain.hidden_states[-1][MASK]
        values = states @ model.score.weight[0] + 0.25
    assert torch.allclose(found.logits, plain.logits[MASK], atol=2e-4)
    assert torch.allclose(found.values, values, atol=2e-4)


@pytest.mark.parametrize("make", [qwen, llama])
def test_both_losses_reach_the_shared_body(make):
    model = with_head(make())
    found = model(IDS, MASK)
    body = [p for name, p in model.named_parameters() if "layers.0" in name]
    from_values = torch.autograd.grad(found.values.sum(), body, retain_graph=True)
    from_logits = torch.autograd.grad(found.logits.log_softmax(-1)[:, 3].sum(), body)
    assert all(g.abs().max() > 0 for g in (*from_values, *from_logits))
    assert not any(p is model.score.weight for p in split_parameters(model).matrices)


def test_the_policy_loads_in_transformers_and_the_head_comes_back(tmp_path):
    policy = qwen()
    model = with_head(policy)
    save_checkpoint(policy, build_tokenizer(), tmp_path)
    save_value_head(model, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(IDS, MASK)
        assert torch.allclose(plain(input_ids=IDS).logits[MASK], expected.logits, atol=2e-4)
        back = with_saved_head(load_checkpoint(tmp_path).model, tmp_path)(IDS, MASK)
    assert torch.equal(back.values, expected.values)


def test_an_untrained_head_says_nothing():
    with torch.no_grad():
        assert PolicyWithValue(llama())(IDS, MASK).values.tolist() == [0.0] * 6


def test_a_head_that_is_missing_damaged_or_of_another_width_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no value head"):
        with_saved_head(llama(), tmp_path)
    (tmp_path / HEAD_FILE).write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="no value head"):
        with_saved_head(llama(), tmp_path)
    save_value_head(with_head(copy.deepcopy(qwen())), tmp_path)
    with pytest.raises(CheckpointError, match="same width"):
        with_saved_head(llama(), tmp_path)
