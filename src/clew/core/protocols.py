"""The four roles: a policy writes, a verifier judges, a scorer rates, a search decides what to ask for.

A search strategy is a generator: it yields `Request`s and is sent their answers. It never counts,
batches or stops itself; the driver (`clew.search.driver`) does that for every strategy alike.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from clew.core.types import Completion, Problem, Sampling, State, Verdict


@dataclass(frozen=True, slots=True)
class Prompt:
    """One completion to sample: continue `state` with the random stream `seed`."""

    state: State
    seed: int


class Policy(Protocol):
    """Writes continuations. Batches are the policy's business; order of answers is that of `prompts`."""

    @property
    def version(self) -> str: ...

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]: ...

    def text(self, state: State) -> str:
        """The response of `state` as text, without special tokens that only mark its end."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text` as it would stand inside a response."""
        ...


class Verifier(Protocol):
    """Judges a finished answer. Never raises for any text: what it cannot judge is unscored."""

    def verify(self, problem: Problem, text: str) -> Verdict: ...


class Scorer(Protocol):
    """Rates states: outcome or process reward model, value, self-evaluation, uncertainty, heuristic."""

    @property
    def name(self) -> str: ...

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        """One number a state; higher is better. `completions[i]` is the last one that led to `states[i]`."""
        ...

    def cost_tokens(self, states: Sequence[State]) -> int:
        """Model tokens that scoring `states` consumes; 0 for a scorer that runs no model."""
        ...


@runtime_checkable
class PrefixScorer(Protocol):
    """A scorer that rates all beginnings of a response in one reading of it."""

    def score_prefixes(self, states: Sequence[State], stops: Sequence[Sequence[int]]) -> list[list[float]]:
        """What `score` says of the first `stops[i][j]` tokens of `states[i]`, unfinished but for the whole."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """Request: `n` completions of every state. Answer: `list[list[Completion]]`, [states][n]."""

    states: tuple[State, ...]
    n: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    first_index: int | tuple[int, ...] = 0
    """Index of the first sample, for all states or for each, so that later requests for the same state draw new random
    streams."""


@dataclass(frozen=True, slots=True)
class Score:
    """Request: rate each state with the search's guidance. Answer: `list[float]`."""

    states: tuple[State, ...]
    completions: tuple[Completion | None, ...]


@dataclass(frozen=True, slots=True)
class Verify:
    """Request: judge each finished state. Answer: `list[Verdict]`. Only for guidance by the environment."""

    states: tuple[State, ...]


@dataclass(frozen=True, slots=True)
class Extract:
    """Request: the canonical answer each finished state gives, unjudged. Answer: `list[str | None]`."""

    states: tuple[State, ...]


@dataclass(frozen=True, slots=True)
class Encode:
    """Request: token ids of texts that are to be put into a state (`State.told`). Answer: `list[tuple[int, ...]]`."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decode:
    """Request: the response of each state as text. Answer: `list[str]`."""

    states: tuple[State, ...]


Request = Sample | Score | Verify | Extract | Encode | Decode


@dataclass(frozen=True, slots=True)
class Candidate:
    """A solution that a search considered, with the completion that ended it and its guide's score."""

    state: State
    completion: Completion
    score: float | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search answers: the state it chose (None if it found nothing) and all it considered."""

    chosen: State | None
    candidates: tuple[Candidate, ...]
    tree: Any = None
    """The `clew.search.tree.Tree` of everything the search saw; None from a strategy that grew none."""


class Search(Protocol):
    """A strategy: a frozen dataclass of settings whose `run` reads like the paper's pseudo-code."""

    @property
    def name(self) -> str: ...

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]: ...
