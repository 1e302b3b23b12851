"""Small Markov decision processes as arrays, solved exactly: where a statement about rewards can be checked.

The soft versions are those of maximum-entropy reinforcement learning at temperature 1 (Ziebart 2010).
"""

# Legend: S states, A actions; the third axis S of an array is the state that follows.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clew.core.errors import InvalidValue
from clew.reward.shaping import shaping_reward
from clew.tasks.maze import FREE, GOAL, MOVES, WALL, Cell

Floats = NDArray[np.float64]
TOLERANCE = 1e-11
"""Values are found when none moves by more, relative to the largest."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mdp:
    """Finite states and actions. What follows a terminal state is worth nothing, whatever the arrays say of it."""

    transition: Floats
    """[S, A, S] probabilities of the state that follows."""
    reward: Floats
    """[S, A, S] for each move."""
    terminal: NDArray[np.bool_]
    """[S] where an episode ends."""
    gamma: float = 0.95
    """Discount, at least 0 and below 1."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma < 1.0:
            raise InvalidValue("gamma", self.gamma, "at least 0 and below 1", "use 0.95")
        if self.transition.shape != self.reward.shape or not np.allclose(self.transition.sum(-1), 1.0):
            accepted = f"probabilities [S, A, S] that add up to 1, and a reward of that shape, not {self.reward.shape}"
            raise InvalidValue("shape of transition", self.transition.shape, accepted, "build both for the same states")

    def backup(self, values_S: Floats) -> Floats:
        """Q [S, A]: the reward of a move and the discounted value of where it leads; 0 at terminal states."""
        q_SA = (self.transition * (self.reward + self.gamma * values_S)).sum(-1)
        return np.where(self.terminal[:, None], 0.0, q_SA)

    def with_reward(self, reward: Floats) -> Mdp:
        """The same world with another reward [S, A, S]."""
        return replace(self, reward=reward)

    def shaped(self, potential_S: Floats) -> Mdp:
        """The same world with the shaping reward of `potential_S` added, which counts as 0 at terminal states."""
        phi_S = np.where(self.terminal, 0.0, potential_S)
        return self.with_reward(self.reward + shaping_reward(phi_S[:, None, None], phi_S, gamma=self.gamma))


def optimal_q(mdp: Mdp) -> Floats:
    """Q* [S, A] by policy iteration (Howard 1960)."""
    return _solved(mdp, lambda q_SA: q_SA.max(-1), lambda q_SA: np.eye(q_SA.shape[1])[q_SA.argmax(-1)])


def soft_q(mdp: Mdp) -> Floats:
    """Soft Q* [S, A], whose values are log-sum-exps over actions instead of maxima."""
    return _solved(mdp, lambda q_SA: np.logaddexp.reduce(q_SA, axis=-1), soft_policy)


def soft_policy(q_SA: Floats) -> Floats:
    """Probabilities [S, A] proportional to exp Q."""
    return np.exp(q_SA - np.logaddexp.reduce(q_SA, axis=-1, keepdims=True))


def best_actions(q_SA: Floats, *, within: float = 1e-8) -> NDArray[np.bool_]:
    """[S, A] which actions are optimal: those whose Q is the largest of their state, up to `within`."""
    return q_SA >= q_SA.max(-1, keepdims=True) - within


def walk(mdp: Mdp, q_SA: Floats, start: int, steps: int) -> list[int]:
    """States that the first best action of each leads to, likeliest first, until the end or for `steps`."""
    path = [start]
    while len(path) <= steps and not mdp.terminal[path[-1]]:
        action = int(best_actions(q_SA)[path[-1]].argmax())
        path.append(int(mdp.transition[path[-1], action].argmax()))
    return path


def maze_cells(rows: Sequence[str]) -> list[Cell]:
    """The free cells of a maze of `clew.tasks.maze`, the states of `maze_mdp`, in reading order."""
    return [Cell(r, c) for r, row in enumerate(rows) for c, mark in enumerate(row) if mark != WALL]


def maze_mdp(rows: Sequence[str], *, step: float = 0.0, goal: float = 1.0, gamma: float = 0.95) -> Mdp:
    """A maze as a world: four moves, of which those into a wall lead nowhere; `goal` for the move onto G, else `step`.

    >>> maze_mdp(["S.G"]).transition.shape
    (3, 4, 3)
    """
    cells = maze_cells(rows)
    place = {cell: at for at, cell in enumerate(cells)}
    transition = np.zeros((len(cells), len(MOVES), len(cells)))
    for cell, at in place.items():
        for action, move in enumerate(MOVES.values()):
            transition[at, action, place.get(Cell(cell.row + move.row, cell.column + move.column), at)] = 1.0
    terminal = np.array([rows[cell.row][cell.column] == GOAL for cell in cells])
    reward = np.broadcast_to(np.where(terminal, goal, step), transition.shape).copy()
    return Mdp(transition=transition, reward=reward, terminal=terminal, gamma=gamma)


def find_cell(rows: Sequence[str], mark: str) -> int:
    """The state of `maze_mdp` that is marked `mark`, `S` or `G`."""
    if mark == FREE or mark not in "".join(rows):
        raise InvalidValue("mark", mark, "one that stands in the maze once", "give S or G")
    return next(at for at, cell in enumerate(maze_cells(rows)) if rows[cell.row][cell.column] == mark)


def _solved(mdp: Mdp, value: Callable[[Floats], Floats], policy: Callable[[Floats], Floats]) -> Floats:
    """Q = backup(value(Q)) by Newton's method: `policy` is the derivative of `value`, so each step is linear."""
    values_S = np.zeros(len(mdp.terminal))
    while True:
        q_SA = mdp.backup(values_S)
        policy_SA = policy(q_SA) * ~mdp.terminal[:, None]
        residual_S = np.where(mdp.terminal, 0.0, value(q_SA)) - values_S
        moves_SS = np.einsum("sa,sat->st", policy_SA, mdp.transition)
        step_S = np.linalg.solve(np.eye(len(values_S)) - mdp.gamma * moves_SS, residual_S)
        values_S = values_S + step_S
        if np.abs(step_S).max() <= TOLERANCE * max(1.0, float(np.abs(values_S).max())):
            return mdp.backup(values_S)
