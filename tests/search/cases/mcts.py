from __future__ import annotations

from worlds import SOLUTIONS, STEPS

from cases import Case
from clew.core.types import Sampling
from clew.search.ab_mcts import AbMcts
from clew.search.gumbel_mcts import GumbelMcts
from clew.search.mcts import Mcts
from clew.search.rules import Puct

COMMON = {"sampling": STEPS, "rollout": SOLUTIONS, "max_depth": 5}
TOKENS = {"sampling": Sampling(max_tokens=1), "rollout": SOLUTIONS, "max_depth": 9}
SOLVED = {"sampling": SOLUTIONS, "rollout": SOLUTIONS, "max_depth": 1}

CASES = [
    Case(
        name="mcts by uct and rollouts to the verifier",
        make=lambda n: Mcts(iterations=4 * n, width=3, **COMMON),
        guide="verifier",
    ),
    Case(
        name="mcts by uct, rollouts to the scorer",
        make=lambda n: Mcts(iterations=4 * n, width=3, guide="scorer", choose="visits", **COMMON),
        guide="scorer",
    ),
    Case(
        name="mcts by puct with noise, values, three leaves in flight",
        make=lambda n: Mcts(
            rule=Puct(noise=0.25),
            iterations=8 * n,
            width=3,
            evaluate="value",
            guide="scorer",
            leaves_in_flight=3,
            **COMMON,
        ),
        guide="scorer",
        best=False,
    ),
    Case(
        name="mcts by puct, rewards of steps, over tokens",
        make=lambda n: Mcts(rule=Puct(), iterations=8 * n, width=2, evaluate="reward", guide="scorer", **TOKENS),
        guide="scorer",
    ),
    Case(
        name="mcts of whole solutions",
        make=lambda n: Mcts(iterations=n, width=n, guide="scorer", **SOLVED),
        guide="scorer",
    ),
    Case(
        name="gumbel-mcts",
        make=lambda n: GumbelMcts(iterations=4 * n, considered=4, width=2, leaves_in_flight=2, **COMMON),
        guide="verifier",
    ),
    Case(
        name="gumbel-mcts by values",
        make=lambda n: GumbelMcts(iterations=4 * n, considered=4, evaluate="value", guide="scorer", **COMMON),
        guide="scorer",
        best=False,
    ),
    Case(
        name="ab-mcts",
        make=lambda n: AbMcts(iterations=2 * n, leaves_in_flight=2, **COMMON),
        guide="verifier",
    ),
    Case(
        name="ab-mcts by values",
        make=lambda n: AbMcts(iterations=4 * n, evaluate="value", guide="scorer", **COMMON),
        guide="scorer",
        best=False,
    ),
]
