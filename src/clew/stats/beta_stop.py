"""When a vote is decided before all votes are in: the Beta criterion of Adaptive-Consistency (arXiv 2305.11860)."""

from __future__ import annotations

from clew.core.errors import InvalidValue


def leader_confidence(leader: int, runner_up: int) -> float:
    """P(p > 1/2) for p ~ Beta(leader + 1, runner_up + 1): that of the two answers the leader is the more likely one.

    Exact: with n = leader + runner_up + 1 it is the chance of more than `runner_up` heads in n tosses of a fair coin,
    a ratio of two whole numbers. Raises `InvalidValue` for a negative count.

    >>> leader_confidence(3, 0), leader_confidence(4, 0)
    (0.9375, 0.96875)
    """
    for name, votes in (("votes of the leader", leader), ("votes of the runner-up", runner_up)):
        if votes < 0:
            raise InvalidValue(name, votes, "a count of at least 0", "count the votes of two answers")
    num_tosses = leader + runner_up + 1
    ways, ways_to_lose = 1, 0
    for heads in range(runner_up + 1):
        ways_to_lose += ways
        ways = ways * (num_tosses - heads) // (heads + 1)
    return ((1 << num_tosses) - ways_to_lose) / (1 << num_tosses)
