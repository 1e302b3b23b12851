"""Labels of steps from samples that begin alike: Monte Carlo roll-outs that were drawn anyway.

Samples of one problem that share their first steps are roll-outs of the state after those steps. Where the steps are
few and short, a group of samples labels its own steps, without a token sampled for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from clew.reward.fit import Labelled


class Sampled(NamedTuple):
    """One judged response: its tokens, how many of them each step ends after, and how it ended, from 0 to 1."""

    tokens: tuple[int, ...]
    stops: tuple[int, ...]
    outcome: float


def shared_prefix_labels(prompt: tuple[int, ...], responses: Sequence[Sampled], *, hard: bool = True) -> list[Labelled]:
    """The distinct responses to `prompt`, a label after each step, each prefix counted once.

    The label is 1 if any response that begins with the same tokens was right, else 0 (Math-Shepherd's hard estimate,
    arXiv 2312.08935, equation 3); not `hard`, their mean outcome (equation 4). An estimate of 0 weighs 1 - 1 / (1 + n)
    of n responses, because few of them prove little; of 1, one is proof.
    """
    outcomes: dict[tuple[int, ...], list[float]] = {}
    for response in responses:
        for stop in response.stops:
            outcomes.setdefault(response.tokens[:stop], []).append(response.outcome)
    labelled = []
    for tokens, stops in dict.fromkeys((response.tokens, response.stops) for response in responses):
        found = {stop: outcomes.pop(tokens[:stop]) for stop in stops if tokens[:stop] in outcomes}
        if found:
            estimates = [_estimate(ended, hard=hard) for ended in found.values()]
            labelled.append(
                Labelled(
                    ids=prompt + tokens[: max(found)],
                    places=tuple(len(prompt) + stop - 1 for stop in found),
                    labels=tuple(label for label, _ in estimates),
                    weights=tuple(weight for _, weight in estimates),
                )
            )
    return labelled


def _estimate(outcomes: Sequence[float], *, hard: bool) -> tuple[float, float]:
    """Label and weight of a prefix whose responses ended so."""
    n = len(outcomes)
    if not hard:
        return sum(outcomes) / n, float(n)
    return (1.0, 1.0) if max(outcomes) > 0.5 else (0.0, 1.0 - 1.0 / (1.0 + n))
