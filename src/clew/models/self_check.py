"""The check made before training: does the rollout engine sample from the distribution that is trained?

An engine and a training forward pass that disagree turn on-policy learning into off-policy learning
without a word (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from clew.core.errors import EngineMismatch, InvalidValue
from clew.core.protocols import Prompt
from clew.core.seeds import derive_seed
from clew.core.types import Problem, Sampling, State
from clew.models.forward import token_logprobs
from clew.models.policy import LocalPolicy

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


def check_engine(  # noqa: PLR0913 - two sides to compare, and how
    policy: LocalPolicy,
    model: Qwen3ForCausalLM,
    problems: Sequence[Problem],
    *,
    samples: int = 4,
    sampling: Sampling,
    seed: int,
    tolerance: float = 1e-4,
) -> float:
    """The largest difference between `policy`'s log-probs of its samples and those of `model`, in nats.

    Compared are the rollout engine, the training forward pass and the plain `Qwen3ForCausalLM`. Top-k and
    top-p are left off: training knows neither. Raises `EngineMismatch` above `tolerance` or if a number is not finite.
    """
    if not problems or samples < 1:
        given = f"{len(problems)} problems, {samples} samples"
        raise InvalidValue("what the engine is checked on", given, "at least one of each", "give it some problems")
    sampling = replace(sampling, top_k=0, top_p=1.0)
    prompts = [Prompt(State(p), derive_seed(seed, "check", p.id, i)) for p in problems for i in range(samples)]
    completions = policy.sample(prompts, sampling)
    contexts = [policy.prompt_ids(p.state.problem, sampling.mode) for p in prompts]
    batch = _pad(contexts, [c.tokens for c in completions])
    sampled = torch.tensor([value for c in completions for value in c.logprobs or ()])
    # At temperature 0 the engine reports the model's own probabilities.
    temperature = sampling.temperature or 1.0
    with torch.no_grad():
        trained = token_logprobs(model, *batch, temperature=temperature).logprobs[batch.mask]
        plain = _plain_logprobs(model, batch, temperature)
    worst = max(_difference(sampled, trained), _difference(sampled, plain))
    if not worst <= tolerance:
        raise EngineMismatch(
            f"the rollout engine's log-probabilities differ from the model's by {worst:.3g}",
            f"finite log-probabilities that differ by at most {tolerance:g}",
            "call the policy's refresh() after changing the model; if that was done, check the weights for NaN",
        )
    return worst


class _Padded(NamedTuple):
    """Right-padded inputs, the tokens that follow them, and which of those were sampled; all [batch, time]."""

    input_ids: Tensor
    targets: Tensor
    mask: Tensor


def _pad(contexts: Sequence[tuple[int, ...]], continuations: Sequence[tuple[int, ...]]) -> _Padded:
    rows = [c + t for c, t in zip(contexts, continuations, strict=True)]
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for index, (row, context) in enumerate(zip(rows, contexts, strict=True)):
        tokens[index, : len(row)] = torch.tensor(row)
        mask[index, len(context) : len(row)] = True
    return _Padded(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), mask[:, 1:].contiguous())


def _plain_logprobs(model: Qwen3ForCausalLM, batch: _Padded, temperature: float) -> Tensor:
    logits: Tensor = model(input_ids=batch.input_ids, use_cache=False).logits / temperature
    chosen: Tensor = logits.log_softmax(dim=-1).gather(-1, batch.targets.unsqueeze(-1)).squeeze(-1)
    return chosen[batch.mask]


def _difference(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference; infinite if any number is not finite."""
    largest = float((a - b).abs().max())
    return largest if math.isfinite(largest) else math.inf
