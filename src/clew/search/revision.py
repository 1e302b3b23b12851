"""How a response is gone back to: as the next turn of a conversation about the same problem. The tree holds all turns.

A further turn is a node of its own, with an empty response to a longer prompt; what is sampled there is its child. The
longer prompt belongs to a `Problem` of the same id and facts, so that the same environment judges the response.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple, final

from clew.core.errors import InvalidValue
from clew.core.protocols import Candidate, Decode, Request, Sample, SearchResult
from clew.core.types import Message, Problem, Sampling, State
from clew.search.tree import Tree

CUT_OFF = "it was cut off before its end"
"""What is told about a response that is not finished."""


class Exchange(NamedTuple):
    """A response, as text, and what is said to the policy about it."""

    response: str
    reply: str


def conversation(problem: Problem, exchanges: Sequence[Exchange]) -> Problem:
    """`problem` after `exchanges`: the same id, task and facts, and two more messages in the prompt for each."""
    turns = [(Message("assistant", response), Message("user", reply)) for response, reply in exchanges]
    return replace(problem, prompt=(*problem.prompt, *chain.from_iterable(turns)))


def respond(
    tree: Tree, nodes: Sequence[int], problems: Sequence[Problem], sampling: Sampling
) -> Generator[Request, Any, list[int]]:
    """After each of `nodes`, a response to the further turn that is the last of its problem's prompt; their indices."""
    if not nodes:
        return []
    states = tuple(State(problem) for problem in problems)
    # Responses to all turns begin with no token, and so would share their random streams: a stream is used only once.
    rows = yield Sample(states, 1, sampling, first_index=len(tree))
    made = tree.made[-1] + 1
    turns = [tree.add(node, state, made=made) for node, state in zip(nodes, states, strict=True)]
    return [
        tree.add(turn, state.extend(last), last, made=made)
        for turn, state, (last,) in zip(turns, states, rows, strict=True)
    ]


def written(tree: Tree, nodes: Sequence[int]) -> Generator[Request, Any, list[str]]:
    """The responses of `nodes` as text."""
    return list((yield Decode(tuple(tree.states[node] for node in nodes))))


def fill(template: str, **texts: str) -> str:
    """`template` with each `{name}` replaced by the text of that name; other braces, and those in texts, stay.

    >>> fill("{reason}, so {mend} {it}", reason="{mend}", mend="try")
    '{mend}, so try {it}'
    """
    return re.sub("|".join(rf"\{{{name}\}}" for name in texts), lambda found: texts[found[0][1:-1]], template)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Critique:
    """How the policy is asked for feedback on a response of its own, and then told it."""

    ask: str = (
        "Criticise this answer strictly. Check every step, name each mistake, and say how to mend it. "
        "Do not give the answer again."
    )
    refine: str = "{feedback}\n\nRefine your answer with this feedback: think again, then give the whole answer anew."
    """`{feedback}` stands for the critique."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=256))


class Criticised(NamedTuple):
    node: int
    """Of the critique."""
    feedback: str
    exchange: Exchange
    """The response that was criticised, and what the policy is told about it."""


def criticise(tree: Tree, node: int, critique: Critique) -> Generator[Request, Any, Criticised]:
    """The policy's critique of the response of `node`, which it is shown right after the problem itself."""
    (response,) = yield from written(tree, [node])
    asked = conversation(tree.problem, [Exchange(response, critique.ask)])
    (made,) = yield from respond(tree, [node], [asked], critique.sampling)
    (feedback,) = yield from written(tree, [made])
    return Criticised(made, feedback, Exchange(response, fill(critique.refine, feedback=feedback)))


def reason(tree: Tree, node: int) -> str:
    """What the guide that rated `node` has to say about it, in a few words."""
    if not tree.states[node].finished:
        return CUT_OFF
    verdict = tree.verdicts.get(node)
    return f"it was rated {tree.score[node]:.2f}" if verdict is None else verdict.reason or verdict.outcome.value


def best(tree: Tree, nodes: Sequence[int]) -> int | None:
    """The one of `nodes` with the highest score: of equals the first, one that nobody rated after all others."""
    return max(nodes, key=lambda node: -math.inf if math.isnan(tree.score[node]) else tree.score[node], default=None)


def latest(tree: Tree, nodes: Sequence[int]) -> int | None:
    """The last of `nodes` that is finished; if none is, the last."""
    return next((node for node in reversed(nodes) if tree.states[node].finished), nodes[-1] if nodes else None)


def outcome(tree: Tree, attempts: Sequence[int], chosen: int | None) -> SearchResult:
    """What a search by revision answers: of all turns only `attempts` at the problem are candidates."""
    candidates = tuple(
        Candidate(tree.states[node], last, None if math.isnan(tree.score[node]) else tree.score[node])
        for node in attempts
        if (last := tree.completions[node]) is not None
    )
    return SearchResult(None if chosen is None else tree.states[chosen], candidates, tree)


def check_at_least(owner: object, least: int, *names: str) -> None:
    """Raises `InvalidValue` unless each of these settings of `owner` is at least `least`."""
    for name in names:
        value = getattr(owner, name)
        if value < least:
            raise InvalidValue(name, value, f"an integer of at least {least}", "raise it")
