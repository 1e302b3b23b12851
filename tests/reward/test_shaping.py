"""Shaping: what it adds telescopes, and the optimal policies of worlds that can be solved stay as they are."""

from __future__ import annotations

import itertools
import math
import random
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.types import Completion, FinishReason, Outcome, Reward, Span, State, Trajectory, Verdict
from clew.reward.shaping import PotentialShaping, discounted, shaped_steps, states_along
from clew.reward.tabular import (
    Mdp,
    best_actions,
    find_cell,
    maze_cells,
    maze_mdp,
    optimal_q,
    soft_policy,
    soft_q,
    walk,
)
from clew.tasks import Countdown, Maze
from clew.tasks.maze import shortest_path

numbers = st.floats(-1e3, 1e3)
PROBLEM = Countdown().problem({"numbers": [3, 5, 7, 9], "target": 30})


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12), st.sampled_from([1.0, 0.95, 0.5, 0.01]))
def test_what_shaping_adds_to_a_return_is_the_potential_of_the_start(steps, gamma):
    rewards, potentials = zip(*steps, strict=True)
    shaped = discounted(shaped_steps(rewards, potentials, gamma=gamma), gamma=gamma)
    assert shaped - discounted(rewards, gamma=gamma) == pytest.approx(-potentials[0], abs=1e-8)


def test_with_the_value_as_potential_the_best_step_earns_nothing_and_others_what_they_lose():
    """By hand: V is 0.5, the step taken leads to V 0.25, the next one to a right end."""
    assert shaped_steps([0.0, 1.0], [0.5, 0.25]) == [-0.25, 0.75]
    assert shaped_steps([1.0], [1.0]) == [0.0]
    with pytest.raises(InvalidValue, match="1 and 2"):
        shaped_steps([1.0], [1.0, 0.0])


def random_mdp(rng, *, integer):
    """Three to six states, a terminal one among them or none; rewards of few values where ties are wanted."""
    states, actions = int(rng.integers(3, 7)), int(rng.integers(2, 4))
    transition = rng.dirichlet(np.full(states, 0.3), (states, actions))
    if integer:
        transition = np.eye(states)[rng.integers(0, states, (states, actions))]
    shape = transition.shape
    reward = rng.integers(-1, 2, shape).astype(float) if integer else rng.normal(size=shape)
    terminal = np.arange(states) == (0 if rng.random() < 0.7 else states)
    return Mdp(transition=transition, reward=reward, terminal=terminal, gamma=float(rng.choice([0.5, 0.8, 0.9])))


def best_by_brute_force(mdp):
    """Every deterministic policy, evaluated by solving its linear equations; the value [S] of the best."""
    states, actions, _ = mdp.transition.shape
    best = np.full(states, -np.inf)
    for policy in itertools.product(range(actions), repeat=states):
        moves = mdp.transition[np.arange(states), policy] * ~mdp.terminal[:, None]
        earned = (moves * mdp.reward[np.arange(states), policy]).sum(-1)
        # Nothing comes after a terminal state: its column is worth 0 because its row earns 0.
        best = np.maximum(best, np.linalg.solve(np.eye(states) - mdp.gamma * moves, earned))
    return best


@pytest.mark.parametrize("seed", range(8))
def test_policy_iteration_finds_what_trying_every_policy_finds(seed):
    mdp = random_mdp(np.random.default_rng(seed), integer=seed % 2 == 0)
    assert optimal_q(mdp).max(-1) == pytest.approx(best_by_brute_force(mdp), abs=1e-8)


@pytest.mark.parametrize("seed", range(24))
def test_any_potential_leaves_the_optimal_actions_of_a_random_world_as_they_are(seed):
    rng = np.random.default_rng(seed)
    mdp = random_mdp(rng, integer=seed % 2 == 0)
    potential = rng.normal(scale=10.0, size=len(mdp.terminal))
    plain, shaped = optimal_q(mdp), optimal_q(mdp.shaped(potential))
    live = ~mdp.terminal
    assert (best_actions(plain) == best_actions(shaped))[live].all()
    assert (plain - potential[:, None])[live] == pytest.approx(shaped[live], abs=1e-7)
    soft, soft_shaped = soft_policy(soft_q(mdp)), soft_policy(soft_q(mdp.shaped(potential)))
    assert soft[live] == pytest.approx(soft_shaped[live], abs=1e-7)


def test_a_potential_left_standing_at_the_end_changes_the_optimum():
    """Two ends, a right one and one that the potential likes better: why Phi is 0 where an episode ends."""
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = transition[0, 1, 2] = transition[1:, :, 1] = 1.0
    reward = np.zeros((3, 2, 3))
    reward[0, 0, 1] = 1.0
    mdp = Mdp(transition=transition, reward=reward, terminal=np.array([False, True, True]), gamma=0.9)
    potential = np.array([0.0, 0.0, 5.0])
    assert best_actions(optimal_q(mdp.shaped(potential)))[0].tolist() == [True, False]
    left_standing = mdp.with_reward(mdp.reward + mdp.gamma * potential - potential[:, None, None])
    assert best_actions(optimal_q(left_standing))[0].tolist() == [False, True]


MAZES = [problem.metadata["rows"] for problem in Maze().problems("train", 12, seed=4)]


