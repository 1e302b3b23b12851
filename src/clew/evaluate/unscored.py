"""Stop a run whose verifier fails too often: unscored answers are left out, and what is left is no fair sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from clew.core.errors import InvalidValue, TooManyUnscored
from clew.core.types import Outcome, Verdict

LIMIT = 0.05
AT_LEAST = 100


@final
@dataclass(slots=True, kw_only=True)
class UnscoredGuard:
    """Counts verdicts, and raises `TooManyUnscored` when more than `limit` of at least `at_least` were unscored."""

    limit: float = LIMIT
    """Share of verdicts that may be unscored, 0 to 1; 1 for no limit."""
    at_least: int = AT_LEAST
    """Verdicts before which nothing is concluded."""
    seen: int = field(default=0, init=False)
    unscored: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.limit <= 1.0:
            raise InvalidValue("limit of unscored verdicts", self.limit, "a share from 0 to 1", "use 1 for no limit")
        if self.at_least < 1:
            raise InvalidValue("verdicts at least", self.at_least, "an integer of at least 1", "use 100")

    def see(self, verdict: Verdict) -> Verdict:
        """`verdict`, counted."""
        self.seen += 1
        if verdict.outcome is Outcome.UNSCORED:
            self.unscored += 1
            if self.seen >= self.at_least and self.unscored > self.limit * self.seen:
                counted = f"{self.unscored} of {self.seen} answers could not be judged"
                given = f"{counted}, the last because: {verdict.reason[:200]}"
                advice = "try the verifier on one answer with clew verify, and see clew doctor for what it needs"
                raise TooManyUnscored(given, f"at most {self.limit:.0%} unscored verdicts", advice)
        return verdict
