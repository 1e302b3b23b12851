"""Runs the strategies of many problems in rounds, meters what each consumes and holds each to its budget.

A round collects the pending request of every live search, answers all of them together (`clew.search.serve`) and
sends the answers back. Nothing here knows any strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from clew.core.cost import Budget, Cost
from clew.core.errors import InvalidValue
from clew.core.protocols import (
    Candidate,
    Decode,
    Encode,
    Extract,
    Policy,
    Request,
    Sample,
    Score,
    Scorer,
    Search,
    SearchResult,
    Verify,
)
from clew.core.types import Completion, Problem, State
from clew.search.record import (
    Answer,
    Answers,
    BudgetExhausted,
    Encoded,
    Samples,
    Scores,
    SearchOutcome,
    SearchRecord,
    StopReason,
    Texts,
    Verdicts,
)
from clew.search.serve import Asked, Judge, Roles, serve

MAX_REFUSALS = 8
"""Requests a strategy may still try after its budget is spent, before it is closed."""

_ANSWER_OF: dict[type[Request], type[Answer]] = {
    Sample: Samples,
    Score: Scores,
    Verify: Verdicts,
    Extract: Answers,
    Encode: Encoded,
    Decode: Texts,
}


def run_searches(  # noqa: PLR0913  the roles, each by its name
    strategy: Search,
    problems: Sequence[Problem],
    policy: Policy,
    *,
    task: Judge,
    scorer: Scorer | None = None,
    budget: Budget | None = None,
    seed: int = 0,
) -> list[SearchOutcome]:
    """Search every problem with `strategy`, all at once; one outcome a problem, in order.

    `budget` holds for each problem alone and is exceeded by at most the one request that crosses it: the next
    one that would run a model is refused (`BudgetExhausted` is thrown into the strategy). A strategy that does not
    catch this ends with nothing chosen and all its completions as candidates.
    """
    records = [SearchRecord(problem, seed) for problem in problems]
    return continue_searches(strategy, records, Roles(policy, task, scorer), budget=budget)


def continue_searches(
    strategy: Search,
    records: Sequence[SearchRecord],
    roles: Roles,
    *,
    budget: Budget | None = None,
    max_rounds: int | None = None,
) -> list[SearchOutcome]:
    """Go on with searches that were stopped, by feeding each generator the answers it had; then as `run_searches`.

    Replayed answers cost nothing again, but count against `budget`. After `max_rounds` rounds the call returns
    with what there is; stopping and going on equals going straight through. Raises `InvalidValue` if a record was
    made by another strategy or by other settings of it.
    """
    budget = budget if budget is not None else Budget()
    searches = [_replay(strategy, record) for record in records]
    rounds = 0
    while max_rounds is None or rounds < max_rounds:
        for search in searches:
            _hold_to_budget(search, budget, roles.scorer)
        live = [search for search in searches if search.pending is not None]
        if not live:
            break
        asked = [Asked(s.pending, s.record.seed) for s in live if s.pending is not None]
        for search, (answer, cost) in zip(live, serve(roles, asked), strict=True):
            search.receive(answer, cost)
        rounds += 1
    return [search.outcome() for search in searches]


@dataclass(slots=True)
class _Live:
    """The search of one problem while it runs."""

    record: SearchRecord
    generator: Generator[Request, Any, SearchResult]
    cost: Cost
    answers: list[Answer] = field(default_factory=list)
    seen: list[tuple[State, Completion]] = field(default_factory=list)
    pending: Request | None = None
    result: SearchResult | None = None
    refusals: int = 0

    def step(self, move: Callable[[], Request]) -> None:
        """Let the strategy run to its next request or to its end."""
        try:
            self.pending = move()
        except StopIteration as end:
            self.pending = None
            self.result = end.value
        except BudgetExhausted:
            self.pending = None

    def receive(self, answer: Answer, cost: Cost) -> None:
        self.cost += cost
        # What follows a refusal depends on the budget, so only what came before it can be replayed under another.
        if not self.refusals:
            self.answers.append(answer)
        self.send(answer)

    def send(self, answer: Answer) -> None:
        values: list[Any] = list(answer.values)
        if isinstance(answer, Samples):
            values = [list(row) for row in answer.values]
            assert isinstance(self.pending, Sample)
            for state, row in zip(self.pending.states, answer.values, strict=True):
                self.seen += [(state, completion) for completion in row]
        self.step(lambda: self.generator.send(values))

    def refuse(self) -> None:
        self.refusals += 1
        if self.refusals > MAX_REFUSALS:
            self.generator.close()
            self.pending = None
        else:
            self.step(lambda: self.generator.throw(BudgetExhausted()))

    def outcome(self) -> SearchOutcome:
        if self.pending is not None:
            stop = StopReason.PAUSED
        else:
            stop = StopReason.BUDGET if self.refusals else StopReason.FINISHED
        self.generator.close()
        result = self.result
        if result is None:
            result = SearchResult(None, tuple(Candidate(state.extend(last), last) for state, last in self.seen))
        record = SearchRecord(self.record.problem, self.record.seed, tuple(self.answers), self.cost)
        return SearchOutcome(result, self.cost, stop, record)


def _replay(strategy: Search, record: SearchRecord) -> _Live:
    search = _Live(record, strategy.run(record.problem), record.cost)
    search.step(lambda: next(search.generator))
    for answer in record.answers:
        request = search.pending
        if request is None or not _fits(request, answer):
            given = "answers that do not fit what the strategy asks"
            accepted = "a record of the same strategy with the same settings"
            raise InvalidValue("search record", given, accepted, "go on with the strategy that made the record")
        search.answers.append(answer)
        search.send(answer)
    return search


def _fits(request: Request, answer: Answer) -> bool:
    if not isinstance(answer, _ANSWER_OF[type(request)]) or len(answer.values) != _num_asked(request):
        return False
    return not isinstance(answer, Samples) or all(len(row) == getattr(request, "n", None) for row in answer.values)


def _num_asked(request: Request) -> int:
    return len(request.texts if isinstance(request, Encode) else request.states)


def _hold_to_budget(search: _Live, budget: Budget, scorer: Scorer | None) -> None:
    while search.pending is not None and not _allowed(search.pending, budget, search.cost, scorer):
        search.refuse()


def _allowed(request: Request, budget: Budget, spent: Cost, scorer: Scorer | None) -> bool:
    """Ceilings on tokens and calls stop what runs a model; the ceiling on seconds stops all but reading answers off."""
    if isinstance(request, Extract | Encode | Decode):
        return True
    runs_model = isinstance(request, Sample) or (
        isinstance(request, Score) and scorer is not None and scorer.cost_tokens(request.states) > 0
    )
    return budget.allows(spent) if runs_model else Budget(seconds=budget.seconds).allows(spent)
