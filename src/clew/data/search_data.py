"""D_search (roadmap section 6): every state-action that search produced, with what it was worth and where it stands.

An action is a step of a tree, or of a trajectory where no tree was kept. `value` is the search's own estimate,
`returned` what the environment said of the solutions it led to; neither is ever taken for the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import final

from clew.core.types import Group, Outcome, Problem, Span, State, Trajectory
from clew.data.origin import Origin
from clew.data.tree_steps import Measure, MeasureOf, backed_up, growth, known_priors, outcomes, rollouts
from clew.search.tree import ROOT, Tree


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A state, the step taken from it, and what is known of that step."""

    problem: Problem
    prefix: tuple[int, ...]
    """The response so far: the state, with `problem`."""
    tokens: tuple[int, ...]
    """[T] the step, as it was sampled."""
    prefix_text: str = ""
    text: str = ""
    """The text that the step adds."""
    logprobs: tuple[float, ...] | None = None
    """[T] under the policy that sampled the step."""
    prior: float | None = None
    """Probability that the policy gave the step among its siblings; None where no search asked for it."""
    rollout: bool = False
    """Whether it is a whole response that was sampled only to judge the state, not a step to choose."""
    visits: int = 0
    """How often the search went through the step, without visits that could not be judged."""
    value: float | None = None
    """Mean of what it backed up there; None if it never did."""
    score: float | None = None
    """The guide's score of the state after the step."""
    returned: float | None = None
    """Mean verdict of the judged solutions that begin with the step: its Monte Carlo return."""
    best: float | None = None
    """The highest of them."""
    solutions: int = 0
    """How many there are."""
    outcome: Outcome | None = None
    """The verdict on the state after the step, if that is a solution that was judged."""
    finished: bool = False
    """Whether the step ends the response."""
    depth: int = 1
    """Steps from the prompt, this one included."""
    policy_version: str = ""
    origin: Origin = field(default_factory=Origin)


def actions_of_tree(
    tree: Tree,
    *,
    text: Callable[[State], str] = lambda state: "",
    origin: Origin | None = None,
    measure: MeasureOf = backed_up,
) -> list[Action]:
    """Every node of `tree` that was sampled, roll-outs included, in the order they were made.

    Nodes of told text are nobody's action and are left out. `value` and `visits` are those of `measure`.
    """
    worth, ends, highest, rolled_out = measure(tree), outcomes(tree), _highest(tree), rollouts(tree)
    priors = known_priors(tree, rolled_out)
    return [
        replace(
            _action(tree, node, (worth, ends), text, origin or Origin()),
            prior=priors[node],
            rollout=node in rolled_out,
            best=None if math.isinf(highest[node]) else highest[node],
        )
        for node in range(1, len(tree))
        if tree.completions[node] is not None and growth(tree, node).added
    ]


def _action(
    tree: Tree,
    node: int,
    measures: tuple[Measure, Measure],
    text: Callable[[State], str],
    origin: Origin,
) -> Action:
    part, (worth, ends) = growth(tree, node), measures
    state, last, verdict = tree.states[node], tree.completions[node], tree.verdicts.get(node)
    assert last is not None
    before = text(tree.states[tree.parent[node]]) if part.before else ""
    return Action(
        problem=state.problem,
        prefix=part.before,
        tokens=part.added,
        prefix_text=before,
        text=text(state).removeprefix(before),
        logprobs=last.logprobs,
        visits=worth.counts[node],
        value=worth.value([node]),
        score=None if math.isnan(tree.score[node]) else tree.score[node],
        returned=ends.value([node]),
        solutions=ends.counts[node],
        outcome=None if verdict is None else verdict.outcome,
        finished=state.finished,
        depth=tree.depth[node],
        policy_version=last.policy_version,
        origin=replace(origin, node=node),
    )


def _highest(tree: Tree) -> list[float]:
    """[N] highest verdict value at or below each node; minus infinity where nothing was judged."""
    found = [-math.inf] * len(tree)
    for node, verdict in tree.verdicts.items():
        if verdict.outcome is not Outcome.UNSCORED and verdict.value is not None:
            found[node] = verdict.value
    for node in range(len(tree) - 1, ROOT, -1):
        found[tree.parent[node]] = max(found[tree.parent[node]], found[node])
    return found


def actions_of_groups(
    groups: Iterable[Group], *, text: Callable[[State], str] | None = None, run: str = ""
) -> list[Action]:
    """What was sampled of every trajectory of `groups`; all actions of one have its reward as their return.

    With `text`, the policy's, an action a step. Without it one action, the whole response, because a store keeps no
    text of steps. Text that was told is nobody's action, but part of the state of those that follow.
    """
    return [
        action
        for group in groups
        for place, trajectory in enumerate(group.trajectories)
        for action in _of_trajectory(trajectory, text, run, place)
    ]


def _of_trajectory(
    trajectory: Trajectory, text: Callable[[State], str] | None, run: str, place: int
) -> Iterator[Action]:
    state, last, source = trajectory.state, trajectory.completion, trajectory.provenance
    reward = None if math.isnan(trajectory.reward.value) else trajectory.reward.value
    # What stands before the completion may have been told: only what is in it is known to be sampled.
    told = len(state.tokens) - len(last.tokens)
    spans = [Span(told, len(state.tokens))] if text is None else [span for span in state.steps if span.start >= told]
    scores = trajectory.step_rewards if len(trajectory.step_rewards) == len(spans) else ()
    for at, span in enumerate(spans):
        ended = at == len(spans) - 1
        before, after = _texts(state, span, text, trajectory.text)
        yield Action(
            problem=state.problem,
            prefix=state.tokens[: span.start],
            tokens=state.tokens[span.start : span.stop],
            prefix_text=before,
            text=after.removeprefix(before),
            logprobs=None if last.logprobs is None else last.logprobs[span.start - told : span.stop - told],
            score=scores[at] if scores else None,
            returned=reward,
            best=reward,
            solutions=int(reward is not None),
            outcome=trajectory.verdict.outcome if ended else None,
            finished=ended and state.finished,
            depth=1 if text is None else state.steps.index(span) + 1,
            policy_version=last.policy_version,
            origin=Origin(run=run, stage=source.stage, strategy=source.strategy, node=source.node, sample=place),
        )


def _texts(state: State, span: Span, text: Callable[[State], str] | None, whole: str) -> tuple[str, str]:
    """The response before and after a step."""
    if text is None:
        return "", whole
    before, after = (text(State(state.problem, state.tokens[:stop])) for stop in span)
    return before, after


def action_key(action: Action) -> tuple[object, ...]:
    """What makes two actions the same: problem, state and tokens."""
    return (action.problem.id, action.problem.prompt, action.prefix, action.tokens)
