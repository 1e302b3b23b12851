"""A local checkpoint as a `Policy`: prompts rendered, tokens sampled by the rollout engine, text decoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from clew.core.protocols import Prompt
from clew.core.types import Completion, FinishReason, Problem, Sampling, State
from clew.initialize.chat import render_problem
from clew.models.engine import RolloutEngine
from clew.models.tokenizer import FastCodec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


class LocalPolicy:
    """Writes with `model`; call `refresh` after training it, which also names a new version."""

    def __init__(
        self, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, name: str = "local", max_rows: int = 2048
    ) -> None:
        self.model = model
        self.codec = FastCodec(tokenizer)
        self.engine = RolloutEngine(model, stop_ids=(self.codec.end_id,), max_rows=max_rows)
        self._name, self._updates = name, 0
        self._prompt_ids = lru_cache(maxsize=1 << 16)(self.encode)
        self._decoded = lru_cache(maxsize=1 << 16)(self.codec.decode)

    @property
    def version(self) -> str:
        return f"{self._name}+{self._updates}"

    def refresh(self) -> None:
        """Take over the model's present weights."""
        self.engine.refresh()
        self._updates += 1

    def prompt_ids(self, problem: Problem, mode: str) -> tuple[int, ...]:
        """Token ids of the prompt, generation prompt included."""
        return self._prompt_ids(render_problem(problem, mode))

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.codec.encode(text))

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        contexts = [self.prompt_ids(p.state.problem, sampling.mode) + p.state.tokens for p in prompts]
        sampled = self.engine.sample(contexts, [p.seed for p in prompts], sampling)
        version = self.version
        return [
            Completion(
                tokens=s.tokens,
                logprobs=s.logprobs,
                finish=FinishReason.STOP if s.stopped else FinishReason.LENGTH,
                policy_version=version,
                prompt_tokens_read=s.read,
                prompt_tokens_cached=s.cached,
            )
            for s in sampled
        ]

    def text(self, state: State) -> str:
        return self._decoded(state.tokens)
