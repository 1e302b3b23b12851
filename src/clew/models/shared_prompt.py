"""Log-probabilities of groups of responses under any causal model of transformers, each group's prompt computed once.

The prompts go through the model alone; the samples' own tokens follow on copies of the keys and values that they left
in the library's cache, which carries gradients. The numbers are those of prompts and responses in one, for a fraction
of the work where prompts are long. Logits are made in chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clew.core.errors import InvalidValue
from clew.models.chunked_logprobs import chunked_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupedBatch:
    """Prompts, left-padded, and responses, right-padded."""

    prompts: Tensor
    """[groups, longest prompt] long."""
    prompt_mask: Tensor
    """[groups, longest prompt] bool: not padding."""
    owners: Tensor
    """[samples] long: the prompt of each response."""
    responses: Tensor
    """[samples, longest response] long."""
    mask: Tensor
    """[samples, longest response] bool: a token of the response."""


def grouped(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]]) -> GroupedBatch:
    """One batch of prompts [groups] and their responses [groups][samples], token ids. Raises `InvalidValue`."""
    samples = [(owner, response) for owner, group in enumerate(responses) for response in group]
    if not all(prompts) or not samples or not all(response for _, response in samples):
        raise InvalidValue("a prompt or response", (), "at least one token each", "leave empty ones out")
    width, longest = max(map(len, prompts)), max(len(response) for _, response in samples)
    left = [[0] * (width - len(ids)) + list(ids) for ids in prompts]
    right = [[*response, *[0] * (longest - len(response))] for _, response in samples]
    return GroupedBatch(
        prompts=torch.tensor(left),
        prompt_mask=torch.arange(width) >= width - torch.tensor([len(ids) for ids in prompts])[:, None],
        owners=torch.tensor([owner for owner, _ in samples]),
        responses=torch.tensor(right),
        mask=torch.arange(longest) < torch.tensor([len(response) for _, response in samples])[:, None],
    )


def response_logprobs(model: PreTrainedModel, batch: GroupedBatch) -> Tensor:
    """Log-probabilities of the responses' tokens [samples, longest response], 0 outside the mask; with gradients."""
    head: Any = model.get_output_embeddings()
    if (
        head is None
        or getattr(head, "bias", None) is not None
        or getattr(model.config, "final_logit_softcapping", None)
    ):
        accepted = "a model whose logits are one product of its hidden states, without a bias or a cap"
        raise InvalidValue("class of the model", type(model).__name__, accepted, "choose a Qwen, Llama or Mistral")
    hidden = _response_states(model, batch)[batch.mask]
    chosen = chunked_logprobs(hidden, head.weight, batch.responses[batch.mask]).logprobs
    return torch.zeros(batch.mask.shape, dtype=chosen.dtype).masked_scatter(batch.mask, chosen)


def _response_states(model: PreTrainedModel, batch: GroupedBatch) -> Tensor:
    """Final hidden states [samples, longest response, width] before each token of the responses."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    seen = batch.prompt_mask.long()
    read = model.base_model(
        input_ids=batch.prompts,
        attention_mask=seen,
        position_ids=(seen.cumsum(1) - 1).clamp_min(0),
        past_key_values=cache,
        use_cache=True,
    )
    first = read.last_hidden_state[:, -1].index_select(0, batch.owners)[:, None]
    if batch.responses.shape[1] == 1:
        return first
    for layer in cache.layers:
        # Not the cache's own way to choose rows: the gradient of indexing takes far longer than that of `index_select`.
        layer.keys, layer.values = (x.index_select(0, batch.owners) for x in (layer.keys, layer.values))
    own = batch.responses[:, :-1]
    lengths = seen.sum(1)[batch.owners]
    written = model.base_model(
        input_ids=own,
        attention_mask=torch.cat([seen[batch.owners], torch.ones_like(own)], dim=1),
        position_ids=lengths[:, None] + torch.arange(own.shape[1]),
        past_key_values=cache,
        use_cache=True,
    )
    return torch.cat([first, written.last_hidden_state], dim=1)