@pytest.mark.parametrize("rows", MAZES, ids="/".join)
def test_in_a_maze_shaping_keeps_every_optimal_move_and_a_bonus_for_steps_makes_loops(rows):
    mdp = maze_mdp(rows)
    plain = optimal_q(mdp)
    start, shortest = find_cell(rows, "S"), len(shortest_path(rows))
    assert len(walk(mdp, plain, start, 100)) - 1 == shortest
    values = plain.max(-1)
    for potential in (values, -values, np.random.default_rng(0).normal(size=len(values))):
        shaped = optimal_q(mdp.shaped(potential))
        assert (best_actions(shaped) == best_actions(plain))[~mdp.terminal].all()
    # The same progress paid for whenever it is made, and nothing taken back for steps away.
    gain = np.where(mdp.terminal, 0.0, values)[None, None, :] - values[:, None, None]
    bonus = mdp.with_reward(mdp.reward + 50.0 * np.maximum(gain, 0.0))
    path = walk(bonus, optimal_q(bonus), start, 100)
    reachable_loop = shortest > 2
    if reachable_loop:
        assert len(path) == 101
        assert len(set(path)) < 20


def test_the_maze_as_a_world_moves_as_the_task_says():
    rows = ["S#G", "..."]
    mdp = maze_mdp(rows, step=-1.0, goal=7.0)
    cells = maze_cells(rows)
    assert [tuple(cell) for cell in cells] == [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
    # up, down, left, right of S: a wall of the world, a free cell, a wall of the world, a wall.
    assert mdp.transition[0].argmax(-1).tolist() == [0, 2, 0, 0]
    assert mdp.reward[4, 0, 1] == 7.0
    assert mdp.reward[3, 0, 4] == -1.0
    assert mdp.terminal.tolist() == [False, True, False, False, False]
    assert find_cell(rows, "G") == 1
    with pytest.raises(InvalidValue, match="mark"):
        find_cell(rows, ".")
    with pytest.raises(InvalidValue, match="gamma"):
        maze_mdp(rows, gamma=1.0)


class Lengths:
    """Scorer: a tenth of the tokens written, which makes every potential known."""

    name = "lengths"

    def score(self, states, completions):
        return [1.0 + len(state.tokens) / 10 for state in states]

    def cost_tokens(self, states):
        return 0


def trajectory(tokens, stops, outcome, value):
    spans = tuple(Span(a, b) for a, b in zip([0, *stops], stops, strict=False))
    state = State(PROBLEM, tuple(tokens), spans, finished=True)
    reward = Reward(math.nan) if value is None else Reward(value, {"verifier": value})
    completion = Completion(tuple(tokens), None, FinishReason.STOP)
    return Trajectory(state, "", Verdict(outcome, value), reward, Cost(), 0, completion)


def test_a_trajectory_is_shaped_along_its_steps_and_the_unscored_stays_as_it_is():
    right = trajectory(range(10), [4, 10], Outcome.RIGHT, 1.0)
    unscored = trajectory(range(3), [3], Outcome.UNSCORED, None)
    wrong = trajectory([], [], Outcome.WRONG, 0.0)
    first, second, third = PotentialShaping(potential=Lengths()).shape([right, unscored, wrong])
    assert first.step_rewards == pytest.approx([0.4, 1.0 - 1.4])
    assert first.reward.parts == {"verifier": 1.0, "shaping": -1.0}
    assert first.reward.value == 0.0
    assert second is unscored
    assert third.step_rewards == (-1.0,)
    assert third.reward.value == -1.0
    assert PotentialShaping(potential=Lengths()).shape([unscored]) == [unscored]
    (doubled,) = PotentialShaping(potential=Lengths(), weight=2.0).shape([right])
    assert doubled.step_rewards == pytest.approx([2 * 0.4, 1.0 - 2 * 1.4])
    assert doubled.reward.parts == {"verifier": 1.0, "shaping": -2.0}


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, -2.0]))
def test_step_rewards_add_up_to_the_reward(seed, weight):
    rng = random.Random(seed)
    length = rng.randint(1, 20)
    stops = sorted({*rng.sample(range(1, length + 1), rng.randint(1, length)), length})
    given_ = trajectory(range(length), stops, Outcome.WRONG, rng.random())
    (shaped,) = PotentialShaping(potential=Lengths(), weight=weight).shape([given_])
    assert len(shaped.step_rewards) == len(stops)
    assert math.fsum(shaped.step_rewards) == pytest.approx(shaped.reward.value)
    assert math.fsum(shaped.reward.parts.values()) == pytest.approx(shaped.reward.value)


def test_states_along_are_prefixes_as_a_search_would_hold_them():
    state = trajectory(range(10), [4, 9, 10], Outcome.RIGHT, 1.0).state
    found = states_along(state, [4, 9, 10])
    assert [s.tokens for s in found] == [(), (0, 1, 2, 3), tuple(range(9))]
    assert found[2].steps == (Span(0, 4), Span(4, 9))
    assert not any(s.finished for s in found)


def test_settings_that_break_the_theorem_are_refused():
    for wrong in ({"gamma": 0.0}, {"gamma": 1.1}, {"weight": math.inf}):
        with pytest.raises(InvalidValue, match=next(iter(wrong))):
            PotentialShaping(potential=Lengths(), **wrong)


def test_the_example_of_the_documents_shows_the_loop(capsys):
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "shaping_in_a_maze.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "no shaping: reaches G in 8 moves" in out
    assert "potential-based shaping: reaches G in 8 moves" in out
    assert "bonus for every step nearer: never reaches G" in out
