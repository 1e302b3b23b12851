"""Log-probabilities of tokens from hidden states, without the logits of all of them at once.

The logits of a few tokens are made, used and dropped, and made again in the backward pass: memory for
[chunk, vocabulary] instead of [tokens, vocabulary], the same numbers and gradients, and one multiplication more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Logits that are held at once."""
WORTHWHILE_BYTES = 256 * 2**20
"""Logits of this size and more are worth the second multiplication; smaller ones are quicker held."""


class ChunkedLogProbs(NamedTuple):
    """Of targets, and the entropies of the distributions they were drawn from, in nats, both [tokens]."""

    logprobs: Tensor
    entropies: Tensor


def worth_chunking(tokens: int, vocabulary: int) -> bool:
    """Whether logits [tokens, vocabulary] in float32 are large enough to be made in chunks."""
    return tokens * vocabulary * 4 >= WORTHWHILE_BYTES


def chunked_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float = 1.0, chunk: int | None = None
) -> ChunkedLogProbs:
    """log softmax(hidden @ weight.T / temperature) at the targets, and its entropy; both carry gradients.

    `hidden` [tokens, width], `weight` [vocabulary, width], `targets` [tokens] long. `chunk` tokens are taken at a time,
    by default as many as `CHUNK_BYTES` holds. Logits are made in the type of `hidden` and summed in float32 or better.
    """
    rows = max(CHUNK_BYTES // (4 * len(weight)), 1) if chunk is None else chunk
    return ChunkedLogProbs(*_Chunked.apply(hidden, weight, targets, temperature, rows))


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, rows: int
    ) -> tuple[Tensor, Tensor]:
        chosen, entropies, totals = (hidden.new_empty(len(hidden), dtype=_wide(hidden)) for _ in range(3))
        for part in _parts(len(hidden), rows):
            chosen[part], entropies[part], totals[part] = read_part(hidden[part], weight, targets[part], temperature)
        ctx.save_for_backward(hidden, weight, targets, totals, entropies)
        ctx.temperature, ctx.rows = temperature, rows
        ctx.set_materialize_grads(False)
        return chosen, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, Tensor, None, None, None]:
        hidden, weight, targets, totals, entropies = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for part in _parts(len(hidden), ctx.rows):
            known = [x if x is None else x[part] for x in (targets, totals, entropies, *grads)]
            narrow = slope_part(hidden[part], weight, *known, ctx.temperature)
            torch.matmul(narrow, weight, out=grad_hidden[part])
            grad_weight.addmm_(narrow.t(), hidden[part])
        return grad_hidden, grad_weight, None, None, None


def read_part(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs of the targets, entropies, and logs of the sums of the exponentials of the logits, all [tokens]."""
    logits = _logits(hidden, weight, temperature)
    highest = logits.amax(-1)
    logits.sub_(highest[:, None])
    chosen = logits.gather(-1, targets[:, None]).squeeze(-1)
    weights = logits.exp()
    total = weights.sum(-1)
    entropies = total.log() - torch.linalg.vecdot(weights, logits) / total
    return chosen - total.log(), entropies, highest + total.log()


def slope_part(  # noqa: PLR0913  what the forward pass knew, and two gradients
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    totals: Tensor,
    entropies: Tensor,
    of_chosen: Tensor | None,
    of_entropy: Tensor | None,
    temperature: float,
) -> Tensor:
    """Gradient of the product of `hidden` and `weight` [tokens, vocabulary], in the type of `hidden`."""
    logprobs = _logits(hidden, weight, temperature).sub_(totals[:, None])
    slope = _slope(logprobs, entropies, *(g if g is None else g[:, None] for g in (of_chosen, of_entropy)))
    if of_chosen is not None:
        slope.scatter_add_(-1, targets[:, None], of_chosen[:, None])
    return slope.div_(temperature).to(hidden.dtype)


def _slope(logprobs: Tensor, entropies: Tensor, of_chosen: Tensor | None, of_entropy: Tensor | None) -> Tensor:
    """Gradient of the logits but for the target's: d chosen = [target] - p, d entropy = -p (log p + entropy)."""
    if of_entropy is None:
        return logprobs.exp_().mul_(-of_chosen)
    p = logprobs.exp()
    pull = logprobs.add_(entropies[:, None]).mul_(-of_entropy)
    return p.mul_(pull if of_chosen is None else pull.sub_(of_chosen))


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ weight.t()).to(_wide(hidden))
    return logits if temperature == 1.0 else logits.div_(temperature)


def _wide(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32)


def _parts(tokens: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows))
