"""Potential-based shaping (Ng, Harada and Russell 1999): dense rewards that leave the optimal policy as it is.

F(s, s') = gamma Phi(s') - Phi(s). Along an episode the sum of gamma^t F telescopes to gamma^T Phi(s_T) - Phi(s_0). With
Phi = 0 where the episode ends only -Phi(s_0) is left, the same for whatever the policy does: the order of policies
stays. A potential left standing at the end would pay for ending in a place it likes, right or wrong. An episode that
was cut off has ended, too: else it would pay to be cut off in a promising place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Scorer
from clew.core.types import Outcome, Reward, Span, State, Trajectory


def shaping_reward(before: Any, after: Any, *, gamma: float) -> Any:
    """F = gamma Phi(s') - Phi(s), for numbers or arrays that broadcast (Ng et al. 1999, theorem 1).

    >>> shaping_reward(0.5, 0.75, gamma=1.0)
    0.25
    """
    return gamma * after - before


def shaped_steps(rewards_T: Sequence[float], potentials_T: Sequence[float], *, gamma: float = 1.0) -> list[float]:
    """Shaped rewards [T] of an episode's steps: `rewards_T` of each, `potentials_T` of the state before each.

    The state after the last step is the end, whose potential is 0. Raises `InvalidValue` if the lengths differ.

    >>> shaped_steps([0.0, 0.0, 1.0], [0.5, 0.25, 0.75])
    [-0.25, 0.5, 0.25]
    """
    if not len(rewards_T) == len(potentials_T) > 0:
        given = f"{len(rewards_T)} and {len(potentials_T)}"
        accepted = "as many rewards as potentials, at least one"
        raise InvalidValue("numbers of rewards and potentials", given, accepted, "rate the state before each step")
    after_T = (*potentials_T[1:], 0.0)
    return [
        reward + shaping_reward(before, after, gamma=gamma)
        for reward, before, after in zip(rewards_T, potentials_T, after_T, strict=True)
    ]


def discounted(rewards_T: Sequence[float], *, gamma: float = 1.0) -> float:
    """The return of an episode: sum over t of gamma^t r_t.

    >>> discounted([1.0, 1.0, 4.0], gamma=0.5)
    2.5
    """
    return math.fsum(gamma**t * reward for t, reward in enumerate(rewards_T))


def states_along(state: State, stops: Sequence[int]) -> list[State]:
    """The states at which each step of `state` begins: the problem alone, then its first tokens up to each stop.

    `stops` are ascending numbers of tokens; the last one, the whole of `state`, is not among the states.
    """
    begins = (0, *stops[:-1])
    spans = tuple(Span(begin, stop) for begin, stop in zip(begins, stops, strict=True))
    return [State(state.problem, state.tokens[:begin], spans[:at]) for at, begin in enumerate(begins)]


def step_stops(state: State) -> list[int]:
    """Where the steps of `state` stop, as it was written: one stop for a solution sampled in one go."""
    return [span.stop for span in state.steps] or [len(state.tokens)]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PotentialShaping:
    """Dense rewards of a judged trajectory from any scorer as potential; the order of its policies is kept.

    A value function is a good potential for the policy it was estimated under; for another it keeps the optimum too,
    but may make it harder to find.
    """

    potential: Scorer
    gamma: float = 1.0
    """Discount of the return that the policy is to maximise, above 0 up to 1."""
    weight: float = 1.0
    """What the scorer's numbers are multiplied with."""
    stops: Callable[[State], Sequence[int]] = step_stops
    """Where the steps of a finished state stop, in tokens."""

    def __post_init__(self) -> None:
        if not 0.0 < self.gamma <= 1.0:
            raise InvalidValue("gamma", self.gamma, "a number above 0 and up to 1", "use 1, as for whole solutions")
        if not math.isfinite(self.weight):
            raise InvalidValue("weight", self.weight, "a finite number", "use 1")

    def shape(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """`trajectories` with `step_rewards`; their rewards get the part `shaping`: minus the potential of the problem.

        At gamma 1 the step rewards add up to the reward's value. What is unscored stays as it is.
        """
        judged = [t for t in trajectories if t.verdict.outcome is not Outcome.UNSCORED]
        paths = [states_along(t.state, self.stops(t.state)) for t in judged]
        flat = [state for path in paths for state in path]
        rated = iter(self.potential.score(flat, [None] * len(flat)) if flat else ())
        potentials = [[self.weight * next(rated) for _ in path] for path in paths]
        done = iter([self._shaped(t, own) for t, own in zip(judged, potentials, strict=True)])
        return [t if t.verdict.outcome is Outcome.UNSCORED else next(done) for t in trajectories]

    def _shaped(self, trajectory: Trajectory, potentials_T: Sequence[float]) -> Trajectory:
        rewards_T = [0.0] * (len(potentials_T) - 1) + [trajectory.reward.value]
        steps = shaped_steps(rewards_T, potentials_T, gamma=self.gamma)
        # Of all that was added only this is left in the return.
        shaping = -potentials_T[0]
        reward = Reward(trajectory.reward.value + shaping, {**trajectory.reward.parts, "shaping": shaping})
        return replace(trajectory, step_rewards=tuple(steps), reward=reward)
