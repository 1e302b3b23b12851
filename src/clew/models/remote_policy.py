"""A model behind an OpenAI-compatible completions endpoint (vLLM, llama.cpp, clew's own server) as a `Policy`.

The endpoint must continue raw text (`/v1/completions`), because a search goes on from the middle of a response. Tokens
of a remote model have no ids here: every token string it sends gets the next free number, so what was sampled is kept
exactly and never tokenised again. A server that sends no tokens is held to one piece a word, and gives no log-probs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from clew.core.errors import ClewError, MissingExtra
from clew.core.protocols import Prompt
from clew.core.types import Completion, FinishReason, Message, Sampling, State

if TYPE_CHECKING:
    from openai import OpenAI

_WORD = re.compile(r"\s*\S+|\s+$")
END_OF_RESPONSE = "\0"
"""Marks the end of a finished response, as a stop token does; no text contains it."""


def chatml(messages: Sequence[Message]) -> str:
    """The prompt in ChatML, which Qwen and many others read, with the assistant's turn begun."""
    turns = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)
    return f"{turns}<|im_start|>assistant\n"


class RemotePolicy:
    """Writes with `model` at `base_url`; requests of one batch run side by side."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        render: Callable[[Sequence[Message]], str] = chatml,
        parallel: int = 16,
        timeout_s: float = 600.0,
    ) -> None:
        self.client = _client(base_url, api_key or os.environ.get("OPENAI_API_KEY", "none"), timeout_s)
        self.model, self.render, self.parallel, self.version = model, render, parallel, model
        self._ids: dict[str, int] = {}
        self._strings: list[str] = []

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Raises `ClewError` where the server does not answer."""
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(lambda prompt: self._complete(prompt, sampling), prompts))

    def text(self, state: State) -> str:
        return "".join(self._strings[token] for token in state.tokens).removesuffix(END_OF_RESPONSE)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._id(piece) for piece in _WORD.findall(text))

    def _id(self, piece: str) -> int:
        if piece not in self._ids:
            self._ids[piece] = len(self._strings)
            self._strings.append(piece)
        return self._ids[piece]

    def _complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        import openai

        context = self.render(prompt.state.problem.prompt) + self.text(prompt.state)
        try:
            answer = self.client.completions.create(
                model=self.model,
                prompt=context,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=prompt.seed % 2**31,
                logprobs=0,
                stop=list(sampling.step_ends) or None,
                extra_body={
                    "include_stop_str_in_output": True,
                    **({"top_k": sampling.top_k} if sampling.top_k else {}),
                },
            )
        except openai.OpenAIError as error:
            raise ClewError(
                f"the model at {self.client.base_url} did not answer: {error}",
                "an OpenAI-compatible server with /v1/completions",
                "check that it runs, its address, the model's name and the key",
            ) from error
        return self._read(answer)

    def _read(self, answer: Any) -> Completion:
        """The first choice as a completion; the server's own count of prompt tokens is what was read."""
        choice, usage = answer.choices[0], answer.usage
        given = choice.logprobs.tokens if choice.logprobs is not None else None
        pieces = list(given) if given else _WORD.findall(choice.text)
        logprobs = list(choice.logprobs.token_logprobs) if given else None
        finish = _finish(choice)
        if finish is FinishReason.STOP:
            pieces.append(END_OF_RESPONSE)
            if logprobs is not None:
                logprobs.append(0.0)
        details = getattr(usage, "prompt_tokens_details", None)
        cached = getattr(details, "cached_tokens", None) or 0
        return Completion(
            tokens=tuple(self._id(piece) for piece in pieces),
            logprobs=None if logprobs is None else tuple(map(float, logprobs)),
            finish=finish,
            policy_version=self.version,
            prompt_tokens_read=(usage.prompt_tokens if usage else 0) - cached,
            prompt_tokens_cached=cached,
        )


def _finish(choice: Any) -> FinishReason:
    """A stop with a `stop_reason` was one of ours (a step's end); without one, the model's own end."""
    if choice.finish_reason == "length":
        return FinishReason.LENGTH
    stopped_by = (choice.model_extra or {}).get("stop_reason")
    return FinishReason.STEP if isinstance(stopped_by, str) else FinishReason.STOP


def _client(base_url: str, api_key: str, timeout_s: float) -> OpenAI:
    try:
        from openai import OpenAI
    except ImportError as error:
        advice = "pip install 'clew[remote]'"
        raise MissingExtra("the package openai is not installed", "the extra `remote`", advice) from error
    return OpenAI(base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=2)
