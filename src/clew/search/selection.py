"""Selection rules of tree search: which child next. Pure functions of plain numbers, A children in sampled order.

Visits of a child count those under way as well (WU-UCT, arXiv 1810.11755), so that selections that follow one another
without an answer in between differ.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

EPSILON = 1e-8
"""The smallest range that values are divided by (mctx)."""


def uct(q: float, parent_visits: float, visits: float, c: float) -> float:
    """Q + c sqrt(ln N_p / N) (UCB1 on trees, Kocsis and Szepesvari 2006); infinite for an unvisited child.

    >>> round(uct(0.5, 16, 4, c=2.0), 6)
    2.165109
    """
    return q + c * math.sqrt(math.log(parent_visits) / visits) if visits else math.inf


def puct(q: float, prior: float, parent_visits: float, visits: float, c1: float = 1.25, c2: float = 19652.0) -> float:
    """Q + P sqrt(N_p)/(1 + N) (c1 + ln((N_p + c2 + 1)/c2)) (AlphaZero; MuZero, arXiv 1911.08265, equation 2).

    >>> round(puct(0.5, 0.2, 100, 9), 6)
    0.751025
    """
    return q + prior * exploration(parent_visits, c1, c2) / (1.0 + visits)


def exploration(parent_visits: float, c1: float = 1.25, c2: float = 19652.0) -> float:
    """The part of `puct` that is the same for all children: sqrt(N_p) (c1 + ln((N_p + c2 + 1)/c2))."""
    return math.sqrt(parent_visits) * (c1 + math.log((parent_visits + c2 + 1.0) / c2))


def min_max(q: float, low: float, high: float) -> float:
    """`q` on the scale where `low` is 0 and `high` is 1 (MuZero, equation 5); 0 where nothing is known to differ."""
    return (q - low) / (high - low) if high - low > EPSILON else 0.0


def normalise(weights: Sequence[float]) -> list[float]:
    """Log-weights [A] as probabilities: their softmax."""
    top = max(weights)
    shares = [math.exp(weight - top) for weight in weights]
    total = math.fsum(shares)
    return [share / total for share in shares]


def with_noise(priors: Sequence[float], fraction: float, alpha: float, stream: random.Random) -> list[float]:
    """(1 - f) P + f Dir(alpha) at the root (AlphaZero, arXiv 1712.01815): every child is tried now and then. [A]"""
    draws = [stream.gammavariate(alpha, 1.0) for _ in priors]
    total = math.fsum(draws)
    # Draws of a tiny alpha may all underflow to 0; their limit puts the whole mass anywhere, so nothing is added.
    noise = [draw / total for draw in draws] if total > 0.0 else priors
    return [(1.0 - fraction) * prior + fraction * share for prior, share in zip(priors, noise, strict=True)]


def mixed_value(value: float, priors: Sequence[float], q: Sequence[float], visits: Sequence[int]) -> float:
    """v_mix: a node's own value mixed with the prior-weighted Q of its visited children (Gumbel MuZero, equation 33).

    (v + sum N * (sum P q / sum P over visited)) / (1 + sum N); `q` of an unvisited child is not looked at.

    >>> mixed_value(0.1, [0.5, 0.3, 0.2], [0.5, -0.2, 0.0], [2, 1, 0])
    0.203125
    """
    visited = [(max(p, 1e-300), x) for p, x, n in zip(priors, q, visits, strict=True) if n]
    if not visited:
        return value
    num = sum(visits)
    mean = math.fsum(p * x for p, x in visited) / math.fsum(p for p, _ in visited)
    return (value + num * mean) / (1 + num)


def completed_q(value: float, priors: Sequence[float], q: Sequence[float], visits: Sequence[int]) -> list[float]:
    """Q of each child, an unvisited one having v_mix (Gumbel MuZero, equation 10). [A]"""
    mixed = mixed_value(value, priors, q, visits)
    return [x if n else mixed for x, n in zip(q, visits, strict=True)]


def sigma(
    completed: Sequence[float], visits: Sequence[int], c_visit: float = 50.0, c_scale: float = 0.1
) -> list[float]:
    """(c_visit + max N) c_scale q, q rescaled to [0, 1] (Gumbel MuZero, equation 8; constants of mctx). [A]"""
    low, high = min(completed), max(completed)
    scale = (c_visit + max(visits)) * c_scale / max(high - low, EPSILON)
    return [scale * (q - low) for q in completed]


def improved_policy(priors: Sequence[float], sigma_q: Sequence[float]) -> list[float]:
    """pi' = softmax(logits + sigma(completed Q)) (Gumbel MuZero, equation 11). [A]"""
    return normalise([log(prior) + s for prior, s in zip(priors, sigma_q, strict=True)])


def gumbel_interior(improved: Sequence[float], visits: Sequence[int]) -> int:
    """The child with the largest pi' - N_a / (1 + sum N) (Gumbel MuZero, equation 14); of equals the first."""
    total = 1 + sum(visits)
    return best([p - n / total for p, n in zip(improved, visits, strict=True)])


def halving_schedule(considered: int, simulations: int) -> list[int]:
    """Visit count that the child of each simulation must have, by Sequential Halving in ceil(log2 m) phases.

    Each phase visits every considered child max(1, floor(n / (phases * considered))) times; then half of them, but at
    least 2, go on (Gumbel MuZero, algorithm 2; as in mctx).

    >>> halving_schedule(4, 8)
    [0, 0, 0, 0, 1, 1, 2, 2]
    """
    if considered <= 1:
        return list(range(simulations))
    phases = math.ceil(math.log2(considered))
    sequence: list[int] = []
    visits, num = 0, considered
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (phases * num))):
            sequence += [visits] * num
            visits += 1
        num = max(2, num // 2)
    return sequence[:simulations]


def gumbels(num: int, stream: random.Random) -> list[float]:
    """Draws of the standard Gumbel distribution. [num]"""
    return [-math.log(-math.log(stream.random() or 2.0**-53)) for _ in range(num)]


def log(p: float) -> float:
    """ln p, minus infinity at 0."""
    return math.log(p) if p > 0.0 else -math.inf


def best(values: Sequence[float]) -> int:
    """Index of the largest; of equals the first."""
    return max(range(len(values)), key=values.__getitem__)
