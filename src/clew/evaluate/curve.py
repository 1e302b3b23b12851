"""Test-time scaling: accuracy of each strategy against what it consumed, on one pool of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clew.core.cost import Cost
from clew.core.protocols import Policy
from clew.core.types import Outcome, Problem, Sampling, State
from clew.evaluate.memo import MemoJudge
from clew.evaluate.sample import OnBatch, chunks, root_prompts
from clew.search import PooledPolicy, make_scorer, make_strategy, run_searches
from clew.search.serve import Judge
from clew.stats.intervals import wilson


@dataclass(frozen=True, slots=True)
class Contender:
    """A strategy and its guidance by name; None for a strategy that takes none."""

    strategy: str
    guidance: str | None = None
    reach: int = 1
    """Its largest n as a multiple of the others': more than 1 for a strategy that rarely needs all of its samples."""


CONTENDERS = (
    Contender("best-of-n", "verifier"),
    Contender("first-right", "verifier"),
    Contender("best-of-n", "mean-logprob"),
    Contender("majority-vote"),
)


def search_curve(  # noqa: PLR0913  what to run and how to draw, all but three by name
    policy: Policy,
    task: Judge,
    problems: Sequence[Problem],
    *,
    max_n: int,
    sampling: Sampling,
    seed: int = 0,
    contenders: Sequence[Contender] = CONTENDERS,
    on_batch: OnBatch | None = None,
) -> list[dict[str, Any]]:
    """One row for each contender at n = 1, 2, 4, ..., `max_n` samples a problem, times its reach.

    A row has `strategy`, `guidance`, `n`, `accuracy` (`{mean, low, high, n}`), `cost` (mean a problem, fields of
    `Cost` and `tokens`) and `num_unscored`. Every problem is sampled `max_n` times once; each n uses the first n of
    them and is metered as if it had sampled alone. Its `seconds` are those of the sampled tokens at the pool's speed,
    plus what judging took (a lower bound: rows share judgements of equal texts). The check of the chosen answer is the
    evaluation's and not in the cost.
    """
    pool = policy if isinstance(policy, PooledPolicy) else PooledPolicy(policy)
    judge = MemoJudge(task)
    tallies = {(contender, n): _Tally() for contender in contenders for n in _doublings(max_n * contender.reach)}
    done = 0
    for chunk in chunks(problems, max_n):
        before = pool.tokens_sampled
        # Drawn before any search, so that siblings share one reading of the prompt and no row's clock contains it.
        pool.sample(root_prompts(chunk, max_n, seed), sampling)
        for (contender, n), tally in tallies.items():
            strategy = make_strategy(contender.strategy, n, guidance=contender.guidance, sampling=sampling)
            scorer = make_scorer(contender.guidance)
            for outcome in run_searches(strategy, chunk, pool, task=judge, scorer=scorer, seed=seed):
                failed = outcome.error is not None
                judged = Outcome.UNSCORED if failed else _judge(judge, pool, outcome.result.chosen)
                tally.add(judged, outcome.cost)
        done += len(chunk)
        if on_batch is not None:
            on_batch(pool.tokens_sampled - before, done, len(problems))
        if pool is not policy:
            pool.forget()
    return [
        {
            "strategy": contender.strategy,
            "guidance": contender.guidance,
            "n": n,
            "accuracy": wilson(tally.right, tally.scored).as_dict(),
            "cost": tally.mean_cost(pool.seconds_per_token),
            "num_unscored": tally.problems - tally.scored,
        }
        for (contender, n), tally in tallies.items()
    ]


@dataclass(slots=True)
class _Tally:
    """Running totals of one row."""

    problems: int = 0
    scored: int = 0
    right: int = 0
    cost: Cost = field(default_factory=Cost)

    def add(self, outcome: Outcome, cost: Cost) -> None:
        self.problems += 1
        self.scored += outcome is not Outcome.UNSCORED
        self.right += outcome is Outcome.RIGHT
        self.cost += cost

    def mean_cost(self, seconds_per_token: float) -> dict[str, float]:
        total = self.cost + Cost(seconds=self.cost.tokens_sampled * seconds_per_token)
        return {name: value / self.problems for name, value in {**asdict(total), "tokens": total.tokens}.items()}


def _judge(judge: MemoJudge, policy: Policy, chosen: State | None) -> Outcome:
    """A search that chose nothing answered wrong."""
    return Outcome.WRONG if chosen is None else judge.verify(chosen.problem, policy.text(chosen)).outcome


def _doublings(max_n: int) -> list[int]:
    """1, 2, 4, ... and `max_n` itself."""
    return [*(1 << i for i in range((max_n - 1).bit_length())), max_n]
