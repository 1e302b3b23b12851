"""Policies without weights: scripted, tabular (exactly known), and a pool that samples once for several strategies."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import final

from clew.core.errors import InvalidValue
from clew.core.protocols import Policy, Prompt
from clew.core.types import Completion, FinishReason, Sampling, State

END = 256
"""Stop token of `ScriptedPolicy`; the tokens before it are the UTF-8 bytes of the text."""


@final
@dataclass(slots=True)
class ScriptedPolicy:
    """Says what its script says: a function of prompt and sampling, or texts to give one after another."""

    script: Callable[[Prompt, Sampling], str] | Sequence[str]
    logprob: Callable[[Prompt, int], float] | None = None
    """Log-prob of a token after a prompt; None for a policy that has no log-probs."""
    version: str = "scripted"
    _given: int = field(default=0, init=False, repr=False)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Raises `InvalidValue` when a list of texts has run out."""
        read: set[Hashable] = set()
        completions = []
        for prompt in prompts:
            state = prompt.state
            tokens = (*self._text(prompt, sampling).encode(), END)
            kept, finish = _cut(tokens, sampling)
            before = sum(len(message.content.encode()) for message in state.problem.prompt) + len(state.tokens)
            cached = _context(state) in read
            read.add(_context(state))
            completions.append(
                Completion(
                    tokens=kept,
                    logprobs=None if self.logprob is None else tuple(self.logprob(prompt, t) for t in kept),
                    finish=finish,
                    policy_version=self.version,
                    prompt_tokens_read=0 if cached else before,
                    prompt_tokens_cached=before if cached else 0,
                )
            )
        return completions

    def text(self, state: State) -> str:
        return bytes(token for token in state.tokens if token != END).decode(errors="replace")

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def _text(self, prompt: Prompt, sampling: Sampling) -> str:
        if callable(self.script):
            return self.script(prompt, sampling)
        if self._given >= len(self.script):
            raise InvalidValue("texts of the script", len(self.script), "as many as are sampled", "script more texts")
        self._given += 1
        return self.script[self._given - 1]


@final
@dataclass(frozen=True, slots=True)
class TabularPolicy:
    """A policy whose distribution is known exactly: `next_probs` of a state over a small vocabulary."""

    vocabulary: tuple[str, ...]
    next_probs: Callable[[State], Sequence[float]]
    """Probability of each word of the vocabulary after a state, at temperature 1."""
    stop: int = 0
    """Token id that ends a completion."""
    version: str = "tabular"

    def distribution(self, state: State, sampling: Sampling) -> list[float]:
        """The probabilities that `sample` draws the next token from; ties at a cut-off keep the lower id."""
        weights = _tempered(self.next_probs(state), sampling.temperature)
        every = sampling.top_p == 1.0
        if every and not sampling.top_k:
            total = math.fsum(weights)
            return [weight / total for weight in weights]
        order = sorted(range(len(weights)), key=lambda token: -weights[token])
        if sampling.top_k:
            order = order[: sampling.top_k]
        total = math.fsum(weights[token] for token in order)
        before = accumulate((weights[token] / total for token in order[:-1]), initial=0.0)
        kept = {token for token, mass in zip(order, before, strict=True) if every or mass < sampling.top_p}
        total = math.fsum(weights[token] for token in kept)
        return [weight / total if token in kept else 0.0 for token, weight in enumerate(weights)]

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [self._sample(prompt, sampling) for prompt in prompts]

    def enumerate(self, state: State, sampling: Sampling) -> Iterator[tuple[Completion, float]]:
        """Every completion of `state` that can be sampled, with its exact probability."""
        stack: list[tuple[tuple[int, ...], tuple[float, ...]]] = [((), ())]
        while stack:
            tokens, logprobs = stack.pop()
            if self._ends(tokens, sampling):
                yield self._completion(state, tokens, logprobs, sampling), math.exp(math.fsum(logprobs))
                continue
            probs = self.distribution(_after(state, tokens), sampling)
            stack += [((*tokens, t), (*logprobs, math.log(p))) for t, p in enumerate(probs) if p > 0.0]

    def text(self, state: State) -> str:
        return " ".join(self.vocabulary[token] for token in state.tokens if token != self.stop)

    def encode(self, text: str) -> tuple[int, ...]:
        """Raises `InvalidValue` for a word outside the vocabulary."""
        unknown = next((word for word in text.split() if word not in self.vocabulary), None)
        if unknown is not None:
            accepted = f"words of the vocabulary: {', '.join(self.vocabulary)}"
            raise InvalidValue("a word to put into a state", unknown, accepted, "tell it something it has words for")
        return tuple(self.vocabulary.index(word) for word in text.split())

    def _sample(self, prompt: Prompt, sampling: Sampling) -> Completion:
        stream = random.Random(prompt.seed)
        tokens: tuple[int, ...] = ()
        logprobs: tuple[float, ...] = ()
        while not self._ends(tokens, sampling):
            probs = self.distribution(_after(prompt.state, tokens), sampling)
            (token,) = stream.choices(range(len(probs)), weights=probs)
            tokens, logprobs = (*tokens, token), (*logprobs, math.log(probs[token]))
        return self._completion(prompt.state, tokens, logprobs, sampling)

    def _ends(self, tokens: tuple[int, ...], sampling: Sampling) -> bool:
        return bool(tokens) and (
            len(tokens) == sampling.max_tokens or tokens[-1] == self.stop or self._ends_step(tokens[-1], sampling)
        )

    def _ends_step(self, token: int, sampling: Sampling) -> bool:
        return any(end in self.vocabulary[token] for end in sampling.step_ends)

    def _completion(
        self, state: State, tokens: tuple[int, ...], logprobs: tuple[float, ...], sampling: Sampling
    ) -> Completion:
        step = FinishReason.STEP if self._ends_step(tokens[-1], sampling) else FinishReason.LENGTH
        finish = FinishReason.STOP if tokens[-1] == self.stop else step
        entropies = certainties = None
        if sampling.statistics:
            befores = [_after(state, tokens[:length]) for length in range(len(tokens))]
            distributions = [self.distribution(before, sampling) for before in befores]
            entropies = tuple(_entropy(probs) for probs in distributions)
            certainties = tuple(_self_certainty(probs) for probs in distributions)
        return Completion(
            tokens,
            logprobs,
            finish,
            self.version,
            prompt_tokens_read=len(state.tokens),
            entropies=entropies,
            certainties=certainties,
        )


