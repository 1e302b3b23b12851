"""The tree that step labels are measured in: a node a step of the solutions of one problem, roll-outs counted at it.

Solutions that begin with the same steps share their nodes. A node that was measured has as `visits` the roll-outs from
it that could be judged, as value the share of them that was right, and in its cost all that were asked for; a finished
solution has its verdict. Nothing is backed up: the value of a prefix is that of its own roll-outs.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple, final

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.protocols import Candidate, Decode, Request, Sample, SearchResult, Verify
from clew.core.types import Completion, FinishReason, Outcome, Problem, Sampling, Span, State, Verdict
from clew.search.tree import ROOT, Tree

GRAIN = 32
"""Roll-outs from prefixes of different lengths have different lengths left. Those within so many tokens are sampled
together, and what one wrote beyond its own limit is cut off."""


class Rollout(NamedTuple):
    """A response to its end, or cut off at the most tokens there may be, and its verdict."""

    state: State
    verdict: Verdict


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Solutions:
    """Which solutions are labelled, and where their steps end."""

    given: Mapping[str, tuple[State, ...]] = field(default_factory=dict)
    """By problem id; where a problem has none, `n` are sampled."""
    n: int = 4
    sampling: Sampling = field(default_factory=Sampling)
    """How whole solutions are written; `max_tokens` is the most of a solution, a roll-out's prefix included."""
    step_ends: tuple[str, ...] = ("\n",)
    """A step ends with a token whose text contains one of these, or with the solution."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InvalidValue("solutions a problem", self.n, "an integer of at least 1", "raise it")
        if self.sampling.step_ends:
            accepted = "a sampling of whole solutions, without step_ends"
            raise InvalidValue("sampling step_ends", self.sampling.step_ends, accepted, "set Solutions.step_ends")


@final
@dataclass(slots=True)
class LabelTree:
    """The tree of one problem while it is measured, and the roll-outs that were made from its nodes."""

    tree: Tree
    solutions: Solutions
    rollouts: dict[int, list[Rollout]] = field(default_factory=dict)
    """Those that could be judged, of each node that was measured."""
    candidates: list[Candidate] = field(default_factory=list)
    """Every response that was sampled."""
    right: State | None = None
    """The first response that is right."""
    _nodes: dict[tuple[int, ...], int] = field(default_factory=dict)
    _pieces: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem, solutions: Solutions) -> LabelTree:
        return cls(Tree(problem), solutions, _nodes={(): ROOT})

    def begin(self) -> Generator[Request, Any, list[Rollout]]:
        """The solutions that are to be labelled, judged: those given, or samples, which are the root's roll-outs."""
        given = self.solutions.given.get(self.tree.problem.id, ())
        if given:
            verdicts = yield Verify(tuple(given))
            return [Rollout(*pair) for pair in zip(given, verdicts, strict=True)]
        return (yield from self._roll_out([ROOT], self.solutions.n, self.solutions.sampling.max_tokens))[0]

    def grow(self, rollouts: Sequence[Rollout]) -> Generator[Request, Any, list[list[int]]]:
        """Nodes of each of `rollouts`, one a step, the root left out."""
        known = self._pieces
        new = sorted({token for one in rollouts for token in one.state.tokens} - known.keys())
        if new:
            texts = yield Decode(tuple(State(self.tree.problem, (token,)) for token in new))
            known.update(zip(new, texts, strict=True))
        return [self._path(one) for one in rollouts]

    def measure(self, nodes: Sequence[int], k: int) -> Generator[Request, Any, None]:
        """`k` roll-outs from each of `nodes` that can be continued and has none yet."""
        todo = [node for node in dict.fromkeys(nodes) if node not in self.rollouts and not self.ended(node)]
        room = {node: -(-self._left(node) // GRAIN) * GRAIN for node in todo}
        for size in sorted(set(room.values()), reverse=True):
            yield from self._roll_out([node for node in todo if room[node] == size], k, size)

    def ended(self, node: int) -> bool:
        """Whether nothing may follow `node`."""
        return self.tree.states[node].finished or self._left(node) < 1

    def result(self) -> SearchResult:
        """The tree; the answer is the first response that is right."""
        return SearchResult(self.right, tuple(self.candidates), self.tree)

    def _left(self, node: int) -> int:
        return self.solutions.sampling.max_tokens - len(self.tree.states[node].tokens)

    def _roll_out(self, nodes: Sequence[int], k: int, size: int) -> Generator[Request, Any, list[list[Rollout]]]:
        states = tuple(self.tree.states[node] for node in nodes)
        sampling = replace(self.solutions.sampling, max_tokens=min(size, self.solutions.sampling.max_tokens))
        rows = yield Sample(states, k, sampling)
        for node, row in zip(nodes, rows, strict=True):
            self.tree.costs[node] += _cost_of(row)
        ends = [[self._cut(state, completion) for completion in row] for state, row in zip(states, rows, strict=True)]
        verdicts = iter((yield Verify(tuple(end for row in ends for end in row))))
        made = [[Rollout(end, next(verdicts)) for end in row] for row in ends]
        for node, row in zip(nodes, made, strict=True):
            self._count(node, row)
        return made

    def _cut(self, state: State, completion: Completion) -> State:
        whole, most = state.extend(completion), self.solutions.sampling.max_tokens
        if len(whole.tokens) > most:
            start = len(state.tokens)
            whole = State(state.problem, whole.tokens[:most], (*state.steps, Span(start, most)), state)
        self.candidates.append(Candidate(whole, completion))
        return whole

    def _count(self, node: int, row: Sequence[Rollout]) -> None:
        scored = [one for one in row if one.verdict.outcome is not Outcome.UNSCORED]
        self.rollouts.setdefault(node, []).extend(scored)
        self.tree.visits[node] += len(scored)
        self.tree.value_sum[node] += sum(one.verdict.right for one in scored)
        if self.right is None:
            self.right = next((one.state for one in scored if one.verdict.right), None)

    def _path(self, rollout: Rollout) -> list[int]:
        tree, nodes, at = self.tree, [], ROOT
        spans = split(rollout.state.tokens, self._pieces, self.solutions.step_ends)
        for span in spans:
            tokens = rollout.state.tokens[: span.stop]
            # A solution that was cut off is another one than a longer one that only passes there.
            last = span is spans[-1]
            child = self._nodes.get(tokens)
            if child is None:
                finish = FinishReason.STEP
                if last:
                    finish = FinishReason.STOP if rollout.state.finished else FinishReason.LENGTH
                step = Completion(rollout.state.tokens[span.start : span.stop], None, finish)
                made = tree.made[-1] + (span is spans[0])
                child = tree.add(at, tree.states[at].extend(step), step, cost=Cost(), made=made)
                self._nodes[tokens] = child
            nodes.append(child)
            at = child
        if nodes and at not in tree.verdicts and self.ended(at):
            tree.verdicts[at] = rollout.verdict
            tree.answers[at] = rollout.verdict.answer
            if rollout.verdict.outcome is not Outcome.UNSCORED:
                tree.visits[at] = 1
                tree.value_sum[at] = float(rollout.verdict.right)
        return nodes


def split(tokens: Sequence[int], pieces: Mapping[int, str], ends: Sequence[str]) -> list[Span]:
    """Steps of a response: each ends with a token whose text, in `pieces`, contains one of `ends`; the last anyhow.

    Nothing but a stop token, or blanks, is no step of its own.

    >>> split([1, 2, 1, 1], {1: "a", 2: "b;"}, [";"])
    [Span(start=0, stop=2), Span(start=2, stop=4)]
    """
    stops = [at + 1 for at, token in enumerate(tokens) if any(end in pieces[token] for end in ends)]
    rest = tokens[stops[-1] if stops else 0 :]
    if rest and stops and not any(pieces[token].strip() for token in rest):
        stops[-1] = len(tokens)
    elif rest:
        stops.append(len(tokens))
    return [Span(start, stop) for start, stop in pairwise([0, *stops])]


def _cost_of(completions: Sequence[Completion]) -> Cost:
    """With a verifier call each: what a node's calls exceed its visits by could not be judged."""
    from clew.search.serve import sampling_cost

    return sampling_cost(completions, verifier_calls=len(completions))
