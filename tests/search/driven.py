"""Strategies and scorers that tests of the driver run, and how."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from clew.core.cost import Cost
from clew.core.protocols import Extract, Request, Sample, Score, SearchResult, Verify
from clew.core.types import Sampling, State
from clew.search import (
    BestOfN,
    MajorityVote,
    MeanLogProb,
    run_searches,
)

SAMPLING = Sampling(max_tokens=32)
STRATEGIES = [
    BestOfN(n=6, sampling=SAMPLING),
    BestOfN(n=6, sampling=SAMPLING, guide="scorer"),
    BestOfN(n=7, sampling=SAMPLING, per_request=2),
    BestOfN(n=7, sampling=SAMPLING, guide="scorer", per_request=3),
    MajorityVote(n=6, sampling=SAMPLING),
    MajorityVote(n=7, sampling=SAMPLING, per_request=1),
]
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)


@dataclass(frozen=True)
class PaidScorer:
    """Prefers short solutions and claims to read every token for it."""

    name: str = "paid"

    def score(self, states, completions):
        return [-float(len(state.tokens)) for state in states]

    def cost_tokens(self, states):
        return sum(len(state.tokens) for state in states)


@dataclass(frozen=True)
class StepByStep:
    """Two steps of a few tokens, then scores, verdicts and answers: every kind of request, several depths."""

    name: str = "step-by-step"

    def run(self, problem) -> Generator[Request, Any, SearchResult]:
        states = (State(problem),)
        for width in (3, 2):
            rows = yield Sample(states, width, Sampling(max_tokens=4 + width))
            pairs = [(s.extend(c), c) for s, row in zip(states, rows, strict=True) for c in row]
            scores = yield Score(tuple(s for s, _ in pairs), tuple(c for _, c in pairs))
            states = tuple(pairs[i][0] for i in sorted(range(len(pairs)), key=lambda i: -scores[i])[:2])
        verdicts = yield Verify(states)
        yield Extract(states)
        return SearchResult(next((s for s, v in zip(states, verdicts, strict=True) if v.right), states[0]), ())


def timeless(cost: Cost) -> Cost:
    return replace(cost, seconds=0.0)


def run(strategy, toy, *, problems=None, policy=None, task=None, scorer=None, **settings):
    return run_searches(
        strategy,
        problems if problems is not None else toy.problems,
        policy or toy.policy(),
        task=task or toy.Task(),
        scorer=scorer or MeanLogProb(),
        **settings,
    )
