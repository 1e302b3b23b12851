"""One update of behaviour cloning (arXiv 2412.14135, equation 7): raise the log-probability of given responses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from clew.learn.aggregate import token_mean
from clew.learn.batch import Example, PaddedBatch
from clew.learn.gradients import accumulate_gradients, clip_gradient
from clew.learn.guard import check_finite
from clew.learn.optim import MuonAdamW
from clew.models.forward import token_logprobs

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


class Update(NamedTuple):
    """What an update did: mean loss in nats a token, gradient norm before clipping, tokens learnt from."""

    loss: float
    grad_norm: float
    tokens: int


def clone(  # noqa: PLR0913  an update and its limits, by name
    model: Qwen3ForCausalLM,
    optimizer: MuonAdamW,
    examples: Sequence[Example],
    *,
    step: int,
    multiplier: float = 1.0,
    max_grad_norm: float = 1.0,
    tokens_per_pass: int = 2048,
    checkpoint: Path | None = None,
) -> Update:
    """Minimise the mean negative log-likelihood of the responses' tokens by one step of `optimizer`.

    The prompt carries no loss. Raises `TrainingDiverged`, naming `checkpoint`, before a step that is not finite.
    """
    tokens = sum(example.num_learnt for example in examples)

    def loss_of(batch: PaddedBatch) -> tuple[Tensor, float]:
        logprobs = token_logprobs(model, batch.input_ids, batch.targets, batch.target_mask).logprobs
        part = token_mean(-logprobs, batch.target_mask, tokens=tokens)
        return part, part.item()

    loss = sum(accumulate_gradients(model, examples, loss_of, tokens_per_pass=tokens_per_pass))
    grad_norm = clip_gradient(model, max_grad_norm)
    check_finite(loss=loss, grad_norm=grad_norm, step=step, checkpoint=checkpoint)
    optimizer.step(multiplier=multiplier)
    optimizer.zero_grad()
    return Update(loss, grad_norm, tokens)
