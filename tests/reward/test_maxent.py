"""Inverse reinforcement learning on mazes: the recovered reward plans what the expert did, and is the true one."""

from __future__ import annotations

import numpy as np
import pytest

from clew.core.errors import InvalidValue
from clew.reward.maxent import advantages, agreement, explained, recover_reward
from clew.reward.tabular import best_actions, find_cell, maze_mdp, optimal_q, soft_policy, soft_q, walk
from clew.tasks import Maze

MAZES = [problem.metadata["rows"] for problem in Maze(width=4, height=4).problems("train", 5, seed=1)]


def arriving(mdp, reward_S):
    return mdp.with_reward(np.broadcast_to(reward_S, mdp.transition.shape))


def reachable(mdp):
    """States from which the goal can be reached: of others no demonstration says anything."""
    return optimal_q(mdp).max(-1) > 0


@pytest.mark.parametrize("rows", MAZES, ids="/".join)
def test_from_optimal_demonstrations_the_recovered_reward_plans_as_the_expert(rows):
    mdp = maze_mdp(rows)
    best = best_actions(optimal_q(mdp))
    known = reachable(mdp) & ~mdp.terminal
    shown = best / best.sum(-1, keepdims=True) * known[:, None]
    found = recover_reward(mdp, shown)
    planned = optimal_q(arriving(mdp, found.reward_S))
    assert not (best_actions(planned) & ~best)[known].any()
    start = find_cell(rows, "S")
    assert len(walk(mdp, planned, start, 50)) == len(walk(mdp, optimal_q(mdp), start, 50))


@pytest.mark.parametrize("rows", MAZES, ids="/".join)
def test_from_a_soft_expert_the_true_reward_is_recovered_up_to_shaping(rows):
    mdp = maze_mdp(rows, step=-0.5, goal=4.0, gamma=0.9)
    expert = soft_policy(soft_q(mdp))
    found = recover_reward(mdp, expert, ridge=1e-9)
    recovered = arriving(mdp, found.reward_S)
    live = ~mdp.terminal
    assert soft_policy(soft_q(recovered))[live] == pytest.approx(expert[live], abs=5e-3)
    assert agreement(mdp, recovered.reward) > 0.99
    entropy = -(expert * np.log(expert))[live].sum() / live.sum()
    assert found.log_likelihood == pytest.approx(-entropy, abs=1e-3)
    # The control: other rewards do not agree by themselves.
    rng = np.random.default_rng(0)
    assert np.mean([agreement(mdp, arriving(mdp, rng.normal(size=len(live))).reward) for _ in range(20)]) < 0.5


def test_two_hundred_walks_are_enough_for_most_of_the_truth():
    mdp = maze_mdp(MAZES[0], step=-0.5, goal=4.0, gamma=0.9)
    expert, rng = soft_policy(soft_q(mdp)), np.random.default_rng(0)
    counts = np.zeros_like(expert)
    for _ in range(200):
        state = int(rng.choice(np.flatnonzero(~mdp.terminal)))
        for _ in range(30):
            if mdp.terminal[state]:
                break
            action = int(rng.choice(4, p=expert[state]))
            counts[state, action] += 1
            state = int(mdp.transition[state, action].argmax())
    found = recover_reward(mdp, counts, ridge=1e-3)
    assert agreement(mdp, arriving(mdp, found.reward_S).reward) > 0.8


def test_the_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(2)
    mdp = maze_mdp(["S.#", "..G"], gamma=0.8)
    share = rng.random(mdp.transition.shape[:2]) * ~mdp.terminal[:, None]
    reward = rng.normal(size=len(share))
    _, gradient = explained(mdp, share, reward)
    for at in range(len(reward)):
        step = 1e-5 * np.eye(len(reward))[at]
        up, down = (explained(mdp, share, reward + sign * step)[0] for sign in (1, -1))
        assert gradient[at] == pytest.approx((up - down) / 2e-5, abs=1e-6)


def test_advantages_are_what_shaping_leaves_and_average_to_nothing():
    rng = np.random.default_rng(3)
    mdp = maze_mdp(MAZES[1], step=-0.1)
    policy = rng.dirichlet(np.ones(4), len(mdp.terminal))
    shaped = mdp.shaped(rng.normal(size=len(mdp.terminal)))
    assert advantages(shaped, policy) == pytest.approx(advantages(mdp, policy), abs=1e-9)
    assert (policy * advantages(mdp, policy)).sum(-1) == pytest.approx(np.zeros(len(policy)), abs=1e-9)
    assert agreement(mdp, shaped.reward) == pytest.approx(1.0)
    assert agreement(mdp, -2.0 * shaped.reward) == pytest.approx(-1.0)


def test_without_demonstrations_there_is_nothing_to_recover():
    mdp = maze_mdp(["S.G"])
    at_the_end_only = np.zeros((3, 4))
    at_the_end_only[2] = 1.0
    with pytest.raises(InvalidValue, match="demonstrations"):
        recover_reward(mdp, at_the_end_only)
