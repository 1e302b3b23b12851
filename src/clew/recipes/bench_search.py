"""What search costs and saves: the tree beside the model, tokens computed twice, batching, and an honest meter."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.core.cost import Cost
from clew.core.protocols import Prompt, Scorer, Search
from clew.core.types import Completion, Problem, Sampling, State, Verdict
from clew.recipes.bench_rollout import spread

if TYPE_CHECKING:
    from clew.models.policy import LocalPolicy
    from clew.search.serve import Judge
    from clew.tasks import AnyTask

PROBLEMS = 64
"""Searched together, and one after another."""
COUNTED = 4
"""Problems that every strategy searches while its calls are counted."""
CACHE_BYTES = 1 << 30
CONVERSATION = 8192
"""Context in which every strategy finds room: English feedback takes clew's small tokenizer a token a letter."""
STEP = Sampling(max_tokens=24, step_ends=("=",))
SOLUTION = Sampling(max_tokens=224)


def measure_search(*, repeats: int, seed: int, checkpoint: Path | None) -> dict[str, Any]:
    """The figures of `clew bench search`; `checkpoint` None is a model of the same size with random weights."""
    from clew.recipes.bench_search_tree import measure_tree
    from clew.tasks import make_task

    task = make_task("countdown")
    problems = task.problems("validation", PROBLEMS, seed)
    policy = policy_of(checkpoint, seed)
    return {
        **measure_tree(repeats, seed),
        **recomputed(policy, task, problems[:16], seed),
        **batching(policy, task, problems, repeats=repeats, seed=seed),
        "metered_equals_counted": counted(random_policy(seed, CONVERSATION), task, problems[:COUNTED], seed),
        "checkpoint": checkpoint is not None,
        "problems": PROBLEMS,
    }


def policy_of(checkpoint: Path | None, seed: int) -> LocalPolicy:
    from clew.recipes.stage import load_policy

    return random_policy(seed) if checkpoint is None else load_policy(checkpoint)


def random_policy(seed: int, context: int | None = None) -> LocalPolicy:
    """Random weights; `context` None is that of the speedrun's model."""
    from clew.models.architecture import SmallQwen3, build_model
    from clew.models.policy import LocalPolicy
    from clew.models.tokenizer import build_tokenizer

    size = SmallQwen3() if context is None else replace(SmallQwen3(), context=context)
    tokenizer = build_tokenizer()
    return LocalPolicy(build_model(size, tokenizer, seed), tokenizer)


def tree_search(iterations: int = 32, in_flight: int = 1) -> Search:
    """MCTS over steps whose leaves are rated by the policy's own log-probs: needs no weights but the policy's."""
    from clew.search.mcts import Mcts

    return Mcts(
        iterations=iterations,
        width=4,
        max_depth=12,
        evaluate="value",
        guide="scorer",
        leaves_in_flight=in_flight,
        sampling=STEP,
    )


def recomputed(policy: LocalPolicy, task: AnyTask, problems: Sequence[Problem], seed: int) -> dict[str, Any]:
    """Tokens that went through the model over distinct tokens of the trees, with the prefix cache and without.

    The last token of a completion goes through it when it is continued. Distinct are the tokens of all prompts and of
    what was sampled; for `recompute_ratio_merged` two samples of the same words count once, although each was drawn.
    """
    from clew.search import MeanLogProb, run_searches

    told: dict[str, Any] = {}
    for suffix, size in (("", CACHE_BYTES), ("_without_cache", 0)):
        policy.remember(size)
        before = policy.engine.computed
        outcomes = run_searches(tree_search(), problems, policy, task=task, scorer=MeanLogProb(), seed=seed)
        computed = policy.engine.computed - before
        cost = sum((outcome.cost for outcome in outcomes), Cost())
        prompts = {path for outcome in outcomes for path in _prefixes(policy.prompt_ids(outcome.problem, STEP.mode))}
        merged = {
            path
            for outcome in outcomes
            for state in outcome.result.tree.states
            for path in _prefixes(policy.prompt_ids(outcome.problem, STEP.mode) + state.tokens)
        }
        told[f"recompute_ratio{suffix}"] = computed / (len(prompts) + cost.tokens_sampled)
        told[f"recompute_ratio_merged{suffix}"] = computed / len(merged)
        if size:
            told["tokens_read"], told["tokens_cached"] = cost.prompt_tokens_read, cost.prompt_tokens_cached
            told["tokens_reread"] = cost.prompt_tokens_reread
    policy.remember(0)
    return told


