"""What a stage of training can do: rates with their intervals, lengths, verdict reasons and behaviours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import FinishReason, Group, Problem, Trajectory
from clew.evaluate.memo import MemoJudge
from clew.initialize.behaviours import tag
from clew.search.serve import Judge
from clew.stats.intervals import Rate, clustered
from clew.stats.majority_at_k import majority_at_k
from clew.stats.pass_at_k import pass_at_k

MOST_REASONS = 8
"""Verdict reasons that a summary names."""


class Binned(Judge, Protocol):
    """The part of a task that a summary asks."""

    def difficulty(self, problem: Problem) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRates:
    """The summary of one stage. Unscored samples are excluded from all but `num_unscored` and `reasons`."""

    pass_at_1: Rate
    pass_at_k: Mapping[int, Rate]
    """Unbiased; over the problems that have k scored samples."""
    majority_at_k: Mapping[int, Rate]
    by_difficulty: Mapping[str, Rate]
    """pass@1 of each difficulty bin."""
    mean_length: float
    """Tokens of a sample."""
    finished: Rate
    """Samples that ended by themselves rather than at the limit."""
    reasons: Mapping[str, int]
    """Most frequent reasons of verdicts, unscored ones included."""
    behaviours: Mapping[str, int]
    transitions: Mapping[str, int]
    """How often one behaviour follows another, as `first > second`."""
    num_samples: int
    num_unscored: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; every rate is `{mean, low, high, n}`."""
        return {
            "pass_at_1": self.pass_at_1.as_dict(),
            "pass_at_k": {str(k): rate.as_dict() for k, rate in self.pass_at_k.items()},
            "majority_at_k": {str(k): rate.as_dict() for k, rate in self.majority_at_k.items()},
            "by_difficulty": {name: rate.as_dict() for name, rate in self.by_difficulty.items()},
            "mean_length": self.mean_length,
            "finished": self.finished.as_dict(),
            "reasons": dict(self.reasons),
            "behaviours": dict(self.behaviours),
            "transitions": dict(self.transitions),
            "num_samples": self.num_samples,
            "num_unscored": self.num_unscored,
        }


def summarise(groups: Sequence[Group], task: Binned, ks: Sequence[int] = (1,)) -> StageRates:
    """The rates of `groups`, with pass@k and majority@k for each k of `ks`.

    A problem without a scored sample is left out. Raises `InvalidValue` if no problem has one, or none has k.
    """
    scored = [group.scored for group in groups if group.scored]
    if not scored:
        accepted = "at least one problem with a scored sample"
        raise InvalidValue("problems with a scored sample", 0, accepted, "sample first; if all are unscored, see why")
    samples = [trajectory for trajectories in scored for trajectory in trajectories]
    everything = [trajectory for group in groups for trajectory in group.trajectories]
    # Tagged once for both counts: over tens of thousands of samples it is most of the time spent here.
    chains = [[span.behaviour for span in tag(t.text) if span.behaviour] for t in samples]
    counts = Counter(behaviour for chain in chains for behaviour in chain)
    transitions = Counter(pair for chain in chains for pair in pairwise(chain))
    return StageRates(
        pass_at_1=_mean_rate(scored),
        pass_at_k={k: _pass_rate(scored, k) for k in ks},
        majority_at_k=_majority_rates(scored, task, ks),
        by_difficulty=_by_difficulty(scored, task),
        mean_length=sum(len(t.completion.tokens) for t in samples) / len(samples),
        finished=_finish_rate(scored),
        reasons=dict(Counter(t.verdict.reason for t in everything).most_common(MOST_REASONS)),
        behaviours={behaviour.value: times for behaviour, times in counts.most_common()},
        transitions={f"{a.value} > {b.value}": times for (a, b), times in transitions.most_common()},
        num_samples=len(everything),
        num_unscored=len(everything) - len(samples),
    )


Scored = Sequence[Trajectory]


def _mean_rate(scored: Sequence[Scored]) -> Rate:
    values = [sum(t.verdict.right for t in trajectories) / len(trajectories) for trajectories in scored]
    return clustered(values, draws_per_problem=_fewest(scored))


def _finish_rate(scored: Sequence[Scored]) -> Rate:
    values = [
        sum(t.completion.finish is FinishReason.STOP for t in trajectories) / len(trajectories)
        for trajectories in scored
    ]
    return clustered(values, draws_per_problem=_fewest(scored))


def _pass_rate(scored: Sequence[Scored], k: int) -> Rate:
    enough = _with_at_least(scored, k)
    right = [sum(t.verdict.right for t in trajectories) for trajectories in enough]
    values = pass_at_k([len(trajectories) for trajectories in enough], right, k)
    return clustered(values.tolist(), draws_per_problem=_fewest(enough) // k)


def _majority_rates(scored: Sequence[Scored], task: Judge, ks: Sequence[int]) -> dict[int, Rate]:
    judge = MemoJudge(task)
    answers = {id(trajectories): [judge.extract(t.text) for t in trajectories] for trajectories in scored}
    rates = {}
    for k in ks:
        enough = _with_at_least(scored, k)
        values = [
            majority_at_k(
                answers[id(trajectories)],
                [t.verdict.right for t in trajectories],
                k,
                seed=derive_seed(0, "majority", trajectories[0].state.problem.id, k),
            )
            for trajectories in enough
        ]
        rates[k] = clustered(values, draws_per_problem=_fewest(enough) // k)
    return rates


def _by_difficulty(scored: Sequence[Scored], task: Binned) -> dict[str, Rate]:
    bins: defaultdict[str, list[Scored]] = defaultdict(list)
    for trajectories in scored:
        bins[task.difficulty(trajectories[0].state.problem)].append(trajectories)
    return {name: _mean_rate(bins[name]) for name in sorted(bins)}


def _with_at_least(scored: Sequence[Scored], k: int) -> list[Scored]:
    enough = [trajectories for trajectories in scored if len(trajectories) >= k >= 1]
    if not enough:
        most = max(map(len, scored))
        accepted = f"an integer from 1 to {most}, the most scored samples that a problem has"
        raise InvalidValue("k", k, accepted, "lower k or draw more samples a problem")
    return enough


def _fewest(scored: Sequence[Scored]) -> int:
    return min(map(len, scored))
