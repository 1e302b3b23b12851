"""The words of clew: what a problem, a state, a completion, a verdict and a trajectory are.

Everything here is frozen, slotted and free of torch and numpy, so that any room of the house can
speak it. Behaviour (sampling, judging, searching) lives behind the protocols of `protocols.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from clew.core.cost import Cost


class Message(NamedTuple):
    """One turn of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What is asked, without the reference answer: that stays with the verifier, out of search's sight."""

    id: str
    """Canonical name, e.g. `countdown:3-5-7-11=24`; equal problems have equal ids."""
    task: str
    prompt: tuple[Message, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Public facts of the question, JSON-able (Countdown: `numbers` and `target`)."""


class Span(NamedTuple):
    """Tokens `start` to `stop` (exclusive) of a state: one step."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class State:
    """A problem and everything written so far, as exact token ids. Text is a view of the tokens."""

    problem: Problem
    tokens: tuple[int, ...] = ()
    """Response tokens only; the policy renders the prompt of `problem` in front of them."""
    steps: tuple[Span, ...] = ()
    parent: State | None = field(default=None, repr=False, compare=False)
    finished: bool = False

    def extend(self, completion: Completion) -> State:
        """The state after `completion`, recorded as one more step."""
        tokens = self.tokens + completion.tokens
        steps = (*self.steps, Span(len(self.tokens), len(tokens)))
        return State(self.problem, tokens, steps, self, completion.finish is FinishReason.STOP)

    def told(self, tokens: tuple[int, ...]) -> State:
        """The state after `tokens` that nobody sampled (a hint, a feedback, "Wait"), recorded as one more step."""
        start = len(self.tokens)
        end = start + len(tokens)
        return State(self.problem, self.tokens + tokens, (*self.steps, Span(start, end)), parent=self)

    def reopened(self) -> State:
        """A finished state without the stop token that ended it, so that it can be continued; others as they are."""
        if not self.finished:
            return self
        *earlier, last = self.steps
        steps = (*earlier, Span(last.start, last.stop - 1))
        return State(self.problem, self.tokens[:-1], steps, parent=self.parent)


class FinishReason(StrEnum):
    STOP = "stop"
    """The policy ended its response."""
    STEP = "step"
    """A step ended, the response goes on: one of `Sampling.step_ends` was met."""
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn from logits. Temperature 0 is greedy; top_k 0 and top_p 1 keep everything."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 192
    mode: str = "think"
    """Which generation prompt the policy is given: `think` or `direct` (no retries)."""
    step_ends: tuple[str, ...] = ()
    """A completion also ends with the first token whose text contains one of these. With none of them a step is all of
    the response, with `max_tokens=1` it is a token: the granularity of a search is set here and nowhere else."""
    statistics: bool = False
    """Whether completions are to carry the entropy and the self-certainty of each token's distribution."""

    def __post_init__(self) -> None:
        from clew.core.errors import InvalidValue

        if not self.temperature >= 0.0:
            raise InvalidValue("temperature", self.temperature, "a number of at least 0", "use 0 for greedy decoding")
        if self.top_k < 0:
            raise InvalidValue("top_k", self.top_k, "an integer of at least 0", "use 0 to keep every token")
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidValue("top_p", self.top_p, "a number above 0 and up to 1", "use 1 to keep every token")
        if self.max_tokens < 1:
            raise InvalidValue("max_tokens", self.max_tokens, "an integer of at least 1", "raise it")


@dataclass(frozen=True, slots=True)
class Completion:
    """Tokens a policy sampled after a state, the stop token included."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    """Per token, under the distribution sampled from (temperature, top-k and top-p applied); None if there are none."""
    finish: FinishReason
    policy_version: str = ""
    prompt_tokens_read: int = 0
    """Tokens in front of the completion (prompt and earlier response) that were read for it."""
    prompt_tokens_cached: int = 0
    """Tokens in front of it whose keys and values were already in memory, e.g. read for a sibling."""
    prompt_tokens_reread: int = 0
    """Of the tokens read, those that had been in memory before and were evicted."""
    entropies: tuple[float, ...] | None = None
    """Per token, of the model's own distribution (temperature 1, before top-k and top-p, which would leave it without
    a certainty), in nats; None unless `Sampling.statistics` asked for them."""
    certainties: tuple[float, ...] | None = None
    """Per token, self-certainty: KL divergence of that distribution from the uniform one, KL(uniform || p), in nats
    (arXiv 2502.18581); None unless `Sampling.statistics` asked for them."""
    pieces: tuple[tuple[str, int], ...] = ()
    """Versions and numbers of tokens, where several versions wrote on; the last of them is `policy_version`."""


class Outcome(StrEnum):
    RIGHT = "right"
    WRONG = "wrong"
    UNSCORED = "unscored"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement of one answer. Unscored (crash, timeout) is not wrong: it is excluded and counted."""

    outcome: Outcome
    value: float | None
    """1.0 right, 0.0 wrong, between them for partial credit, None if unscored."""
    answer: str | None = None
    """The extracted answer, in canonical form: what votes are counted over."""
    reason: str = ""

    @property
    def right(self) -> bool:
        return self.outcome is Outcome.RIGHT


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward and the named parts it is the sum of."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a trajectory came from."""

    strategy: str = "sample"
    node: int | None = None
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One attempt at a problem from its prompt to its end, judged and priced."""

    state: State
    text: str
    verdict: Verdict
    reward: Reward
    cost: Cost
    seed: int
    completion: Completion
    step_rewards: tuple[float, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, slots=True)
class Group:
    """One problem and its trajectories: the unit of credit, of voting and of pass@k."""

    problem: Problem
    trajectories: tuple[Trajectory, ...]

    @property
    def scored(self) -> tuple[Trajectory, ...]:
        return tuple(t for t in self.trajectories if t.verdict.outcome is not Outcome.UNSCORED)
