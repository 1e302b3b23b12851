"""What a search leaves behind: its answers (from which it can go on), its cost and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from clew.core.cost import Cost
from clew.core.errors import ClewError
from clew.core.protocols import SearchResult
from clew.core.types import Completion, Problem, Verdict


class BudgetExhausted(Exception):
    """Thrown into a strategy at a request that its budget no longer allows.

    A strategy may catch it, make requests that run no model, and return its best so far.
    """


class StopReason(StrEnum):
    FINISHED = "finished"
    BUDGET = "budget"
    PAUSED = "paused"
    """The round limit of the call was reached, or it was interrupted."""
    FAILED = "failed"
    """The policy, the scorer, the verifier or the strategy failed on this problem; `SearchOutcome.error` says how."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Answer to `Sample`: [states][n]."""

    values: tuple[tuple[Completion, ...], ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """Answer to `Score`: one number a state."""

    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Answer to `Verify`: one verdict a state."""

    values: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answer to `Extract`: one canonical answer a state, None where it gives none."""

    values: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Answer to `Encode`: the token ids of each text."""

    values: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Texts:
    """Answer to `Decode`: one text a state."""

    values: tuple[str, ...]


Answer = Samples | Scores | Verdicts | Answers | Encoded | Texts


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """What the search of one problem goes on from: a strategy's generator is a function of its answers."""

    problem: Problem
    seed: int = 0
    answers: tuple[Answer, ...] = ()
    """Answers given before the budget first refused a request; what was asked while winding up is not replayed."""
    cost: Cost = field(default_factory=Cost)
    """All that was spent, winding up included."""


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """The search of one problem: its result so far, its price, why it stopped."""

    result: SearchResult
    """Of a search that is paused: what the strategy answers if it must stop now. Of one that failed: nothing chosen."""
    cost: Cost
    stop: StopReason
    record: SearchRecord
    """What `continue_searches` goes on from; of a failed search from the request that failed."""
    error: str | None = None
    """What failed, what is accepted and what to do, with the names of the strategy and the problem; None unless `stop`
    is FAILED."""

    @property
    def problem(self) -> Problem:
        return self.record.problem

    def raise_if_failed(self) -> None:
        """Raises `SearchFailed` if it did: for callers to whom this problem is all there is."""
        if self.error is not None:
            given, _, rest = self.error.partition("\n  accepted: ")
            accepted, _, advice = rest.partition("\n  what to do: ")
            raise SearchFailed(given, accepted, advice)


class SearchFailed(ClewError, RuntimeError):
    """The search of a problem failed."""


class SearchInterrupted(KeyboardInterrupt):
    """Ctrl-C during a search. `outcomes` are those of all problems, with the records to go on from."""

    def __init__(self, outcomes: Sequence[SearchOutcome]) -> None:
        super().__init__()
        self.outcomes = tuple(outcomes)