def _context(state: State) -> Hashable:
    """What a policy reads. With the prompt: a revision poses the same problem in a longer one."""
    return state.problem.id, state.problem.prompt, state.tokens


def _cut(tokens: tuple[int, ...], sampling: Sampling) -> tuple[tuple[int, ...], FinishReason]:
    """As many of the bytes and the stop token as a step and `max_tokens` allow."""
    ends = {end.encode()[0] for end in sampling.step_ends if len(end.encode()) == 1}
    stop = next((at + 1 for at, token in enumerate(tokens[:-1]) if token in ends), len(tokens))
    if min(stop, sampling.max_tokens) == len(tokens):
        return tokens, FinishReason.STOP
    return tokens[: min(stop, sampling.max_tokens)], (
        FinishReason.STEP if stop <= sampling.max_tokens else FinishReason.LENGTH
    )


def _after(state: State, tokens: tuple[int, ...]) -> State:
    return State(state.problem, state.tokens + tokens)


def _entropy(probs: Sequence[float]) -> float:
    return -math.fsum(p * math.log(p) for p in probs if p > 0.0)


def _self_certainty(probs: Sequence[float]) -> float:
    """KL(uniform || probs); infinite where a token of the vocabulary cannot be drawn."""
    if min(probs) == 0.0:
        return math.inf
    return -math.fsum(math.log(p * len(probs)) for p in probs) / len(probs)


def _tempered(probs: Sequence[float], temperature: float) -> list[float]:
    top = max(probs)
    if temperature == 0.0:
        greedy = list(probs).index(top)
        return [float(token == greedy) for token in range(len(probs))]
    return [(p / top) ** (1.0 / temperature) for p in probs]


@final
@dataclass(slots=True)
class PooledPolicy:
    """Samples each completion once: several strategies on the same problems draw the same samples from its pool.

    Completions keep all their fields, so every strategy is still metered as if it had sampled them itself. Only time
    is saved: `seconds_per_token` says what a sampled token took.
    """

    policy: Policy
    tokens_sampled: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    _pool: dict[Sampling, dict[Hashable, Completion]] = field(default_factory=dict, init=False, repr=False)
    _texts: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict, init=False, repr=False)

    @property
    def version(self) -> str:
        return self.policy.version

    @property
    def seconds_per_token(self) -> float:
        return self.seconds / self.tokens_sampled if self.tokens_sampled else 0.0

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        pool = self._pool.setdefault(sampling, {})
        keys = [(_context(prompt.state), prompt.seed) for prompt in prompts]
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in pool}
        if missing:
            start = time.perf_counter()
            completions = self.policy.sample(list(missing.values()), sampling)
            self.seconds += time.perf_counter() - start
            self.tokens_sampled += sum(len(completion.tokens) for completion in completions)
            pool.update(zip(missing, completions, strict=True))
        return [pool[key] for key in keys]

    def text(self, state: State) -> str:
        key = (state.problem.id, state.tokens)
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self.policy.text(state)
        return text

    def encode(self, text: str) -> tuple[int, ...]:
        return self.policy.encode(text)

    def forget(self) -> None:
        """Drop the pool, keep the counts."""
        self._pool.clear()
        self._texts.clear()
