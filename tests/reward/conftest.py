"""A small value model that is far from saying the same of everything."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clew.models.architecture import SmallQwen3, build_model
from clew.models.tokenizer import build_tokenizer
from clew.models.value_head import value_model_of

TINY = SmallQwen3(width=36, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=48, context=96)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture(scope="session")
def policy_model(tokenizer: Any) -> Any:
    return build_model(TINY, tokenizer, seed=1).eval()


@pytest.fixture(scope="session")
def value_model(policy_model: Any) -> Any:
    """Random weights everywhere, the norms' and the head's too; shared by tests that do not change it."""
    model = value_model_of(policy_model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(2)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
        model.score.weight.normal_(std=1.0)
        model.score.bias.fill_(0.3)
    return model


@pytest.fixture(scope="session")
def llama(tokenizer: Any) -> Any:
    """A causal language model of another family, whose forward pass is its library's."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=96,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LlamaForCausalLM(config).eval()


@pytest.fixture(params=["policy_model", "llama"])
def backbone(request: pytest.FixtureRequest) -> Any:
    """A tiny policy of each family; copy it before training it."""
    return request.getfixturevalue(request.param)
