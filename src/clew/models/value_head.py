"""A Qwen3 with a scalar head: at every token the logit of P(right in the end | what was read so far).

It is a `Qwen3ForTokenClassification` with one label, so transformers loads what is saved and computes the same logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clew.core.errors import InvalidValue
from clew.models.any_backbone import classifier_of
from clew.models.checkpoint import load_parts
from clew.models.incremental import IncrementalForward
from clew.models.prefix_cache import PrefixCache
from clew.models.reading import Context, Reader
from clew.models.side_by_side import on_one_thread

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM, Qwen3ForTokenClassification

LABEL = "right"
ROWS_AT_ONCE = 256


class LoadedValue(NamedTuple):
    """A value model (float32, on the CPU, in eval mode) and its tokenizer."""

    model: Qwen3ForTokenClassification
    tokenizer: PreTrainedTokenizerFast


def value_model_of(policy: Qwen3ForCausalLM, *, base_rate: float = 0.5) -> Qwen3ForTokenClassification:
    """A value model with a copy of the body of `policy`, which says `base_rate` of everything until it is trained."""
    from transformers import AutoModelForTokenClassification

    model = classifier_of(policy, AutoModelForTokenClassification, label=LABEL, base_rate=base_rate)
    return cast("Qwen3ForTokenClassification", model)


def load_value_checkpoint(path: Path) -> LoadedValue:
    """The value model in directory `path`; raises `CheckpointError` if a part is missing or damaged, or it is none."""
    loaded = load_parts(path, "Qwen3ForTokenClassification")
    return LoadedValue(cast("Qwen3ForTokenClassification", loaded.model), loaded.tokenizer)


class Reading(NamedTuple):
    """P(right) after each token of a context [tokens], and the tokens that were computed for it."""

    probs: NDArray[np.float32]
    computed: int


def first_pays(contexts: Sequence[tuple[int, ...]], found: dict[tuple[int, ...], Reading]) -> list[Reading]:
    """The reading of each of `contexts`; the first of equal ones pays for all."""
    seen: set[tuple[int, ...]] = set()
    readings = []
    for context in contexts:
        readings.append(found[context]._replace(computed=0) if context in seen else found[context])
        seen.add(context)
    return readings


class ValueReader:
    """Reads contexts with a copy of `model`'s weights, and never computes a prefix again that its cache holds."""

    def __init__(self, model: Qwen3ForTokenClassification, *, cache_bytes: int = 1 << 28) -> None:
        # To the incremental forward pass the head is an unembedding with a vocabulary of one.
        parts = SimpleNamespace(config=model.config, model=model.model, lm_head=model.score)
        self._forward = IncrementalForward(cast("Qwen3ForCausalLM", parts))
        self._bias = model.score.bias.detach().clone()
        self.context = int(model.config.max_position_embeddings)
        self.prefixes = PrefixCache(cache_bytes, self._forward.shape) if cache_bytes else None
        self._reader = Reader(self._forward, self.prefixes)

    def unread(self, context: tuple[int, ...]) -> int:
        """Tokens that reading `context` alone would compute now."""
        return len(context) - (len(self.prefixes.find(context)) if self.prefixes is not None else 0)

    def read(self, contexts: Sequence[tuple[int, ...]]) -> list[Reading]:
        """Read `contexts`, none empty; for tokens that several of them share one pays.

        Raises `InvalidValue` for one that exceeds the model's context.
        """
        distinct = list(dict.fromkeys(contexts))
        longest = max(map(len, distinct), default=0)
        if longest > self.context:
            accepted = f"at most {self.context}, the value model's context"
            raise InvalidValue("number of tokens to rate", longest, accepted, "lower max_tokens of the sampling")
        # Neighbours begin alike, so that a batch holds as much as can be shared.
        distinct.sort()
        found: dict[tuple[int, ...], Reading] = {}
        for start in range(0, len(distinct), ROWS_AT_ONCE):
            some = distinct[start : start + ROWS_AT_ONCE]
            found.update(zip(some, on_one_thread(self._read, some), strict=True))
        return first_pays(contexts, found)

    @torch.inference_mode()
    def _read(self, contexts: Sequence[tuple[int, ...]]) -> list[Reading]:
        lengths = np.array([len(context) for context in contexts])
        cache = self._forward.new_cache(lengths.max() - lengths, int(lengths.max()))
        some = [Context(context) for context in contexts]
        states: list[Tensor] = []
        if self.prefixes is None:
            self._reader.read(some, cache, states)
        else:
            with self.prefixes.in_use():
                self._reader.read(some, cache, states)
        probs = ((torch.cat(states) @ self._forward.unembedding)[:, 0] + self._bias).sigmoid().numpy()
        pieces = np.split(probs, lengths.cumsum()[:-1])
        return [Reading(piece, context.read) for piece, context in zip(pieces, some, strict=True)]
