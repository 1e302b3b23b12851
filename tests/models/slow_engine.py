"""One row, one token at a time, through transformers: what the rollout engine is held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from clew.core.types import Sampling
from clew.models.sampling import draw, uniforms
from clew.models.written import Sampled

LOGPROB_TOLERANCE = 1e-4
STOPS = tuple(range(1, 1051, 9))
"""So many stop tokens that rows finish at different times."""

Context = tuple[int, ...]


def make_contexts(lengths: Sequence[int], seed: int = 0) -> list[Context]:
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(2, 1051, (n,), generator=generator).tolist()) for n in lengths]


@torch.no_grad()
def slow_sample(model: Any, context: Context, seed: int, sampling: Sampling, stops: Sequence[int]) -> Sampled:
    """One row, one token at a time, the whole sequence through transformers every time."""
    tokens: list[int] = []
    logprobs: list[float] = []
    noise = torch.from_numpy(uniforms([seed], sampling.max_tokens))[0]
    while len(tokens) < sampling.max_tokens and (not tokens or tokens[-1] not in stops):
        logits = model(input_ids=torch.tensor([[*context, *tokens]]), use_cache=False).logits[:, -1]
        drawn = draw(logits, noise[len(tokens)][None], sampling)
        tokens.append(int(drawn.tokens))
        logprobs.append(float(drawn.logprobs))
    return Sampled(tuple(tokens), tuple(logprobs), tokens[-1] in stops, len(context), 0)


def assert_same(sampled: Sequence[Sampled], expected: Sequence[Sampled], tolerance: float) -> None:
    assert [s.tokens for s in sampled] == [e.tokens for e in expected]
    assert [s.stopped for s in sampled] == [e.stopped for e in expected]
    for s, e in zip(sampled, expected, strict=True):
        assert s.logprobs == pytest.approx(e.logprobs, abs=tolerance)
