"""A reward as a sum of named terms, and terms by name as the command line gives them.

Each term rates a whole group, because some compare the answers to one problem. What a verifier could not judge stays
without a reward, whatever the terms say of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, final

from clew.core.errors import InvalidValue, UnknownName
from clew.core.protocols import Scorer
from clew.core.types import Group, Outcome, Reward
from clew.reward.length import CosineLength, Overlong, RelativeLength
from clew.reward.writing import Format, Language, Repetition


class Term(Protocol):
    """One named part of a reward."""

    @property
    def name(self) -> str: ...

    def rate(self, group: Group) -> list[float]:
        """A finite number for each trajectory of `group`; of those that are unscored it is not looked at."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Term: the value of the verdict, partial credit included."""

    name: ClassVar[str] = "verifier"

    weight: float = 1.0

    def rate(self, group: Group) -> list[float]:
        return [self.weight * (t.verdict.value or 0.0) for t in group.trajectories]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Term: what any scorer says of the finished response, such as a learned reward: a proxy of the truth."""

    scorer: Scorer
    weight: float = 1.0
    name: str = "model"

    def rate(self, group: Group) -> list[float]:
        states, completions = zip(*((t.state, t.completion) for t in group.trajectories), strict=True)
        return [self.weight * score for score in self.scorer.score(states, completions)]


AnyTerm = Verified | Overlong | RelativeLength | CosineLength | Format | Repetition | Language
"""The terms that need no model, which a name makes."""

TERMS: dict[str, type[AnyTerm]] = {
    term.name: term for term in (Verified, Overlong, RelativeLength, CosineLength, Format, Repetition, Language)
}
VERIFIED: tuple[Term, ...] = (Verified(),)
"""The reward of a plain run."""


def rewarded(group: Group, terms: Sequence[Term]) -> Group:
    """`group` with the sum of `terms` as the reward of each trajectory, its parts by name; NaN for the unscored.

    Raises `InvalidValue` if there is no term or two have one name.
    """
    names = [term.name for term in terms]
    if not names or len(set(names)) < len(names):
        raise InvalidValue("terms of the reward", names, "at least one, each name once", "name each term once")
    columns = [term.rate(group) for term in terms]
    rows = zip(*columns, strict=True)
    return replace(
        group,
        trajectories=tuple(
            replace(t, reward=_reward(t.verdict.outcome, dict(zip(names, row, strict=True))))
            for t, row in zip(group.trajectories, rows, strict=True)
        ),
    )


def mean_parts(groups: Sequence[Group]) -> dict[str, float]:
    """Mean over all scored trajectories of each part of their rewards; empty if there are none."""
    parts = [t.reward.parts for group in groups for t in group.scored]
    return {name: math.fsum(p[name] for p in parts) / len(parts) for name in (parts[0] if parts else ())}


def make_term(spec: str) -> AnyTerm:
    """The term of `name` or `name:key=value,key=value`.

    >>> make_term("overlong:longest=1280,margin=256")
    Overlong(longest=1280, margin=256, weight=1.0)
    """
    name, _, settings = spec.partition(":")
    if name not in TERMS:
        raise UnknownName("term of the reward", name, TERMS)
    defaults: Any = TERMS[name]()
    known = {field.name: getattr(defaults, field.name) for field in fields(defaults)}
    chosen: dict[str, Any] = {}
    for setting in settings.split(",") if settings else ():
        key, _, value = (part.strip() for part in setting.partition("="))
        if key not in known:
            raise UnknownName(f"setting of {name}", key, known)
        chosen[key] = _value(f"{name} {key}", type(known[key]), value)
    return replace(defaults, **chosen)


def _value(name: str, kind: type, text: str) -> Any:
    if kind is str and text:
        return text
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not text or not math.isfinite(number):
        accepted = {int: "a whole number", float: "a finite number"}.get(kind, "a word")
        raise InvalidValue(name, text, accepted, "write name:key=value")
    return number


def _reward(outcome: Outcome, parts: dict[str, float]) -> Reward:
    return Reward(math.nan) if outcome is Outcome.UNSCORED else Reward(math.fsum(parts.values()), parts)
