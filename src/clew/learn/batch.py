"""Token sequences as right-padded batches, and their division into micro-batches of little padding.

Inputs and targets are already shifted against each other: position t of every field speaks about predicting
`targets[:, t]` from `input_ids[:, :t + 1]`, so no caller slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clew.core.errors import InvalidValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One response to learn from."""

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    logprobs: Sequence[float] | None = None
    """Of the response's tokens under the policy that sampled them; None where no ratio is needed."""
    advantage: float = 1.0
    learnt: Sequence[bool] | None = None
    """Which of the response's tokens carry loss; None for all of them."""

    @property
    def num_learnt(self) -> int:
        """Tokens that carry loss."""
        return len(self.response_ids) if self.learnt is None else sum(self.learnt)

    @property
    def length(self) -> int:
        """Positions it takes in a batch: the last token is only ever a target."""
        return len(self.prompt_ids) + len(self.response_ids) - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaddedBatch:
    """Shifted, right-padded tensors of `batch` examples, `time` positions."""

    input_ids: Tensor
    """[batch, time] long; padding has the pad id."""
    attention_mask: Tensor
    """[batch, time] bool: not padding. A causal model needs it only to save work: padding comes last."""
    targets: Tensor
    """[batch, time] long: the token after each position."""
    target_mask: Tensor
    """[batch, time] bool: the target is a response token that carries loss."""
    old_logprobs: Tensor
    """[batch, time] float: of the targets under the sampling policy; 0 outside `target_mask`."""
    advantages: Tensor
    """[batch] float."""

    def to(self, device: torch.device | str) -> PaddedBatch:
        """The same batch on `device`."""
        return PaddedBatch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


def pad(examples: Sequence[Example], *, pad_id: int = 0, dtype: torch.dtype = torch.float32) -> PaddedBatch:
    """One batch of all `examples`, in their order; floats are of `dtype`."""
    if not examples:
        raise InvalidValue("examples", examples, "at least one example", "skip the update when there is none")
    shape = len(examples), max(max(e.length for e in examples), 1)
    # Filled as arrays: assigning to a part of a tensor takes several times as long.
    input_ids, targets = np.full(shape, pad_id, np.int64), np.full(shape, pad_id, np.int64)
    attention_mask, target_mask = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    old_logprobs = np.zeros(shape)
    for row, example in enumerate(examples):
        _check(example)
        ids = [*example.prompt_ids, *example.response_ids]
        response = slice(len(example.prompt_ids) - 1, example.length)
        input_ids[row, : example.length] = ids[:-1]
        targets[row, : example.length] = ids[1:]
        attention_mask[row, : example.length] = True
        target_mask[row, response] = True if example.learnt is None else example.learnt
        if example.logprobs is not None:
            old_logprobs[row, response] = example.logprobs
    return PaddedBatch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(attention_mask),
        targets=torch.from_numpy(targets),
        target_mask=torch.from_numpy(target_mask),
        old_logprobs=torch.from_numpy(old_logprobs).to(dtype),
        advantages=torch.tensor([e.advantage for e in examples], dtype=dtype),
    )


def micro_batches(
    lengths: Sequence[int], max_tokens: int, *, enough: int = 1024, fill: float = 0.75
) -> list[list[int]]:
    """Divide indices into batches of rows x longest <= `max_tokens`, longest first; each index occurs once.

    Neighbours in length share a batch, so little is padding: one that has `enough` tokens takes no sequence that
    would fill less than the share `fill` of its row. A sequence longer than `max_tokens` is alone in its batch.

    >>> micro_batches([3, 9, 2, 8], 18)
    [[1, 3], [0, 2]]
    """
    if max_tokens < 1:
        raise InvalidValue("max_tokens", max_tokens, "an integer of at least 1", "raise it")
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rows = len(batches[-1]) if batches else 0
        full = rows * longest + longest > max_tokens
        sparse = rows * longest >= enough and lengths[index] < fill * longest
        if not batches or full or sparse:
            batches.append([])
            longest = max(lengths[index], 1)
        batches[-1].append(index)
    return batches


def _check(example: Example) -> None:
    if not example.prompt_ids:
        raise InvalidValue(
            "prompt_ids",
            example.prompt_ids,
            "at least one token to predict from",
            "begin the prompt with a start token",
        )
    if example.logprobs is not None and len(example.logprobs) != len(example.response_ids):
        given = f"{len(example.logprobs)} for {len(example.response_ids)} tokens"
        raise InvalidValue("logprobs", given, "one log-prob a response token, or none", "pass those that were sampled")
    if example.learnt is not None and len(example.learnt) != len(example.response_ids):
        given = f"{len(example.learnt)} for {len(example.response_ids)} tokens"
        raise InvalidValue("learnt", given, "one flag a response token, or none", "flag every token")
