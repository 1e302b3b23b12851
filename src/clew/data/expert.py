"""D_expert (roadmap section 6): the best solutions of each problem, by a rule that is named.

A rule is a function that ranks solutions, lowest first, so that anyone can write another. Only solutions that were
judged right can be experts: what nobody could judge is not among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, final

from clew.core.types import FinishReason, Group, Outcome, Problem, State, Trajectory, Verdict
from clew.data.distinct import Kept, capped, without_duplicates
from clew.data.origin import Origin
from clew.data.tree_steps import growth
from clew.search.tree import ROOT, Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """One whole response to a problem, T tokens, and how it was judged."""

    problem: Problem
    tokens: tuple[int, ...]
    """The exact ids of the response, the stop token included."""
    text: str = ""
    outcome: Outcome | None = None
    """right, wrong or unscored; None where nobody judged."""
    value: float | None = None
    """The reward; None where there is none."""
    logprobs: tuple[float, ...] | None = None
    """[T] under the policy that sampled them, 0 for tokens that were told; None if they are not known."""
    learnt: tuple[bool, ...] | None = None
    """[T] the tokens that the policy wrote; None: all of them."""
    finished: bool = True
    """False for one that was cut off."""
    policy_version: str = ""
    origin: Origin = field(default_factory=Origin)

    @property
    def right(self) -> bool:
        return self.outcome is Outcome.RIGHT

    @property
    def wrong(self) -> bool:
        return self.outcome is Outcome.WRONG


Rule = Callable[[Solution], Any]
"""A rank: the solution of the lowest is the best."""
RuleName = Literal["shortest", "rewarded", "likeliest"]


def shortest(solution: Solution) -> Any:
    """Fewest tokens: thinking that wastes the least."""
    return len(solution.tokens)


def rewarded(solution: Solution) -> Any:
    """Highest reward, of equals the shortest."""
    return (math.inf if solution.value is None else -solution.value, len(solution.tokens))


def likeliest(solution: Solution) -> Any:
    """Highest mean log-prob a token under the policy that wrote it; those without log-probs last."""
    if not solution.logprobs:
        return math.inf
    written = solution.learnt or (True,) * len(solution.logprobs)
    known = [logprob for logprob, own in zip(solution.logprobs, written, strict=True) if own]
    return -sum(known) / len(known) if known else math.inf


RULES: Mapping[RuleName, Rule] = MappingProxyType({"shortest": shortest, "rewarded": rewarded, "likeliest": likeliest})


def expert(solutions: Iterable[Solution], *, rule: Rule = shortest, cap: int | None = 1) -> Kept[Solution]:
    """The `cap` (None: all) best right solutions of each problem, no two of the same tokens; of equals the first.

    `dropped` counts the right ones that were left out. No right solution gives no row: whoever trains must look.
    """
    right = [one for one in solutions if one.right]
    different = without_duplicates(right, lambda one: (one.problem.id, one.tokens)).rows
    kept = capped(different, cap, problem=lambda one: one.problem.id, rank=rule)
    return Kept(kept.rows, len(right) - len(kept.rows))


def solutions_of_groups(groups: Iterable[Group], *, run: str = "") -> list[Solution]:
    """Every trajectory of `groups`, those that could not be judged included (their outcome says so)."""
    return [
        _of_trajectory(trajectory, run, place)
        for group in groups
        for place, trajectory in enumerate(group.trajectories)
    ]


def _of_trajectory(trajectory: Trajectory, run: str, place: int) -> Solution:
    state, last, source = trajectory.state, trajectory.completion, trajectory.provenance
    reward = trajectory.reward.value
    # Where text was told between steps only the last piece is known to be the policy's.
    before = len(state.tokens) - len(last.tokens)
    logprobs = None if last.logprobs is None else (0.0,) * before + tuple(last.logprobs)
    return Solution(
        problem=state.problem,
        tokens=state.tokens,
        text=trajectory.text,
        outcome=trajectory.verdict.outcome,
        value=None if math.isnan(reward) else reward,
        logprobs=logprobs,
        learnt=(False,) * before + (True,) * len(last.tokens) if before else None,
        finished=last.finish is FinishReason.STOP,
        policy_version=last.policy_version,
        origin=Origin(run=run, stage=source.stage, strategy=source.strategy, node=source.node, sample=place),
    )


def solutions_of_tree(
    tree: Tree,
    *,
    text: Callable[[State], str] = lambda state: "",
    verdicts: Mapping[int, Verdict] | None = None,
    origin: Origin | None = None,
) -> list[Solution]:
    """Every finished response of `tree`, rolled out or grown step by step, in the order they were made.

    `text` is the policy's; `verdicts` adds to those that the search was given.
    """
    judged = {**tree.verdicts, **(verdicts or {})}
    return [
        _of_node(tree, node, text(tree.states[node]), judged.get(node), origin or Origin()) for node in tree.finished()
    ]


def _of_node(tree: Tree, node: int, text: str, verdict: Verdict | None, origin: Origin) -> Solution:
    written = written_on(tree, node)
    last = tree.completions[node]
    return Solution(
        problem=tree.states[node].problem,
        tokens=tree.states[node].tokens,
        text=text,
        outcome=None if verdict is None else verdict.outcome,
        value=None if verdict is None else verdict.value,
        logprobs=written.logprobs,
        learnt=None if all(written.own) else written.own,
        policy_version="" if last is None else last.policy_version,
        origin=replace(origin, node=node),
    )


@final
@dataclass(frozen=True, slots=True)
class Written:
    """Who wrote the T tokens of a state, and how likely they were to the policy."""

    own: tuple[bool, ...]
    logprobs: tuple[float, ...] | None


def written_on(tree: Tree, node: int) -> Written:
    """The tokens of `node` that were sampled on the way to it, and their log-probs if all are known."""
    own: list[bool] = []
    logprobs: list[float] | None = []
    for at in tree.path(node):
        part, last = growth(tree, at), tree.completions[at]
        sampled = last is not None and at != ROOT
        own = own[: len(part.before)] + [sampled] * len(part.added)
        known = _logprobs(last.logprobs if last is not None else None, part.added, sampled=sampled)
        logprobs = None if logprobs is None or known is None else logprobs[: len(part.before)] + known
    return Written(tuple(own), None if logprobs is None else tuple(logprobs))


def _logprobs(given: Sequence[float] | None, tokens: Sequence[int], *, sampled: bool) -> list[float] | None:
    if not sampled:
        return [0.0] * len(tokens)
    return None if given is None or len(given) != len(tokens) else list(given)
