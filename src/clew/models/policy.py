"""A local checkpoint as a `Policy`: prompts rendered, tokens sampled by the rollout engine, text decoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clew.core.errors import InvalidValue
from clew.core.protocols import Prompt
from clew.core.types import Completion, FinishReason, Problem, Sampling, State
from clew.initialize.chat import render_problem
from clew.models.engine import RolloutEngine
from clew.models.tokenizer import FastCodec
from clew.models.written import Sampled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


class NextLogProbs(NamedTuple):
    """Log-probabilities [states][words] of words as the next token, and the tokens read for each state [states]."""

    logprobs: list[list[float]]
    tokens_read: list[int]


class ResponseLogProbs(NamedTuple):
    """Log-probabilities [states][tokens] of the tokens of responses, and the tokens read for each state [states]."""

    logprobs: list[list[float]]
    tokens_read: list[int]


class LocalPolicy:
    """Writes with `model`; call `refresh` after training it, which also names a new version.

    With `cache_bytes`, or after `remember`, what was computed for a state is not computed again for those that grow
    from it. That pays where states are continued, as in tree search, and costs a little where they never are.
    """

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        *,
        name: str = "local",
        max_rows: int = 2048,
        cache_bytes: int = 0,
    ) -> None:
        self.model = model
        self.codec = FastCodec(tokenizer)
        stop_ids = (self.codec.end_id,)
        self.engine = RolloutEngine(model, stop_ids=stop_ids, max_rows=max_rows, cache_bytes=cache_bytes)
        self._name, self._updates = name, 0
        self._prompt_ids = lru_cache(maxsize=1 << 16)(self.encode)
        self._decoded = lru_cache(maxsize=1 << 16)(self.codec.decode)
        self._step_ends = lru_cache(maxsize=64)(self._tokens_with)

    @property
    def version(self) -> str:
        return f"{self._name}+{self._updates}"

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self.codec.tokenizer

    @property
    def context(self) -> int:
        return self.engine.context

    @property
    def end_id(self) -> int:
        return self.codec.end_id

    def refresh(self) -> None:
        """Take over the model's present weights."""
        self.engine.refresh()
        self._updates += 1

    def remember(self, cache_bytes: int) -> None:
        """Share what is computed from now on between calls, in a prefix cache of so many bytes; 0 for none."""
        self.engine.remember(cache_bytes)

    def prompt_ids(self, problem: Problem, mode: str) -> tuple[int, ...]:
        """Token ids of the prompt, generation prompt included."""
        return self._prompt_ids(render_problem(problem, mode))

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.codec.encode(text))

    def response_ids(self, text: str) -> tuple[int, ...]:
        return (*self.codec.encode_words(text), self.codec.end_id)

    def decode(self, tokens: tuple[int, ...]) -> str:
        return self.codec.decode(tokens)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        contexts = [self.prompt_ids(p.state.problem, sampling.mode) + p.state.tokens for p in prompts]
        step_ends = self._step_ends(sampling.step_ends) if sampling.step_ends else None
        sampled = self.engine.sample(contexts, [p.seed for p in prompts], sampling, step_ends)
        version = self.version
        return [
            Completion(
                tokens=s.tokens,
                logprobs=s.logprobs,
                finish=self._finish(s),
                policy_version=version,
                prompt_tokens_read=s.read,
                prompt_tokens_cached=s.cached,
                prompt_tokens_reread=s.reread,
                entropies=s.entropies,
                certainties=s.certainties,
            )
            for s in sampled
        ]

    def text(self, state: State) -> str:
        return self._decoded(state.tokens)

    def next_logprobs(self, states: Sequence[State], words: Sequence[str], mode: str = "think") -> NextLogProbs:
        """Log-probabilities, at temperature 1, of each of `words` as the next token after each of `states`.

        Raises `InvalidValue` for a word that is not a single token.
        """
        contexts = [self.prompt_ids(state.problem, mode) + state.tokens for state in states]
        scored = self.engine.next_logprobs(contexts, [self._token(word) for word in words])
        return NextLogProbs([s.logprobs.tolist() for s in scored], [s.read for s in scored])

    def logprobs(self, states: Sequence[State], mode: str = "think") -> ResponseLogProbs:
        """Log-probabilities, at temperature 1, of the tokens of the response of each of `states`."""
        prompts = [self.prompt_ids(state.problem, mode) for state in states]
        contexts = [prompt + state.tokens for prompt, state in zip(prompts, states, strict=True)]
        written = [place for place, state in enumerate(states) if state.tokens]
        scored = self.engine.token_logprobs([contexts[place] for place in written])
        logprobs: list[list[float]] = [[] for _ in states]
        read = [0] * len(states)
        for place, found in zip(written, scored, strict=True):
            read[place] = found.read
            logprobs[place] = found.logprobs[len(prompts[place]) - 1 :].tolist()
        return ResponseLogProbs(logprobs, read)

    def _finish(self, sampled: Sampled) -> FinishReason:
        if not sampled.stopped:
            return FinishReason.LENGTH
        return FinishReason.STOP if sampled.tokens[-1] == self.codec.end_id else FinishReason.STEP

    def _tokens_with(self, ends: tuple[str, ...]) -> NDArray[np.bool_]:
        """Which tokens [vocab] have a text that contains one of `ends`."""
        tokenizer = self.codec.tokenizer
        texts = (tokenizer.decode([token], skip_special_tokens=True) for token in range(len(tokenizer)))
        found = np.zeros(self.model.config.vocab_size, np.bool_)
        found[: len(tokenizer)] = [any(end in text for end in ends) for text in texts]
        return found

    def _token(self, word: str) -> int:
        """The one token that `word` is inside a response: with a space in front of it if there is such a token."""
        for ids in (self.codec.encode_words(word), self.encode(word)):
            if len(ids) == 1:
                return ids[0]
        raise InvalidValue(
            "a word to rate as the next token", word, "a single token of the tokenizer", "choose another"
        )
