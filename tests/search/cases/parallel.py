from __future__ import annotations

from worlds import SOLUTIONS

from cases import Case
from clew.search import BestOfN, FirstRight, MajorityVote

CASES = [
    Case(
        name="best-of-n by the verifier",
        make=lambda n: BestOfN(n=n, sampling=SOLUTIONS),
        guide="verifier",
        plain=SOLUTIONS,
    ),
    Case(
        name="best-of-n by a scorer, three at a time",
        make=lambda n: BestOfN(n=n, sampling=SOLUTIONS, guide="scorer", per_request=3),
        guide="scorer",
        plain=SOLUTIONS,
    ),
    Case(
        name="first-right",
        make=lambda n: FirstRight(n=n, sampling=SOLUTIONS),
        guide="verifier",
        plain=SOLUTIONS,
    ),
    Case(
        name="first-right by a scorer that must be sure",
        make=lambda n: FirstRight(n=n, sampling=SOLUTIONS, guide="scorer", accept=0.99),
        guide="scorer",
        plain=SOLUTIONS,
    ),
    Case(
        name="majority-vote",
        make=lambda n: MajorityVote(n=n, sampling=SOLUTIONS),
        guide="none",
        improves=False,
    ),
    Case(
        name="majority-vote, one at a time",
        make=lambda n: MajorityVote(n=n, sampling=SOLUTIONS, per_request=1),
        guide="none",
        improves=False,
    ),
]
