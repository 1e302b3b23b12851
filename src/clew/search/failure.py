"""Why the search of one problem failed, in three parts: what happened, what is accepted, what to do."""

from __future__ import annotations

from clew.core.errors import ClewError
from clew.core.protocols import Decode, Encode, Extract, Request, Sample, Score, Scorer, Search, Verify
from clew.core.types import Problem

_ROLE: dict[type[Request], str] = {
    Sample: "the policy",
    Score: "the scorer",
    Verify: "the verifier",
    Extract: "the task's extraction of answers",
    Encode: "the policy's encoding of text",
    Decode: "the policy's decoding of tokens",
}
_ACCEPTED: dict[type[Request], str] = {
    Sample: "one completion of at least one token for every prompt",
    Score: "one number, not NaN, for every state",
    Verify: "a verdict on any text, unscored where it cannot tell, its value not NaN",
    Extract: "an answer or none for any text",
    Encode: "token ids of any text",
    Decode: "a text of any state",
}


class BadAnswer(Exception):
    """A policy, a scorer or a verifier answered with something that is no answer."""


def of_role(strategy: Search, problem: Problem, request: Request, error: BaseException) -> str:
    """The message for a search whose `request` met with `error`."""
    kind = type(request)
    advice = f"mend {_ROLE[kind]}, then go on from the record of this outcome: what it has is kept"
    return _message(strategy, problem, f"{_ROLE[kind]} failed: {_text(error)}", _ACCEPTED[kind], advice)


def of_strategy(strategy: Search, problem: Problem, error: BaseException) -> str:
    """The message for a strategy that raised `error` itself."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" ({trace.tb_frame.f_code.co_filename.split('/')[-1]}, line {trace.tb_lineno})"
    accepted = "a strategy that catches what it can go on from, and raises nothing else"
    return _message(strategy, problem, f"it raised {_text(error)}{where}", accepted, "mend the strategy")


def of_endlessness(strategy: Search, problem: Problem, given: str, limit: int) -> str:
    """The message for a search that would not end by itself."""
    accepted = f"at most {limit} of them"
    return _message(
        strategy, problem, given, accepted, "bound the depth or the width of the strategy, or give a budget"
    )


def with_names(error: ClewError, strategy: Search, scorer: Scorer | None) -> ClewError:
    """`error`, saying which strategy and which guide it is about."""
    guide = "" if scorer is None else f", scorer {scorer.name!r}"
    error.given = f"{error.given} (strategy {strategy.name!r}{guide})"
    return error


def _message(strategy: Search, problem: Problem, given: str, accepted: str, advice: str) -> str:
    return str(ClewError(f"strategy {strategy.name!r} on problem {problem.id!r}: {given}", accepted, advice))


def _text(error: BaseException) -> str:
    if isinstance(error, ClewError):
        return error.given
    return str(error) if isinstance(error, BadAnswer) else f"{type(error).__name__}: {error}"
