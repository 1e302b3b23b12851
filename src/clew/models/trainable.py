"""What learning asks of a policy whose weights are here, whichever class it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from clew.core.protocols import Policy

if TYPE_CHECKING:
    from clew.core.types import Problem


class Trainable(Policy, Protocol):
    """A policy whose `model` can be trained in place; it writes with the present weights after `refresh`."""

    @property
    def model(self) -> Any:
        """The causal language model of transformers."""
        ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def context(self) -> int:
        """Most tokens that the model reads."""
        ...

    @property
    def end_id(self) -> int:
        """The token that ends a response."""
        ...

    def prompt_ids(self, problem: Problem, mode: str) -> tuple[int, ...]:
        """Token ids of the prompt, generation prompt included; equal for all modes if the chat format has one."""
        ...

    def response_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a whole response that says `text`, its end included."""
        ...

    def decode(self, tokens: tuple[int, ...]) -> str:
        """Text of `tokens`, without special tokens."""
        ...

    def refresh(self) -> None:
        """Take over the model's present weights, and name a new version: `NAME+UPDATES`."""
        ...

    def remember(self, cache_bytes: int) -> None:
        """Share what is computed from now on between calls, in so many bytes, if this policy can."""
        ...
