from __future__ import annotations

from worlds import SOLUTIONS, STEPS

from cases import Case
from clew.core.types import Sampling
from clew.search.adaptive_vote import AdaptiveVote
from clew.search.borda import Borda
from clew.search.speculative_rejection import SpeculativeRejection
from clew.search.weighted_best_of_n import WeightedBestOfN

BURST = Sampling(max_tokens=2)

CASES = [
    Case(
        name="adaptive-vote",
        make=lambda n: AdaptiveVote(n=2 * n, wave=2, confidence=0.8, sampling=SOLUTIONS),
        guide="none",
        improves=False,
    ),
    Case(
        name="borda",
        make=lambda n: Borda(n=n, sampling=SOLUTIONS, per_request=3),
        guide="none",
        improves=False,
    ),
    Case(
        name="weighted-best-of-n",
        make=lambda n: WeightedBestOfN(n=n, sampling=SOLUTIONS, per_request=2),
        guide="scorer",
        plain=SOLUTIONS,
    ),
    Case(
        name="weighted-best-of-n by the verifier, sharpened",
        make=lambda n: WeightedBestOfN(n=n, sampling=SOLUTIONS, guide="verifier", temperature=0.1),
        guide="verifier",
        plain=SOLUTIONS,
    ),
    Case(
        name="speculative-rejection",
        make=lambda n: SpeculativeRejection(n=n, sampling=BURST, max_depth=6),
        guide="scorer",
        plain=BURST,
    ),
    Case(
        name="speculative-rejection by the verifier",
        make=lambda n: SpeculativeRejection(n=n, alpha=0.3, sampling=BURST, guide="verifier", max_depth=6),
        guide="verifier",
        plain=BURST,
    ),
    Case(
        name="adaptive-vote, one at a time",
        make=lambda n: AdaptiveVote(n=n, at_least=3, confidence=0.8, sampling=SOLUTIONS),
        guide="none",
        plain=SOLUTIONS,
        improves=False,
    ),
    Case(
        name="borda, all at once",
        make=lambda n: Borda(n=n, power=1.2, sampling=SOLUTIONS),
        guide="none",
        plain=SOLUTIONS,
        improves=False,
    ),
    Case(
        name="speculative-rejection over steps",
        make=lambda n: SpeculativeRejection(n=n, sampling=STEPS, max_depth=5),
        guide="scorer",
        plain=STEPS,
    ),
]
