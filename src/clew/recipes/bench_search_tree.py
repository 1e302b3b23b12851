"""What growing a search tree costs beside the model: seconds of 1,000 nodes, iterations a second as the tree grows.

Measured through the driver, with a scripted policy and a scorer that take next to no time. TreeQuest, if it is
installed, grows trees of as many nodes in the same process, with a generator that takes no time either.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from clew.core.protocols import Prompt
from clew.core.types import Completion, FinishReason, Outcome, Problem, Sampling, State, Verdict

if TYPE_CHECKING:
    from clew.search.ab_mcts import AbMcts
    from clew.search.gumbel_mcts import GumbelMcts
    from clew.search.mcts import Mcts

NODES = 1000
ITERATIONS = (200, 1000, 5000)
IN_FLIGHT = (1, 16)
WIDTH = 4
DEPTH = 12
STEP_TOKENS = 8


@dataclass(slots=True)
class ReadyPolicy:
    """One of 64 steps made beforehand, by the seed of the prompt; a response ends at the largest depth."""

    version: str = "ready"
    _steps: list[Completion] = field(default_factory=lambda: [_step(i, FinishReason.STEP) for i in range(64)])
    _ends: list[Completion] = field(default_factory=lambda: [_step(i, FinishReason.STOP) for i in range(64)])

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        last = DEPTH - 1
        return [(self._ends if len(p.state.steps) >= last else self._steps)[p.seed & 63] for p in prompts]

    def text(self, state: State) -> str:
        return ""

    def encode(self, text: str) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class ReadyScorer:
    """A number between 0 and 1 that the last token of a state decides."""

    name: str = "ready"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        return [state.tokens[-1] * 37 % 64 / 64 for state in states]

    def cost_tokens(self, states: Sequence[State]) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class NoTask:
    """The searches measured are guided by the scorer and ask the environment for nothing."""

    def verify(self, problem: Problem, text: str) -> Verdict:
        return Verdict(Outcome.WRONG, 0.0)

    def extract(self, text: str) -> str | None:
        return None


def measure_tree(repeats: int, seed: int) -> dict[str, Any]:
    """Medians of `repeats` runs of everything, in turns; `in_flight` says how many leaves are evaluated together."""
    cases = _cases()
    seconds: dict[tuple[str, ...], list[float]] = {case: [] for case in cases}
    for run in range(-1, repeats):
        for case, work in cases.items():
            taken = _seconds(work, seed + run)
            if run >= 0:  # The first round only warms up.
                seconds[case].append(taken)
        print(f"{run + 1}/{repeats}", file=sys.stderr)
    return _report(seconds)


def _cases() -> dict[tuple[str, ...], Callable[[int], object]]:
    cases: dict[tuple[str, ...], Callable[[int], object]] = {}
    for in_flight in IN_FLIGHT:
        for name, strategy in _strategies().items():
            flying = replace(strategy, leaves_in_flight=in_flight)
            cases["nodes", name, str(in_flight)] = _search(_of_nodes(flying, NODES))
            if name in ("uct", "puct"):
                for iterations in ITERATIONS:
                    cases[str(iterations), name, str(in_flight)] = _search(replace(flying, iterations=iterations))
    if importlib.util.find_spec("treequest") is not None:
        cases["nodes", "treequest", "standard"] = _treequest("StandardMCTS", samples_per_action=WIDTH)
        cases["nodes", "treequest", "ab"] = _treequest("ABMCTSA")
    return cases


def _strategies() -> dict[str, Mcts | GumbelMcts | AbMcts]:
    from clew.search.ab_mcts import AbMcts
    from clew.search.gumbel_mcts import GumbelMcts
    from clew.search.mcts import Mcts
    from clew.search.rules import Puct, Uct

    shared: dict[str, Any] = {"guide": "scorer", "evaluate": "value", "max_depth": DEPTH}
    return {
        "uct": Mcts(rule=Uct(), width=WIDTH, **shared),
        "puct": Mcts(rule=Puct(), width=WIDTH, **shared),
        "gumbel": GumbelMcts(width=WIDTH, **shared),
        "ab": AbMcts(**shared),
    }


def _of_nodes(strategy: Mcts | GumbelMcts | AbMcts, nodes: int) -> Any:
    """`strategy` with the fewest iterations, in steps of 5 %, that grow `nodes` nodes."""
    iterations = nodes // 2
    while _nodes(replace(strategy, iterations=iterations)) < nodes:
        iterations += iterations // 20
    return replace(strategy, iterations=iterations)


def _nodes(strategy: Any) -> int:
    return len(_search(strategy)(0).result.tree)


def _search(strategy: Any) -> Callable[[int], Any]:
    from clew.search import run_searches

    problem = Problem("bench", "bench", ())

    def work(seed: int) -> Any:
        (outcome,) = run_searches(strategy, [problem], ReadyPolicy(), task=NoTask(), scorer=ReadyScorer(), seed=seed)
        assert outcome.error is None, outcome.error
        return outcome

    return work


def _treequest(name: str, **settings: Any) -> Callable[[int], object]:
    """A tree of as many nodes of the peer, changed in place (its default copies the whole tree at every step)."""
    algorithm = getattr(importlib.import_module("treequest"), name)(**settings)

    def work(seed: int) -> object:
        made = itertools.count(seed & 63)

        def generate(state: Any) -> tuple[int, float]:
            number = next(made)
            return number, number * 37 % 64 / 64

        grown = algorithm.init_tree()
        for _ in range(NODES):
            grown = algorithm.step(grown, {"step": generate}, inplace=True)
        return grown

    return work


def _seconds(work: Callable[[int], object], seed: int) -> float:
    gc.collect()
    started = time.perf_counter()
    work(seed)
    return time.perf_counter() - started


def _report(seconds: dict[tuple[str, ...], list[float]]) -> dict[str, Any]:
    def told(what: str, name: str, of: str, number: Callable[[float], float]) -> dict[str, float]:
        values = [number(s) for s in seconds[what, name, of]]
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    names = list(_strategies())
    tree_s = {str(f): {n: told("nodes", n, str(f), lambda s: s) for n in names} for f in IN_FLIGHT}
    rates = {
        str(f): {
            n: {str(i): told(str(i), n, str(f), lambda s, i=i: i / s) for i in ITERATIONS}  # type: ignore[misc]
            for n in ("uct", "puct")
        }
        for f in IN_FLIGHT
    }
    peer = None
    if ("nodes", "treequest", "ab") in seconds:
        peer = {of: told("nodes", "treequest", of, lambda s: s) for of in ("standard", "ab")}
    first, main = str(IN_FLIGHT[0]), str(IN_FLIGHT[-1])
    return {
        "mcts_1000_nodes_s": {n: tree_s[first][n]["median"] for n in names},
        "iterations_per_s": {str(i): rates[first]["uct"][str(i)]["median"] for i in ITERATIONS},
        "in_flight": int(first),
        "iterations_per_s_in_flight": {str(i): rates[main]["uct"][str(i)]["median"] for i in ITERATIONS},
        "flatness": {
            f: {
                n: rates[f][n][str(ITERATIONS[-1])]["median"] / rates[f][n][str(ITERATIONS[0])]["median"]
                for n in rates[f]
            }
            for f in rates
        },
        "by_leaves_in_flight": {f: {"mcts_1000_nodes_s": tree_s[f], "iterations_per_s": rates[f]} for f in rates},
        "treequest_1000_nodes_s": peer,
        "width": WIDTH,
        "max_depth": DEPTH,
        "step_tokens": STEP_TOKENS,
    }


def _step(number: int, finish: FinishReason) -> Completion:
    tokens = tuple(range(number, number + STEP_TOKENS))
    return Completion(tokens, tuple(-0.1 * (t % 9) for t in tokens), finish, "ready", prompt_tokens_cached=10)
