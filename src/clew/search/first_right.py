"""Best-of-N with a verifier that looks while it samples: as good, and cheaper by what it need not sample any more."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from clew.core.protocols import Candidate, Request, Sample, SearchResult
from clew.core.types import Problem, Sampling, State
from clew.search.guidance import best, rate
from clew.search.record import BudgetExhausted
from clew.search.solutions import check_counts


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRight:
    """The first of up to `n` sampled solutions that the verifier accepts; asked for in waves that double their sum."""

    n: int = 64
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        check_counts(self.n, None)

    @property
    def name(self) -> str:
        return "first-right"

    def run(self, problem: Problem) -> Generator[Request, Any, SearchResult]:
        root = State(problem)
        candidates: tuple[Candidate, ...] = ()
        with suppress(BudgetExhausted):
            while len(candidates) < self.n and not any(c.score == 1.0 for c in candidates):
                num_next = min(max(1, len(candidates)), self.n - len(candidates))
                (completions,) = yield Sample((root,), num_next, self.sampling, first_index=len(candidates))
                wave = tuple(Candidate(root.extend(completion), completion) for completion in completions)
                candidates += wave
                rated = yield from rate(wave, "verifier")
                candidates = (*candidates[: -len(wave)], *rated)
        chosen = best(candidates)
        return SearchResult(chosen.state if chosen else None, candidates)
