"""A world of steps that can be enumerated: a policy, a task with a hidden truth, and exact values of every state.

A response is up to three steps, each a letter and `;`. The policy prefers some letters, others in other problems and
after other letters, and may end early. The task hides a word of three letters a problem: a response is right if it
says that word, and worth the share of its letters that it gets right. Text that is told to the policy, whatever it
says, is one token `wait`, after which the response begins anew.

Nothing here uses the driver's own arithmetic: what it meters is counted independently by the `Counting...` roles.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from clew.core.cost import Cost
from clew.core.seeds import derive_seed
from clew.core.types import Completion, Message, Outcome, Problem, Sampling, State, Verdict
from clew.search import TabularPolicy

VOCABULARY = ("</s>", "a", "b", "c", ";", "wait")
END, STEP_END, WAIT = 0, 4, 5
LETTERS = (1, 2, 3)
DEPTH = 3
STEPS = Sampling(step_ends=(";",), max_tokens=8)
"""Samples one step."""
SOLUTIONS = Sampling(max_tokens=8)
"""Samples a whole response."""


def problem(i: int, *, closed: bool = True) -> Problem:
    return Problem(f"world:{i}", "world", (Message("user", "guess"),), Closed() if closed else {})


class Closed(Mapping):
    """Metadata that nobody may look at."""

    def __getitem__(self, key):
        raise AssertionError(f"a search looked at the metadata {key!r} of its problem")

    def __iter__(self):
        raise AssertionError("a search looked at the metadata of its problem")

    def __len__(self):
        raise AssertionError("a search looked at the metadata of its problem")

    def __eq__(self, other):
        return isinstance(other, Closed)

    __hash__ = None


@cache
def truth(problem_id: str) -> tuple[int, ...]:
    """The hidden word, three letter tokens."""
    return tuple(LETTERS[derive_seed(7, problem_id, "truth", i) % 3] for i in range(DEPTH))


def attempt(tokens: tuple[int, ...]) -> tuple[int, ...]:
    """Tokens of the last attempt."""
    return tokens[len(tokens) - tokens[::-1].index(WAIT) :] if WAIT in tokens else tokens


def next_probs(state: State) -> tuple[float, ...]:
    tokens = attempt(state.tokens)
    return _next_probs(state.problem.id, tuple(token for token in tokens if token in LETTERS), tokens[-1:])


@cache
def _next_probs(problem_id: str, letters: tuple[int, ...], last: tuple[int, ...]) -> tuple[float, ...]:
    if last and last[0] in LETTERS:
        return (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    if len(letters) == DEPTH:
        return (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    turn = derive_seed(3, problem_id, *letters) % 3
    a, b, c = (0.5, 0.3, 0.15)[turn:] + (0.5, 0.3, 0.15)[:turn]
    return (0.05, a, b, c, 0.0, 0.0)


TABULAR = TabularPolicy(VOCABULARY, next_probs)


def value_of_text(problem_id: str, text: str) -> float:
    """Share of the truth's letters that the last attempt has in their places; too many letters are wrong ones."""
    letters = letters_of(text)
    hits = sum(VOCABULARY[a] == b for a, b in zip(truth(problem_id), letters, strict=False))
    return hits / DEPTH


def letters_of(text: str) -> str:
    return "".join(word for word in text.rpartition("wait")[2].split() if word in "abc")


def state_value(state: State, *, best: bool = True) -> float:
    """V*, the value of the best response that can still be reached; or the expected value under the policy."""
    tokens = attempt(state.tokens)
    return (
        _value(state.problem.id, tokens, best)
        if not state.finished
        else value_of_text(state.problem.id, TABULAR.text(state))
    )


@cache
def _value(problem_id: str, tokens: tuple[int, ...], best: bool) -> float:
    if tokens[-1:] == (END,):
        return value_of_text(problem_id, " ".join(VOCABULARY[token] for token in tokens[:-1]))
    probs = _next_probs(problem_id, tuple(token for token in tokens if token in LETTERS), tokens[-1:])
    values = [(p, _value(problem_id, (*tokens, token), best)) for token, p in enumerate(probs) if p > 0.0]
    return max(value for _, value in values) if best else math.fsum(p * value for p, value in values)


@dataclass
class CountingPolicy:
    """The world's policy; counts by itself what it gave, per problem."""

    cost: dict[str, Cost] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)
    version: str = "counting"

    def sample(self, prompts, sampling) -> list[Completion]:
        self.calls.append(len(prompts))
        completions = TABULAR.sample(prompts, sampling)
        for prompt, completion in zip(prompts, completions, strict=True):
            before = self.cost.get(prompt.state.problem.id, Cost())
            self.cost[prompt.state.problem.id] = before + Cost(
                tokens_sampled=len(completion.tokens), prompt_tokens_read=len(prompt.state.tokens), model_calls=1
            )
        return completions

    def text(self, state: State) -> str:
        return TABULAR.text(state)

    def encode(self, text: str) -> tuple[int, ...]:
        return (WAIT,)


@dataclass
class CountingScorer:
    """Exact values of states; counts by itself the tokens it read, per problem."""

    best: bool = True
    tokens: Counter = field(default_factory=Counter)
    name: str = "exact"

    def score(self, states, completions) -> list[float]:
        for state in states:
            self.tokens[state.problem.id] += 1 + len(state.tokens)
        return [state_value(state, best=self.best) for state in states]

    def cost_tokens(self, states) -> int:
        return sum(1 + len(state.tokens) for state in states)


@dataclass
class CountingTask:
    """The judge of the world. Nothing else of it may be touched, and nothing else is there."""

    verified: Counter = field(default_factory=Counter)
    may_verify: bool = True

    def verify(self, problem, text) -> Verdict:
        assert self.may_verify, "a search asked the verifier, but it is guided by something else"
        self.verified[problem.id] += 1
        value = value_of_text(problem.id, text)
        return Verdict(Outcome.RIGHT if value == 1.0 else Outcome.WRONG, value, letters_of(text) or None)

    def extract(self, text) -> str | None:
        return letters_of(text) or None

    def __getattr__(self, name):
        raise AssertionError(f"a search looked at {name!r} of its task")
