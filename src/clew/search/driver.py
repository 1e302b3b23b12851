"""Runs the strategies of many problems in rounds, meters what each consumes and holds each to its budget.

A round collects the pending request of every live search, answers all of them together (`clew.search.serve`) and
sends the answers back. Nothing here knows any strategy.

What fails fails alone: a policy, a scorer, a verifier or a strategy that raises, or answers what is no answer, ends the
search of that problem as FAILED, and the others go on. Only a wrong use that meets every search (a guide that needs
log-probs on a policy without them, an extra that is not installed) is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

from clew.core.cost import Budget, Cost
from clew.core.errors import MissingExtra, UsageError
from clew.core.protocols import Decode, Encode, Extract, Policy, Request, Sample, Score, Scorer, Search
from clew.core.types import Problem
from clew.search import failure
from clew.search.live import LiveSearch
from clew.search.record import SearchInterrupted, SearchOutcome, SearchRecord
from clew.search.serve import Asked, Judge, Roles, serve

NO_CEILING = Budget()
MAX_IDLE_REQUESTS = 10_000
"""Requests in a row that sample nothing, before a search counts as endless."""
MAX_REQUESTS = 100_000
"""Requests of a search without a budget, before it counts as endless."""


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """How far the searches are after a round; to be read while the callback that was given it runs."""

    rounds: int
    num_problems: int
    seconds: float
    """Since the call began."""
    _searches: Sequence[LiveSearch] = field(repr=False)

    @property
    def num_live(self) -> int:
        return sum(search.live for search in self._searches)

    @property
    def cost(self) -> Cost:
        """Of all searches together, earlier calls included."""
        return sum((search.cost for search in self._searches), Cost())

    @property
    def tokens_per_second(self) -> float:
        """Tokens sampled in this call, by its seconds."""
        sampled = sum(s.cost.tokens_sampled - s.record.cost.tokens_sampled for s in self._searches)
        return sampled / self.seconds if self.seconds else 0.0

    def records(self) -> list[SearchRecord]:
        """What every search goes on from, e.g. to be saved from time to time."""
        return [search.as_record() for search in self._searches]


OnRound = Callable[[Progress], None]


def run_searches(  # noqa: PLR0913  the roles, each by its name
    strategy: Search,
    problems: Sequence[Problem],
    policy: Policy,
    *,
    task: Judge,
    scorer: Scorer | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    on_round: OnRound | None = None,
) -> list[SearchOutcome]:
    """Search every problem with `strategy`, all at once; one outcome a problem, in order.

    `budget` holds for each problem alone and is exceeded by at most the one request that crosses it: the next
    one that would run a model is refused (`BudgetExhausted` is thrown into the strategy). A strategy that does not
    catch this ends with nothing chosen and all its completions as candidates. See `continue_searches` for failures,
    progress and Ctrl-C.
    """
    records = [SearchRecord(problem, seed) for problem in problems]
    return continue_searches(strategy, records, Roles(policy, task, scorer), budget=budget, on_round=on_round)


def continue_searches(
    strategy: Search,
    records: Sequence[SearchRecord],
    roles: Roles,
    *,
    budget: Budget | None = None,
    max_rounds: int | None = None,
    on_round: OnRound | None = None,
) -> list[SearchOutcome]:
    """Go on with searches that were stopped, by feeding each generator the answers it had; then as `run_searches`.

    Replayed answers cost nothing again, but count against `budget`. After `max_rounds` rounds the call returns
    with what there is; stopping and going on equals going straight through. `on_round` is called after every round.
    Ctrl-C, or a `KeyboardInterrupt` from `on_round`, raises `SearchInterrupted` with the outcomes so far. Raises
    `InvalidValue` if a record was made by another strategy or by other settings of it.
    """
    run = _Run(strategy, roles, budget if budget is not None else Budget(), on_round)
    try:
        run.replay(records)
        while (max_rounds is None or run.rounds < max_rounds) and run.one_round():
            pass
        return run.outcomes()
    except (UsageError, MissingExtra) as error:
        raise failure.with_names(error, strategy, roles.scorer) from error.__cause__
    except KeyboardInterrupt as stop:
        raise SearchInterrupted(run.outcomes()) from stop


@dataclass(slots=True)
class _Run:
    """One call of `continue_searches`."""

    strategy: Search
    roles: Roles
    budget: Budget
    on_round: OnRound | None
    rounds: int = 0
    start: float = field(default_factory=time.monotonic)
    searches: list[LiveSearch] = field(default_factory=list)
    answered: set[type[Request]] = field(default_factory=set)
    """Kinds of requests that were answered for some search."""

    def replay(self, records: Sequence[SearchRecord]) -> None:
        self.searches = [LiveSearch(self.strategy, record) for record in records]
        for search in self.searches:
            self.answered |= search.replay()
        self._raise_wrong_use(self.searches)
        self._settle(self.searches)

    def one_round(self) -> bool:
        """Answer the pending request of every live search; False if there is none."""
        live = [search for search in self.searches if search.live]
        if not live:
            return False
        asked = [Asked(s.pending, s.record.seed) for s in live if s.pending is not None]
        served = serve(self.roles, asked)
        for search, (request, _), answer in zip(live, asked, served, strict=True):
            if search.receive(answer):
                self.answered.add(type(request))
        self._raise_wrong_use(live)
        self._settle(live)
        self.rounds += 1
        if self.on_round is not None:
            elapsed = time.monotonic() - self.start
            self.on_round(Progress(self.rounds, len(self.searches), elapsed, self.searches))
        return True

    def outcomes(self) -> list[SearchOutcome]:
        return [search.outcome(self.roles) for search in self.searches]

    def _settle(self, searches: Sequence[LiveSearch]) -> None:
        """Refuse what a budget no longer allows, and end what would not end."""
        unlimited = self.budget == NO_CEILING
        for search in searches:
            while search.live and not self._allowed(search):
                search.refuse()
            if search.idle > MAX_IDLE_REQUESTS:
                search.end_endless("requests in a row that sample nothing", MAX_IDLE_REQUESTS)
            elif unlimited and len(search.served) > MAX_REQUESTS:
                search.end_endless("requests without a budget", MAX_REQUESTS)

    def _allowed(self, search: LiveSearch) -> bool:
        """Ceilings on tokens and calls stop what runs a model; that on seconds stops all but reading answers off."""
        request, budget, spent = search.pending, self.budget, search.cost
        if isinstance(request, Sample) or (isinstance(request, Score) and self._runs_model(search, request)):
            return budget.allows(spent)
        if isinstance(request, Extract | Encode | Decode):
            return True
        return budget.seconds is None or spent.seconds < budget.seconds

    def _runs_model(self, search: LiveSearch, request: Score) -> bool:
        if self.roles.scorer is None or (self.budget.tokens is None and self.budget.calls is None):
            return False
        try:
            return self.roles.scorer.cost_tokens(request.states) > 0
        except Exception:  # noqa: BLE001  serving the request meets it again, and says whose it is
            return True

    def _raise_wrong_use(self, searches: Sequence[LiveSearch]) -> None:
        """Raise what is wrong with the call itself: the first of its kind, before it worked for any search."""
        for search in searches:
            wrong = search.wrong_use
            if wrong is None:
                continue
            worked = (
                any(s.result is not None for s in self.searches)
                if wrong.asked is None
                else wrong.asked in self.answered
            )
            if not worked:
                raise wrong.error
