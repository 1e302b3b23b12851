"""How likely any causal language model finds given responses and given next words, without sampling from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch

from clew.core.errors import InvalidValue
from clew.core.types import Problem, State
from clew.models.any_backbone import body_states, target_logprobs
from clew.models.policy import LocalPolicy, NextLogProbs, ResponseLogProbs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PromptIds = Callable[[Problem], tuple[int, ...]]
ROWS_AT_ONCE = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InMode:
    """A local policy that rates responses to the generation prompt of `mode`."""

    policy: LocalPolicy
    mode: str

    def logprobs(self, states: Sequence[State]) -> ResponseLogProbs:
        return self.policy.logprobs(states, self.mode)

    def next_logprobs(self, states: Sequence[State], words: Sequence[str]) -> NextLogProbs:
        return self.policy.next_logprobs(states, words, self.mode)

    def encode(self, text: str) -> tuple[int, ...]:
        return self.policy.encode(text)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """The same of any model of transformers; every state is read as a whole."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompt_ids: PromptIds

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    @torch.inference_mode()
    def logprobs(self, states: Sequence[State]) -> ResponseLogProbs:
        """Log-probabilities, at temperature 1, of the tokens of the response of each of `states`."""
        prompts = [self.prompt_ids(state.problem) for state in states]
        found: list[list[float]] = []
        for start in range(0, len(states), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            some = [prompt + state.tokens for prompt, state in zip(prompts[rows], states[rows], strict=True)]
            width = max(map(len, some))
            ids = torch.tensor([row + (0,) * (width - len(row)) for row in some])
            spans = [(len(prompt) - 1, len(row) - 1) for prompt, row in zip(prompts[rows], some, strict=True)]
            mask = torch.tensor([[first <= at < end for at in range(width - 1)] for first, end in spans])
            chosen = target_logprobs(self.model, ids[:, :-1], ids[:, 1:].contiguous(), mask)[mask]
            found += [piece.tolist() for piece in chosen.split(mask.sum(dim=1).tolist())]
        return ResponseLogProbs(found, [len(p) + len(s.tokens) for p, s in zip(prompts, states, strict=True)])

    @torch.inference_mode()
    def next_logprobs(self, states: Sequence[State], words: Sequence[str]) -> NextLogProbs:
        """Log-probabilities, at temperature 1, of each of `words` as the next token after each of `states`.

        Raises `InvalidValue` for a word that is not a single token.
        """
        chosen = torch.tensor([self.token(word) for word in words])
        contexts = [self.prompt_ids(state.problem) + state.tokens for state in states]
        found: list[list[float]] = []
        for start in range(0, len(contexts), ROWS_AT_ONCE):
            some = contexts[start : start + ROWS_AT_ONCE]
            width = max(map(len, some))
            ids = torch.tensor([row + (0,) * (width - len(row)) for row in some])
            last = torch.tensor([[at == len(row) - 1 for at in range(width)] for row in some])
            logits = self.model.get_output_embeddings()(body_states(self.model, ids, last)).float()
            found += logits.log_softmax(dim=-1)[:, chosen].tolist()
        return NextLogProbs(found, [len(context) for context in contexts])

    def token(self, word: str) -> int:
        """The one token that `word` is, with a space in front of it if there is such a token; raises `InvalidValue`."""
        for text in (f" {word}", word):
            ids = self.encode(text)
            if len(ids) == 1:
                return ids[0]
        raise InvalidValue(
            "a word to rate as the next token", word, "a single token of the tokenizer", "choose another"
        )
