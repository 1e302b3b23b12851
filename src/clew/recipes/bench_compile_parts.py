"""The parts of a training pass of SmolLM2-135M's shape that `clew bench compile` measures, with random weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, final
from unittest.mock import patch

from clew.core.seeds import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["fp32", "bf16"]
HEAD = ("read_part", "slope_part")
"""What the head computes of a chunk, forward and backward."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Sizes of SmolLM2-135M and of what is read; weights are random."""

    width: int = 576
    ffn_width: int = 1536
    heads: int = 9
    kv_heads: int = 3
    vocabulary: int = 49_152
    layers: int = 30
    """Of the whole model; one is measured."""
    rows: tuple[int, int] = (2, 5)
    """Fewest and most sequences of a batch."""
    length: tuple[int, int] = (90, 220)
    """Fewest and most tokens of a sequence."""
    chunk: tuple[int, int] = (250, 341)
    """Fewest and most tokens whose logits are made at once; 341 are what the head takes."""
    weight: float = 0.05
    """Standard deviation of weights."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something that a training pass computes, and how it runs on either side."""

    eager: Callable[..., Sequence[Tensor]]
    compiled: Callable[..., Sequence[Tensor]]
    """The same passes: gradients of the arguments."""
    batch: Callable[[int], tuple[Tensor, ...]]
    """The arguments of the batch of this number."""


def decoder_layer(shapes: Shapes, precision: Precision, seed: int) -> Part:
    """A layer of transformers' Llama, without padding."""
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=shapes.width,
        intermediate_size=shapes.ffn_width,
        num_attention_heads=shapes.heads,
        num_key_value_heads=shapes.kv_heads,
        num_hidden_layers=1,
        vocab_size=shapes.vocabulary,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        attn_implementation="sdpa",
    )
    layer, rotary = LlamaDecoderLayer(config, 0), LlamaRotaryEmbedding(config)
    random_numbers = torch.Generator().manual_seed(seed)
    weights = list(layer.parameters())
    with torch.no_grad():
        for weight in weights:
            if weight.dim() == 2:
                weight.normal_(std=shapes.weight, generator=random_numbers)

    def passes(forward: Callable[..., Tensor], states: Tensor) -> Sequence[Tensor]:
        positions = torch.arange(states.shape[1])[None]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            angles = rotary(states, positions)
            out = forward(states, attention_mask=None, position_ids=positions, position_embeddings=angles)
        return torch.autograd.grad(out.square().mean(), [states, *weights])

    def batch(number: int) -> tuple[Tensor, ...]:
        rng = random.Random(derive_seed(seed, "batch", number))
        size = (rng.randint(*shapes.rows), rng.randint(*shapes.length), shapes.width)
        return (torch.randn(size, generator=random_numbers, requires_grad=True),)

    compiled = torch.compile(layer.forward, dynamic=True)
    return Part(eager=partial(passes, layer.forward), compiled=partial(passes, compiled), batch=batch)


def head_chunk(shapes: Shapes, precision: Precision, seed: int) -> Part:
    """The log-probs of one chunk of tokens, in the types that the trainer gives its factors."""
    import torch

    from clew.models import chunked_logprobs

    random_numbers = torch.Generator().manual_seed(seed)
    size = (shapes.vocabulary, shapes.width)
    weight = (torch.randn(size, generator=random_numbers) * shapes.weight).requires_grad_()
    kind = torch.bfloat16 if precision == "bf16" else torch.float32

    def eager(states: Tensor, targets: Tensor) -> Sequence[Tensor]:
        read = chunked_logprobs.chunked_logprobs(states.to(kind), weight.to(kind), targets, chunk=shapes.chunk[1])
        return torch.autograd.grad(read.logprobs.mean(), [states, weight])

    quick: dict[str, Any] = {name: torch.compile(getattr(chunked_logprobs, name), dynamic=True) for name in HEAD}

    def compiled(states: Tensor, targets: Tensor) -> Sequence[Tensor]:
        with patch.multiple(chunked_logprobs, **quick):
            return eager(states, targets)

    def batch(number: int) -> tuple[Tensor, ...]:
        tokens = random.Random(derive_seed(seed, "batch", number)).randint(*shapes.chunk)
        states = torch.randn(tokens, shapes.width, generator=random_numbers, requires_grad=True)
        return states, torch.randint(shapes.vocabulary, (tokens,), generator=random_numbers)

    return Part(eager=eager, compiled=compiled, batch=batch)
