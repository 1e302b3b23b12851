from __future__ import annotations

from worlds import SOLUTIONS, STEPS

from cases import Case
from clew.core.types import Sampling
from clew.search.adaptive_vote import AdaptiveVote
from clew.search.borda import Borda
from clew.search.speculative_rejection import SpeculativeRejection
from clew.search.weighted_best_of_n import WeightedBestOfN

CASES = [
    Case(
        name="adaptive-vote",
        make=lambda n: AdaptiveVote(n=n, confidence=0.8, sampling=SOLUTIONS),
        guide="none",
        plain=SOLUTIONS,
        improves=False,
    ),
    Case(
        name="adaptive-vote, in waves",
        make=lambda n: AdaptiveVote(n=n, at_least=3, wave=2, sampling=SOLUTIONS),
        guide="none",
        improves=False,
    ),
    Case(
        name="borda",
        make=lambda n: Borda(n=n, power=1.2, sampling=SOLUTIONS, per_request=2),
        guide="none",
        plain=SOLUTIONS,
        improves=False,
    ),
    Case(
        name="weighted-best-of-n",
        make=lambda n: WeightedBestOfN(n=n, sampling=SOLUTIONS),
        guide="scorer",
        plain=SOLUTIONS,
        sizes=(1, 4, 16),
    ),
    Case(
        name="weighted-best-of-n by the verifier, exponentiated",
        make=lambda n: WeightedBestOfN(n=n, sampling=SOLUTIONS, guide="verifier", temperature=0.1, per_request=3),
        guide="verifier",
        plain=SOLUTIONS,
    ),
    Case(
        name="speculative-rejection",
        make=lambda n: SpeculativeRejection(n=n, sampling=STEPS, max_depth=5),
        guide="scorer",
        plain=STEPS,
    ),
    Case(
        name="speculative-rejection, two tokens a burst",
        make=lambda n: SpeculativeRejection(n=n, alpha=0.3, sampling=Sampling(max_tokens=2), max_depth=5),
        guide="scorer",
        plain=Sampling(max_tokens=2),
    ),
    Case(
        name="speculative-rejection by the verifier",
        make=lambda n: SpeculativeRejection(n=n, alpha=0.3, sampling=STEPS, max_depth=5, guide="verifier"),
        guide="verifier",
        plain=STEPS,
    ),
]