def _prefixes(path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return (path[:end] for end in range(1, len(path) + 1))


def batching(
    policy: LocalPolicy, task: AnyTask, problems: Sequence[Problem], *, repeats: int, seed: int
) -> dict[str, Any]:
    """How much faster many problems are searched together than one after another, by strategy (`batching_speedup`)."""
    from clew.search import MeanLogProb, run_searches
    from clew.search.beam import Beam

    strategies: dict[str, Search] = {
        "mcts": tree_search(iterations=16),
        "beam": Beam(n=4, m=4, max_depth=12, sampling=STEP),
    }
    told: dict[str, float] = {}
    spreads: dict[str, dict[str, float]] = {}
    for name, strategy in strategies.items():

        def search(some: Sequence[Problem], strategy: Search = strategy) -> float:
            policy.remember(CACHE_BYTES)
            started = time.perf_counter()
            run_searches(strategy, some, policy, task=task, scorer=MeanLogProb(), seed=seed)
            return time.perf_counter() - started

        search(problems[:2])
        ratios = []
        for _ in range(repeats):
            together = search(problems)
            ratios.append(sum(search([problem]) for problem in problems) / together)
        told[name], spreads[name] = statistics.median(ratios), spread(ratios)
    policy.remember(0)
    return {"batching_speedup": min(told.values()), "batching_speedups": {**told, "spread": spreads}}


@dataclass(slots=True)
class Counter:
    """Stands before the policy, the guide and the environment, and counts what is asked of them without the driver."""

    policy: LocalPolicy
    task: AnyTask
    guide: Scorer
    cost: Cost = field(default_factory=Cost)
    name: str = "counter"

    @property
    def version(self) -> str:
        return self.policy.version

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        completions = self.policy.sample(prompts, sampling)
        for prompt, completion in zip(prompts, completions, strict=True):
            context = len(self.policy.prompt_ids(prompt.state.problem, sampling.mode)) + len(prompt.state.tokens)
            assert completion.prompt_tokens_read + completion.prompt_tokens_cached == context
            self.cost += Cost(
                tokens_sampled=len(completion.tokens),
                prompt_tokens_read=completion.prompt_tokens_read,
                prompt_tokens_cached=completion.prompt_tokens_cached,
                model_calls=1,
            )
        return completions

    def text(self, state: State) -> str:
        return self.policy.text(state)

    def encode(self, text: str) -> tuple[int, ...]:
        return self.policy.encode(text)

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        self.cost += Cost(scorer_tokens=sum(len(state.tokens) for state in states))
        return self.guide.score(states, completions)

    def cost_tokens(self, states: Sequence[State]) -> int:
        return sum(len(state.tokens) for state in states)

    def verify(self, problem: Problem, text: str) -> Verdict:
        self.cost += Cost(verifier_calls=1)
        return self.task.verify(problem, text)

    def extract(self, text: str) -> str | None:
        return self.task.extract(text)


class LengthGuide:
    """Prefers short states; reads no weights, so that only the counting is tested."""

    name = "length"

    def score(self, states: Sequence[State], completions: Sequence[Completion | None]) -> list[float]:
        return [1.0 / (1.0 + len(state.tokens)) for state in states]

    def cost_tokens(self, states: Sequence[State]) -> int:
        return 0


def counted(policy: LocalPolicy, task: AnyTask, problems: Sequence[Problem], seed: int) -> dict[str, Any]:
    """Whether the driver's meter equals an independent count of every call, strategy by strategy."""
    unequal: dict[str, str] = {}
    for name, strategy in every_strategy(seed).items():
        counter = Counter(policy, task, LengthGuide())
        metered = _metered(strategy, problems, counter, counter, seed)
        if isinstance(metered, str) or metered != counter.cost:
            unequal[name] = metered if isinstance(metered, str) else f"metered {metered}, counted {counter.cost}"
    return {
        "strategies": len(every_strategy(seed)),
        "equal": len(every_strategy(seed)) - len(unequal),
        "unequal": unequal,
    }


def _metered(strategy: Search, problems: Sequence[Problem], counter: Counter, judge: Judge, seed: int) -> Cost | str:
    """The sum of the metered costs, without seconds; the message of a search that failed."""
    from clew.search import run_searches

    outcomes = run_searches(strategy, problems, counter, task=judge, scorer=counter, seed=seed)
    failed = next((outcome.error for outcome in outcomes if outcome.error is not None), None)
    if failed is not None:
        return failed
    return replace(sum((outcome.cost for outcome in outcomes), Cost()), seconds=0.0, prompt_tokens_reread=0)


def every_strategy(seed: int) -> dict[str, Search]:
    """Every strategy that has a name, with its default settings and short texts."""
    from clew.search.specs import STRATEGIES, Given, parse_strategy

    given = Given(step=STEP, solution=replace(SOLUTION, max_tokens=32), seed=seed)
    short: dict[str, str] = {
        "mctsr": "mctsr:rollouts=1",
        "reflexion": "reflexion:memory=1",
    }
    return {name: parse_strategy(short.get(name, name), given).strategy for name in STRATEGIES}
