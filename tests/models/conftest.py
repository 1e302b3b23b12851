"""Random models whose predictions are far from uniform, so that a wrong computation shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from clew.models.architecture import SmallQwen3
from clew.models.tokenizer import build_tokenizer

TINY = SmallQwen3(width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=48, context=96)
DEVIATION = 0.08
"""Of the matrices; four times what initialisation uses."""


def _model(size: SmallQwen3 = TINY, seed: int = 0, *, vocabulary: int = 1051, tied: bool = True) -> Any:
    """A Qwen3 with norm weights between 0.5 and 1.5, built without `build_model`, whose embedding is special."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.head_width,
        intermediate_size=size.ffn_width,
        max_position_embeddings=size.context,
        tie_word_embeddings=tied,
        initializer_range=DEVIATION,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    return _model


@pytest.fixture(scope="session")
def model() -> Any:
    """Shared by tests that do not change it."""
    return _model()
