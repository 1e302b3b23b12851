"""clew's own small models: a Qwen3 configuration, so that every tool that loads Qwen3 loads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clew.initialize.vocabulary import LARGEST_NUMBER, OPERATORS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


EMBEDDING_SCALE = 0.1
"""Root mean square of an embedding's entries at the start; larger than usual, so that the optimiser's first steps
do not wash out the number features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallQwen3:
    """Size of a model trained from scratch. The default has about a million parameters."""

    width: int = 128
    """Hidden size, a multiple of `head_width`."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Query heads."""
    kv_heads: int = 1
    """Key and value heads (grouped-query attention); divides `heads`."""
    head_width: int = 32
    """Size of one head."""
    ffn_width: int = 384
    """Inner size of the gated feed-forward layer."""
    context: int = 512
    """Largest number of tokens in a sequence."""


def build_model(size: SmallQwen3, tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights that derive from `seed` alone, float32, on the CPU."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.head_width,
        intermediate_size=size.ffn_width,
        max_position_embeddings=size.context,
        tie_word_embeddings=True,
        attention_bias=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        dtype="float32",
    )
    from clew.models.number_embedding import place_number_features

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
        embedding = model.model.embed_tokens.weight
        with torch.no_grad():
            embedding.mul_(EMBEDDING_SCALE / config.initializer_range)
        roles = ("Ġ", *(f"Ġ{operator}Ġ" for operator in OPERATORS))
        families = [
            [tokenizer.convert_tokens_to_ids(f"{role}{n}") for n in range(LARGEST_NUMBER + 1)] for role in roles
        ]
        place_number_features(embedding, families, EMBEDDING_SCALE)
    return model
