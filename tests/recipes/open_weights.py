"""Tiny random models of other families, with a chat format of their own: what `clew rl` and `clew sft` learn on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, Qwen2Config

from clew.models.tokenizer import build_tokenizer
from clew.models.transformers_policy import TransformersPolicy

CHAT = "{% for m in messages if m['role'] == 'user' %}asks {{ m['content'] }}\n{% endfor %}says"
"""Without system messages, which are long, and with one kind of prompt."""
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "bos_token_id": None,
}
FAMILIES = {
    "llama": (LlamaConfig, {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, {"num_key_value_heads": 2}),
    "gpt-neox": (GPTNeoXConfig, {}),
}


def tokenizer_of(chat: str = CHAT) -> Any:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = chat
    return tokenizer


def model_of(family: str, *, context: int = 56, seed: int = 0, ends: float = 0.0, **changes: Any) -> Any:
    """`ends`: by how much the logit of the end is raised, by a bias that heads seldom have."""
    tokenizer = build_tokenizer()
    kind, own = FAMILIES[family]
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    shape = SHAPE | own | special | {"vocab_size": len(tokenizer), "max_position_embeddings": context} | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(kind(**shape)).eval()
    if ends:
        bias = torch.zeros(len(tokenizer))
        bias[tokenizer.eos_token_id] = ends
        model.lm_head.bias = torch.nn.Parameter(bias)
    return model


def policy_of(family: str, **changes: Any) -> TransformersPolicy:
    return TransformersPolicy(model_of(family, **changes), tokenizer_of(), name=family)


def saved(directory: Path, family: str, **changes: Any) -> Path:
    """A Hugging Face directory of the model."""
    policy = policy_of(family, **changes)
    policy.model.save_pretrained(directory)
    policy.tokenizer.save_pretrained(directory)
    return directory
