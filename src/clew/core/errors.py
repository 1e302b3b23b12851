"""Errors a user can cause. Each message says what was given, what is accepted and what to do next.

Each class also derives from the standard exception it refines, so `except ValueError` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClewError(Exception):
    """Base of every error that clew raises on purpose; the command line prints it without a traceback."""

    exit_status = 1

    def __init__(self, given: str, accepted: str, advice: str) -> None:
        self.given, self.accepted, self.advice = given, accepted, advice
        super().__init__(given, accepted, advice)

    def __str__(self) -> str:
        return f"{self.given}\n  accepted: {self.accepted}\n  what to do: {self.advice}"


class UsageError(ClewError, ValueError):
    """The command or call was wrong."""

    exit_status = 2


class InvalidValue(UsageError):
    """A named value is outside what is accepted."""

    def __init__(self, name: str, value: object, accepted: str, advice: str) -> None:
        super().__init__(f"{name} is {value!r}", accepted, advice)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.given, self.accepted, self.advice))


MANY, NEAREST = 24, 8
"""More names than this are no help to read, and how many of them are told."""


class UnknownName(UsageError):
    """A name that does not exist, with the nearest one that does; of very many names only the nearest are told."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=NEAREST, cutoff=0.4)
        advice = f"did you mean {close[0]!r}?" if close else "choose one of those"
        accepted = ", ".join(known)
        if len(known) > MANY:
            told = sorted(close) or known[:NEAREST]
            accepted = f"{', '.join(told)} and {len(known) - len(told)} others"
        super().__init__(f"unknown {kind} {name!r}", accepted, advice)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.given, self.accepted, self.advice))


class CheckpointError(ClewError, OSError):
    """A checkpoint is missing or damaged."""


class RunDirectoryError(ClewError, OSError):
    """A run directory cannot be used: it exists, cannot be written, or does not match."""


class TrainingDiverged(ClewError, ArithmeticError):
    """A loss or gradient was not finite; the last good checkpoint is kept."""


class EngineMismatch(ClewError, ArithmeticError):
    """The rollout engine and the training forward pass disagree on log-probabilities."""


class TooManyUnscored(ClewError, RuntimeError):
    """A verifier could not judge more answers than a run may leave out."""


class MissingExtra(ClewError, ImportError):
    """An optional dependency is not installed."""


def _rebuild(cls: type[ClewError], given: str, accepted: str, advice: str) -> ClewError:
    error = cls.__new__(cls)
    ClewError.__init__(error, given, accepted, advice)
    return error
