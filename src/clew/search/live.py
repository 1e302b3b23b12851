"""The search of one problem while it runs: the strategy's generator, what it was answered and what it spent."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from clew.core.cost import Cost
from clew.core.errors import ClewError, InvalidValue, MissingExtra, UsageError
from clew.core.protocols import (
    Candidate,
    Decode,
    Encode,
    Extract,
    Request,
    Sample,
    Score,
    Search,
    SearchResult,
    Verify,
)
from clew.core.types import Completion, State
from clew.search import failure
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
from clew.search.serve import Asked, Failed, Roles, Served, serve

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


class WrongUse(NamedTuple):
    """An error that may be about the call as a whole, and the kind of request that met it (None: the strategy)."""

    error: ClewError
    asked: type[Request] | None


@dataclass(slots=True)
class LiveSearch:
    """One search under way: its generator, what it was answered, and what it waits for."""

    strategy: Search
    record: SearchRecord
    """What it began with."""
    cost: Cost = field(init=False)
    served: list[Served] = field(default_factory=list)
    """Answers before the first refusal: what follows one depends on the budget and cannot be replayed under another."""
    idle: int = 0
    """Requests in a row that sampled nothing."""
    pending: Request | None = None
    result: SearchResult | None = None
    error: str | None = None
    wrong_use: WrongUse | None = None
    _generator: Generator[Request, Any, SearchResult] | None = None
    _aside: Cost = field(default_factory=Cost)
    """Spent after the first refusal, or on a request that failed."""
    _refusals: int = 0
    _seen: list[tuple[State, Completion]] = field(default_factory=list)
    _stopped: tuple[str | None, StopReason, SearchRecord] | None = None
    """How it stopped, before it was wound up: that may be interrupted, and asked for again."""

    def __post_init__(self) -> None:
        self.cost = self.record.cost

    @property
    def live(self) -> bool:
        return self.pending is not None and self.error is None

    def replay(self) -> set[type[Request]]:
        """Start the strategy and give it the answers of the record; the kinds of requests they answered."""
        kinds: set[type[Request]] = set()
        self._start()
        for answer in self.record.answers:
            if self.error is not None:
                break
            request = self.pending
            if request is None or not _fits(request, answer):
                given = "answers that do not fit what the strategy asks"
                accepted = "a record of the same strategy with the same settings"
                raise InvalidValue("search record", given, accepted, "go on with the strategy that made the record")
            kinds.add(type(request))
            self.served.append(Served(answer, Cost()))
            self._send(answer)
        return kinds

    def receive(self, served: Served | Failed) -> bool:
        """Take the answer to the pending request; False if it failed."""
        if isinstance(served, Failed):
            self._aside += served.cost
            self.cost += served.cost
            assert self.pending is not None
            self.error = failure.of_role(self.strategy, self.record.problem, self.pending, served.error)
            self._note_wrong_use(served.error, type(self.pending))
            return False
        # One append keeps answer and cost together, whenever an interrupt comes.
        if self._refusals:
            self._aside += served.cost
        else:
            self.served.append(served)
        self.cost += served.cost
        self._send(served.answer)
        return True

    def refuse(self) -> None:
        self._refusals += 1
        if self._refusals > MAX_REFUSALS:
            self._close()
            self.pending = None
        else:
            self._throw()

    def end_endless(self, what: str, limit: int) -> None:
        given = f"it made more than {limit} {what}"
        self.error = failure.of_endlessness(self.strategy, self.record.problem, given, limit)

    def as_record(self) -> SearchRecord:
        """What the search goes on from; it may run on afterwards."""
        if len(self.served) < len(self.record.answers):
            return self.record
        new = self.served[len(self.record.answers) :]
        cost = sum((served.cost for served in new), self.record.cost) + self._aside
        return replace(self.record, answers=tuple(served.answer for served in self.served), cost=cost)

    def outcome(self, roles: Roles) -> SearchOutcome:
        """End the search here. One that was not at its end answers with its best so far."""
        if self._stopped is None:
            self._stopped = self.error, self._stop_reason(), self.as_record()
        error, stop, record = self._stopped
        self._wind_up(roles)
        self._close()
        result = self.result
        if result is None:
            result = SearchResult(None, tuple(Candidate(state.extend(last), last) for state, last in self._seen))
        if error is not None:
            result = replace(result, chosen=None)
        return SearchOutcome(result, record.cost, stop, record, error)

    def _stop_reason(self) -> StopReason:
        if self.error is not None:
            return StopReason.FAILED
        if self.pending is None and self._refusals:
            return StopReason.BUDGET
        return StopReason.PAUSED if self.result is None else StopReason.FINISHED

    def _wind_up(self, roles: Roles) -> None:
        for _ in range(MAX_REFUSALS):
            request = self.pending
            if request is None:
                return
            served = None
            if isinstance(request, Extract | Encode | Decode):
                (served,) = serve(roles, [Asked(request, self.record.seed)])
            if isinstance(served, Served):
                self._send(served.answer)
            else:
                self._throw()

    def _start(self) -> None:
        try:
            generator: object = self.strategy.run(self.record.problem)
        except Exception as error:  # noqa: BLE001  strategies are code of others
            self._fail(error)
            return
        if isinstance(generator, Generator):
            self._generator = generator
            self._move(lambda: next(generator))
        else:
            self._fail(TypeError(f"run gave {generator!r}, which is no generator"))

    def _send(self, answer: Answer) -> None:
        values: list[Any] = list(answer.values)
        self.idle += 1
        if isinstance(answer, Samples):
            values = [list(row) for row in answer.values]
            assert isinstance(self.pending, Sample)
            for state, row in zip(self.pending.states, answer.values, strict=True):
                if row:
                    self.idle = 0
                self._seen += [(state, completion) for completion in row]
        assert self._generator is not None
        send = self._generator.send
        self._move(lambda: send(values))

    def _throw(self) -> None:
        assert self._generator is not None
        throw = self._generator.throw
        self._move(lambda: throw(BudgetExhausted()))

    def _move(self, move: Callable[[], Request]) -> None:
        """Let the strategy run to its next request or to its end."""
        self.pending = None
        try:
            request = move()
        except StopIteration as end:
            if isinstance(end.value, SearchResult):
                self.result = end.value
            else:
                self._fail(TypeError(f"run returned {end.value!r}, which is no SearchResult"))
        except BudgetExhausted:
            pass
        except Exception as error:  # noqa: BLE001  strategies are code of others
            self._fail(error)
        else:
            if type(request) in _ANSWER_OF:
                self.pending = request
            else:
                self._fail(TypeError(f"run yielded {request!r}, which is no request"))

    def _fail(self, error: Exception) -> None:
        self.error = failure.of_strategy(self.strategy, self.record.problem, error)
        self._note_wrong_use(error, None)

    def _note_wrong_use(self, error: Exception, asked: type[Request] | None) -> None:
        if isinstance(error, UsageError | MissingExtra):
            self.wrong_use = WrongUse(error, asked)

    def _close(self) -> None:
        # A strategy that yields while it is being closed has nothing more to say.
        with suppress(RuntimeError):
            if self._generator is not None:
                self._generator.close()


def _fits(request: Request, answer: Answer) -> bool:
    if not isinstance(answer, _ANSWER_OF[type(request)]) or len(answer.values) != _num_asked(request):
        return False
    return not isinstance(answer, Samples) or all(len(row) == getattr(request, "n", None) for row in answer.values)


def _num_asked(request: Request) -> int:
    return len(request.texts if isinstance(request, Encode) else request.states)
