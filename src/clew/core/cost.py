"""What a computation consumed, and the ceiling on it. One unit system for every strategy."""

from __future__ import annotations

from dataclasses import dataclass

from clew.core.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Cost:
    """Counted quantities; `a + b` adds them field by field."""

    tokens_sampled: int = 0
    prompt_tokens_read: int = 0
    prompt_tokens_cached: int = 0
    """Prompt tokens that were served from a KV cache instead of being read again."""
    prompt_tokens_reread: int = 0
    """Of the prompt tokens read, those that had been read before and were evicted from the cache."""
    scorer_tokens: int = 0
    verifier_calls: int = 0
    model_calls: int = 0
    """Completions asked of the policy (a batch of eight counts as eight)."""
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        # Every request of every search adds costs: written out, because a loop over the fields is five times slower.
        return Cost(
            self.tokens_sampled + other.tokens_sampled,
            self.prompt_tokens_read + other.prompt_tokens_read,
            self.prompt_tokens_cached + other.prompt_tokens_cached,
            self.prompt_tokens_reread + other.prompt_tokens_reread,
            self.scorer_tokens + other.scorer_tokens,
            self.verifier_calls + other.verifier_calls,
            self.model_calls + other.model_calls,
            self.seconds + other.seconds,
        )

    @property
    def tokens(self) -> int:
        """Tokens some model had to process: sampled, read and scored."""
        return self.tokens_sampled + self.prompt_tokens_read + self.scorer_tokens


@dataclass(frozen=True, slots=True)
class Budget:
    """A ceiling on `Cost`: None means no ceiling in that quantity."""

    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "calls", "seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidValue(f"budget {name}", value, "a positive number, or none for no ceiling", "raise it")

    def allows(self, spent: Cost) -> bool:
        """Whether another request may be made after `spent`."""
        return (
            (self.tokens is None or spent.tokens < self.tokens)
            and (self.calls is None or spent.model_calls < self.calls)
            and (self.seconds is None or spent.seconds < self.seconds)
        )
