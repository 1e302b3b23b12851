"""What scoring a state read, kept until the driver asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

from clew.core.types import State

StateKey = tuple[str, tuple[int, ...]]


def state_key(state: State) -> StateKey:
    """What two equal states have in common: the problem and the tokens."""
    return state.problem.id, state.tokens


@final
@dataclass(slots=True)
class TokensRead:
    """Notes of a scorer about the tokens its model really computed, by the state they were computed for."""

    _noted: dict[StateKey, int] = field(default_factory=dict, repr=False)

    def note(self, state: State, tokens: int) -> None:
        """`tokens` were computed for `state`, besides those noted before."""
        key = state_key(state)
        self._noted[key] = self._noted.get(key, 0) + tokens

    def take(self, states: Sequence[State], expected: Callable[[State], int]) -> int:
        """Tokens computed for `states`, each told once; `expected` of a state that nothing is noted of."""
        distinct = {state_key(state): state for state in states}
        return sum(self._noted.pop(key) if key in self._noted else expected(state) for key, state in distinct.items())
