"""Reads contexts with a scalar head on any body; a plain Qwen3 is read with a prefix cache instead."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol, cast, final

import torch

from clew.core.errors import InvalidValue
from clew.models.any_backbone import plain_qwen3, scalar_logits
from clew.models.side_by_side import on_one_thread
from clew.models.value_head import Reading, ValueReader, first_pays

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Qwen3ForTokenClassification

TOKENS_AT_ONCE = 4096


class Reads(Protocol):
    """What a scorer asks of a reader."""

    def unread(self, context: tuple[int, ...]) -> int: ...

    def read(self, contexts: Sequence[tuple[int, ...]]) -> list[Reading]: ...


def reader_of(model: PreTrainedModel, *, cache_bytes: int = 1 << 28) -> Reads:
    """The fastest reader there is for `model`, a classifier of one label."""
    if not plain_qwen3(model):
        return PlainReader(model)
    bias = model.score.bias
    head = SimpleNamespace(weight=model.score.weight, bias=torch.zeros(1) if bias is None else bias)
    parts = SimpleNamespace(config=model.config, model=model.base_model, score=head)
    return ValueReader(cast("Qwen3ForTokenClassification", parts), cache_bytes=cache_bytes)


@final
class PlainReader:
    """Computes every context as a whole, through the model's own library."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._context = getattr(model.config, "max_position_embeddings", None)

    def unread(self, context: tuple[int, ...]) -> int:
        """Tokens that reading `context` alone would compute."""
        return len(context)

    def read(self, contexts: Sequence[tuple[int, ...]]) -> list[Reading]:
        """sigmoid of the head after each token of each context; the first of equal ones pays for all.

        Raises `InvalidValue` for one that exceeds the model's context.
        """
        distinct = sorted(set(contexts), key=len)
        longest = max(map(len, distinct), default=0)
        if self._context is not None and longest > self._context:
            accepted = f"at most {self._context}, the context of the reward model"
            raise InvalidValue("number of tokens to rate", longest, accepted, "lower max_tokens of the sampling")
        found: dict[tuple[int, ...], Reading] = {}
        rows = max(1, TOKENS_AT_ONCE // max(1, longest))
        for start in range(0, len(distinct), rows):
            some = distinct[start : start + rows]
            found.update(zip(some, on_one_thread(self._read, some), strict=True))
        return first_pays(contexts, found)

    @torch.inference_mode()
    def _read(self, contexts: Sequence[tuple[int, ...]]) -> list[Reading]:
        width = max(map(len, contexts))
        ids = torch.tensor([context + (0,) * (width - len(context)) for context in contexts])
        mask = torch.tensor([[at < len(context) for at in range(width)] for context in contexts])
        probs = scalar_logits(self._model, ids, mask).sigmoid()
        pieces = probs.split([len(context) for context in contexts])
        return [Reading(piece.numpy(), len(context)) for piece, context in zip(pieces, contexts, strict=True)]
