"""Credit for steps: process rewards, values at step ends, implicit rewards. G samples of a problem, S steps, T tokens.

A process reward enters any method of this room in one of two ways: `at_step_ends` makes it a reward of a token, for
`clew.learn.returns` (REINFORCE, PPO) and `reinforce_plus_plus`; `stepwise` and `joint` compare it within a group.
`spread` gives the tokens of a step the step's advantage. A step's reward may depend on what is written up to its end;
one that knows what follows biases every return-to-go.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clew.core.errors import InvalidValue
from clew.learn.advantages import group_normalised, leave_one_out
from clew.learn.returns import discounted_returns

GroupAdvantage = Callable[[Tensor, Tensor], Tensor]
"""An advantage of `clew.learn.advantages`: rewards and valid, both [..., G] -> [..., G]."""


def stepwise(rewards: Tensor, mask: Tensor, *, advantage: GroupAdvantage = leave_one_out, gamma: float = 1.0) -> Tensor:
    """Each step's return-to-go compared with that of the other samples at the same step: [..., G, S].

    `rewards` and `mask` are [..., G, S]; a sample that has ended has return zero there, one without steps takes no
    part. With `leave_one_out` unbiased, with `group_centred` (n - 1) / n of it, for any process reward.
    """
    returns = discounted_returns(rewards, mask, gamma=gamma)
    taking_part = mask.any(-1)[..., None, :].expand(returns.mT.shape)
    return torch.where(mask, advantage(returns.mT, taking_part).mT, 0.0)


def joint(rewards: Tensor, mask: Tensor, *, advantage: GroupAdvantage = group_normalised) -> Tensor:
    """All steps of the group compared as one set, then summed from each step to the end: [..., G, S].

    GRPO with process supervision (Shao et al. 2024, arXiv 2402.03300, section 4.1.3). Biased: the mean is subtracted
    once for every step that follows, so where rewards are positive it favours fewer steps, where negative more.
    """
    compared = advantage(torch.where(mask, rewards, 0.0).flatten(-2), mask.flatten(-2)).view(rewards.shape)
    return discounted_returns(compared, mask)


def progress(outcome: Tensor, rewards: Tensor, mask: Tensor) -> Tensor:
    """The advantage of the whole response at every step, and beside it what the step itself is paid: [..., G, S].

    Process advantage verifiers (Setlur et al. 2024, arXiv 2410.08146, section 3): `rewards` [..., G, S] are alpha times
    V_{k+1} - V_k, the last end's V being the outcome; `outcome` is [..., G]. What a step is paid is compared with the
    same step of the other samples that have one: under a prover that is not the policy, V falls or rises on the whole.
    With the values of the policy itself the expected gradient is 1 + alpha times the true one; with those of another
    policy, a step also counts by how much it helps that one.
    """
    alone = mask.sum(-2, keepdim=True) == 1
    paid = torch.where(alone, rewards, leave_one_out(rewards.mT, mask.mT).mT)
    return torch.where(mask, outcome[..., None] + paid, 0.0)


def best_of(value: float, k: int) -> float:
    """The chance that one of `k` responses is right where each is with chance `value`; `k` = 1 leaves it as it is.

    The value of the prover that takes the best of k responses of the policy (arXiv 2410.08146, section 3.3).

    >>> best_of(0.5, 2)
    0.75
    """
    return value if k == 1 else 1.0 - (1.0 - min(1.0, max(0.0, value))) ** k


def value_differences(values: Tensor, rewards: Tensor | None = None, *, gamma: float = 1.0) -> Tensor:
    """r_k + gamma V_{k+1} - V_k of each step: values [..., S + 1] at the ends of steps, the start first -> [..., S].

    VinePPO (Kazemnejad et al. 2024, arXiv 2410.01679): V is the mean reward of responses continued from there, and of
    a finished response its reward. Repeat the last value to pad. A step beside an unscored value (NaN) gets zero.
    """
    differences = gamma * values[..., 1:] - values[..., :-1]
    return torch.nan_to_num(differences if rewards is None else differences + rewards, nan=0.0)


def prime(
    implicit: Tensor, outcomes: Tensor, mask: Tensor, *, valid: Tensor | None = None, gamma: float = 1.0
) -> Tensor:
    """Implicit token rewards and outcomes, each above the mean of the other samples, as returns: [..., G, T].

    PRIME (Cui et al. 2025, arXiv 2502.01456, equation 5): A_t = sum over s >= t of gamma^(s-t) (r_s - the others' mean
    reward a token) + (outcome - the others' mean outcome). `implicit` and `mask` are [..., G, T], `outcomes` [..., G].
    The token part subtracts its baseline once for every token that follows: unbiased at equal lengths only.
    PRIME whitens the result over the batch (`clew.learn.batch_normalised.whitened`).
    """
    taking_part = mask.any(-1) if valid is None else mask.any(-1) & valid
    mask = mask & taking_part[..., None]
    means = torch.where(mask, implicit, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)
    others = means - leave_one_out(means, taking_part)
    compared = torch.where((taking_part.sum(-1) > 1)[..., None, None], implicit - others[..., None], 0.0)
    return discounted_returns(compared, mask, gamma=gamma) + torch.where(
        mask, leave_one_out(outcomes, taking_part)[..., None], 0.0
    )


def at_step_ends(rewards: Tensor, stops: Tensor, *, time: int) -> Tensor:
    """Rewards of steps [batch, S] at their last tokens [batch, time]; step i ends before token `stops[:, i]` (long).

    Repeat the last stop to pad; the reward of an empty step is dropped.
    """
    starts = _starts(stops)
    kept = torch.where(stops > starts, rewards, 0.0)
    return rewards.new_zeros(len(rewards), time).scatter_add(1, (stops - 1).clamp(min=0), kept)


def spread(steps: Tensor, stops: Tensor, *, time: int) -> Tensor:
    """What belongs to steps [batch, S], given to each of their tokens [batch, time]; zero after the last stop."""
    _starts(stops)
    positions = torch.arange(time, device=stops.device)
    step = (positions[None, :, None] >= stops[:, None, :]).sum(-1)
    padded = torch.cat([steps, steps.new_zeros(len(steps), 1)], dim=1)
    return padded.gather(1, step)


def _starts(stops: Tensor) -> Tensor:
    starts = torch.cat([torch.zeros_like(stops[:, :1]), stops[:, :-1]], dim=1)
    if bool((stops < starts).any()):
        raise InvalidValue(
            "ends of steps", stops.tolist(), "numbers that do not fall", "count from the response's start"
        )
    return starts
