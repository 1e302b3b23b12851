from __future__ import annotations

from worlds import STEPS

from cases import Case
from clew.core.types import Sampling
from clew.search.beam import Beam
from clew.search.best_first import BestFirst
from clew.search.dvts import Dvts
from clew.search.lookahead import Lookahead
from clew.search.particle_filter import ParticleFilter
from clew.search.rebase import Rebase
from clew.search.tree_of_thoughts import TreeOfThoughtsBfs, TreeOfThoughtsDfs

COMMON = {"sampling": STEPS, "max_depth": 5}
TOKENS = Sampling(max_tokens=1)


def two(n: int) -> int:
    return min(n, 2)


CASES = [
    Case(name="beam", make=lambda n: Beam(n=n, m=two(n), **COMMON), guide="scorer", plain=STEPS),
    Case(
        name="beam over tokens",
        make=lambda n: Beam(n=n, m=two(n), sampling=TOKENS, max_depth=8),
        guide="scorer",
        plain=TOKENS,
    ),
    Case(
        name="beam, expected values, their minimum, a vote",
        make=lambda n: Beam(n=n, m=two(n), aggregation="min", choose="vote", **COMMON),
        guide="scorer",
        best=False,
    ),
    Case(name="beam by the verifier", make=lambda n: Beam(n=n, m=two(n), guide="verifier", **COMMON), guide="verifier"),
    Case(
        name="dvts",
        make=lambda n: Dvts(n=n, m=two(n), **COMMON),
        guide="scorer",
        plain=STEPS,
        sizes=(1, 2, 8),
    ),
    Case(name="rebase", make=lambda n: Rebase(n=n, **COMMON), guide="scorer", plain=STEPS),
    Case(name="rebase, nearest", make=lambda n: Rebase(n=n, rounding="nearest", **COMMON), guide="scorer", plain=STEPS),
    # What looking ahead draws takes the first random stream of a state: one path is plain sampling only in distribution
    Case(name="lookahead", make=lambda n: Lookahead(n=n, m=two(n), k=1, **COMMON), guide="scorer"),
    Case(
        name="lookahead to the end by the verifier",
        make=lambda n: Lookahead(n=n, m=two(n), k=4, guide="verifier", **COMMON),
        guide="verifier",
    ),
    Case(name="best-first", make=lambda n: BestFirst(m=n, **COMMON), guide="scorer", plain=STEPS),
    Case(
        name="a-star over log-probs",
        make=lambda n: BestFirst(n=n, m=3, g="logprob", weight=2.0, expansions=12, **COMMON),
        guide="scorer",
    ),
    Case(name="tot-bfs", make=lambda n: TreeOfThoughtsBfs(b=n, m=two(n), **COMMON), guide="scorer", plain=STEPS),
    Case(
        name="tot-dfs",
        make=lambda n: TreeOfThoughtsDfs(n=n, m=3, threshold=0.4, max_nodes=10 * n, **COMMON),
        guide="scorer",
    ),
    Case(name="particle-filter", make=lambda n: ParticleFilter(n=n, **COMMON), guide="scorer", plain=STEPS),
    Case(
        name="particle-filter, multinomial, expected values, by vote",
        make=lambda n: ParticleFilter(n=n, resampling="multinomial", choose="vote", **COMMON),
        guide="scorer",
        best=False,
    ),
]
