"""The distribution of best-of-N, and how far a response is from it: the target of BOND (arXiv 2407.14622).

Best-of-N draws N responses and keeps the one of highest reward, of equals one at random. With p_< and p_= the
probabilities that one draw has a lower or the same reward as y,

    pi_N(y) = pi(y) ((p_< + p_=)^N - p_<^N) / p_=,

exactly, ties included. (The paper's theorem 1 is this where rewards never tie; its quantile reward log p_<= is the
upper bound that N (p_< + p_=)^(N - 1) puts on the factor.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clew.core.errors import InvalidValue


def best_of_n_log_weight(lower: Tensor, equal: Tensor, n: int) -> Tensor:
    """log pi_N(y) / pi(y) from p_< and p_= of the reward of y, any shape; p_= is above 0.

    >>> best_of_n_log_weight(torch.tensor([0.0, 0.75]), torch.tensor([0.75, 0.25]), 2).exp()
    tensor([0.7500, 1.7500])
    """
    if n < 1:
        raise InvalidValue("n", n, "an integer of at least 1", "use 1 for the policy itself")
    upper = lower + equal
    # a^n - b^n = (a - b) (a^(n-1) + a^(n-2) b + ... + b^(n-1)): no digits are lost where equal is small.
    terms = torch.stack([upper ** (n - 1 - k) * lower**k for k in range(n)])
    return terms.sum(0).log()


def estimated_log_weights(rewards: Tensor, references: Tensor, n: int) -> Tensor:
    """The same for responses of `rewards` [samples], from rewards of M draws of the reference [M].

    Each response counts as one draw more of its own reward, so that p_= is never 0 and a lucky draw has a finite
    weight: an estimate that is biased towards the policy, and right in the limit of many draws.
    """
    draws = len(references)
    lower = (references < rewards[:, None]).sum(-1) / (draws + 1)
    equal = ((references == rewards[:, None]).sum(-1) + 1) / (draws + 1)
    return best_of_n_log_weight(lower, equal, n)


def best_of(rewards: Sequence[float], places: Sequence[int]) -> int:
    """The place, among `places`, of the highest reward; of equals the first, which is one at random among draws.

    >>> best_of([0.0, 1.0, 1.0, 0.5], [0, 2, 1])
    2
    """
    return max(places, key=lambda place: rewards[place])
