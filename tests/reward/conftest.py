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
