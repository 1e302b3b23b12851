"""Responses on a shared prompt against prompts and responses in one, by transformers' own logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from clew.core.errors import InvalidValue
from clew.models.shared_prompt import grouped, response_logprobs

SIZE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "tie_word_embeddings": True,
}
PROMPTS = [[5, 6, 7, 8, 9], [11], [5, 6, 2]]
RESPONSES = [[[1, 2, 3], [4]], [[1, 1, 1, 1]], [[9, 8], [9, 7], [3]]]


def make(kind: str) -> Any:
    torch.manual_seed(0)
    return (LlamaForCausalLM(LlamaConfig(**SIZE)) if kind == "llama" else Qwen3ForCausalLM(Qwen3Config(**SIZE))).eval()


def one_by_one(model: Any, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Each sample alone, prompt included, from full logits."""
    out, row = torch.zeros(weights.shape), 0
    for prompt, group in zip(PROMPTS, RESPONSES, strict=True):
        for response in group:
            logprobs = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
            for t, token in enumerate(response):
                out[row, t] = logprobs[len(prompt) + t - 1, token]
            row += 1
    return out.detach(), list(torch.autograd.grad((out * weights).sum(), list(model.parameters())))


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_values_and_gradients_are_those_of_prompt_and_response_in_one(kind: str) -> None:
    model, batch = make(kind), grouped(PROMPTS, RESPONSES)
    weights = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(1))
    expected, gradients = one_by_one(model, weights)
    ours = response_logprobs(model, batch)
    torch.testing.assert_close(ours.detach(), expected, rtol=0, atol=1e-5)
    found = torch.autograd.grad((ours * weights).sum(), list(model.parameters()))
    for gradient, wanted in zip(found, gradients, strict=True):
        assert (gradient - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max()))


def test_responses_of_one_token_need_the_prompt_alone() -> None:
    model, batch = make("llama"), grouped([[5, 6], [7]], [[[3], [4]], [[3]]])
    expected = [model(input_ids=torch.tensor([p])).logits[0, -1].log_softmax(-1) for p in ([5, 6], [7])]
    found = response_logprobs(model, batch)[:, 0]
    torch.testing.assert_close(found, torch.stack([expected[0][3], expected[0][4], expected[1][3]]), rtol=0, atol=1e-5)


def test_nothing_empty_and_no_capped_logits() -> None:
    for prompts, responses in (([[]], [[[1]]]), ([[1]], [[[]]]), ([[1]], [[]])):
        with pytest.raises(InvalidValue):
            grouped(prompts, responses)
    model = make("llama")
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(InvalidValue):
        response_logprobs(model, grouped([[1]], [[[1]]]))
