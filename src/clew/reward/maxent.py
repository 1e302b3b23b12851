"""Maximum-entropy inverse reinforcement learning, exact on small worlds (Ziebart et al. 2008; Ziebart 2010).

The expert is taken to choose softly optimal actions; the reward that makes what he did likeliest is found by gradient.
Demonstrations say nothing of a potential-based shaping of the reward, so rewards are compared by what such a shaping
leaves as it is (STARC, arXiv 2309.15257): their advantages under one fixed policy.
"""

# Legend: S states, A actions.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clew.core.errors import InvalidValue
from clew.reward.tabular import Floats, Mdp, soft_policy, soft_q


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recovered:
    """A reward for arriving in each state, and how well it explains the demonstrations."""

    reward_S: Floats
    log_likelihood: float
    """Of one demonstrated action, mean, nats; at most 0."""


def recover_reward(world: Mdp, counts_SA: Floats, *, ridge: float = 1e-4) -> Recovered:
    """The arrival reward that maximises the mean log-likelihood of the demonstrated actions minus ridge |r|^2 / 2.

    Of `world` only the moves, the terminal states and gamma are used, not its reward. `counts_SA` says how often the
    expert took each action in each state. Raises `InvalidValue` if he took none.
    """
    from scipy.optimize import minimize

    counts_SA = np.where(world.terminal[:, None], 0.0, counts_SA)
    if not counts_SA.sum() > 0.0:
        raise InvalidValue("demonstrations", counts_SA.tolist(), "at least one action", "show some")
    share_SA = counts_SA / counts_SA.sum()

    def loss(reward_S: Floats) -> tuple[float, Floats]:
        value, gradient_S = explained(world, share_SA, reward_S)
        return ridge * float(reward_S @ reward_S) / 2 - value, ridge * reward_S - gradient_S

    found = minimize(loss, np.zeros(len(share_SA)), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return Recovered(reward_S=found.x, log_likelihood=explained(world, share_SA, found.x)[0])


def explained(world: Mdp, share_SA: Floats, reward_S: Floats) -> tuple[float, Floats]:
    """Mean log-likelihood of demonstrated actions under the softly optimal policy of an arrival reward; its gradient.

    The gradient [S] is the discounted number of arrivals that follow what the expert did, minus those that follow what
    the policy would do in the same states.
    """
    q_SA = soft_q(world.with_reward(np.broadcast_to(reward_S, world.transition.shape)))
    policy_SA = soft_policy(q_SA)
    moves_SAS = world.transition * ~world.terminal[:, None, None]
    by_policy_SS = np.einsum("sa,sat->st", policy_SA, moves_SAS)
    arrivals_SS = np.linalg.solve(np.eye(len(reward_S)) - world.gamma * by_policy_SS, by_policy_SS)
    arrivals_SAS = moves_SAS + world.gamma * moves_SAS @ arrivals_SS
    surprise_SA = share_SA - share_SA.sum(-1, keepdims=True) * policy_SA
    return float((share_SA * np.log(policy_SA)).sum()), np.einsum("sa,sat->t", surprise_SA, arrivals_SAS)


def advantages(mdp: Mdp, policy_SA: Floats) -> Floats:
    """Q - V [S, A] under a policy, which no potential-based shaping changes; 0 at terminal states."""
    moves_SAS = mdp.transition * ~mdp.terminal[:, None, None]
    earned_S = np.einsum("sa,sat,sat->s", policy_SA, moves_SAS, mdp.reward)
    by_policy_SS = np.einsum("sa,sat->st", policy_SA, moves_SAS)
    values_S = np.linalg.solve(np.eye(len(earned_S)) - mdp.gamma * by_policy_SS, earned_S)
    return mdp.backup(values_S) - np.where(mdp.terminal, 0.0, values_S)[:, None]


def agreement(mdp: Mdp, reward: Floats) -> float:
    """Correlation of the world's own reward with another [S, A, S], up to shaping and scale; 1 if they are equivalent.

    Of their advantages under the policy that acts at random, over states that are not terminal.
    """
    uniform_SA = np.full(mdp.transition.shape[:2], 1.0 / mdp.transition.shape[1])
    live = ~mdp.terminal
    ours, other = (advantages(world, uniform_SA)[live].ravel() for world in (mdp, mdp.with_reward(reward)))
    return float(np.corrcoef(ours, other)[0, 1])
