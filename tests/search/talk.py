"""A policy whose every turn is written down: what it was shown, and what it said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from clew.core.types import Message, Outcome, Problem, Verdict
from clew.search import Roles, ScriptedPolicy, SearchRecord, continue_searches

QUESTION = "which digit?"
PROBLEM = Problem("digit:7", "digit", (Message("system", "Guess."), Message("user", QUESTION)), {"below": 10})


class Turn(NamedTuple):
    shown: tuple[str, ...]
    """Contents of the messages after the question, or the question's own if it is not as it was."""
    begun: str
    """What the response says already."""
    seed: int
    said: str


@dataclass
class Talk:
    """`say` is a function of the messages after the question and of the response so far."""

    say: Callable[[tuple[str, ...], str], str]
    turns: list[Turn] = field(default_factory=list)

    def policy(self) -> ScriptedPolicy:
        return ScriptedPolicy(self._script)

    def _script(self, prompt, sampling):
        state = prompt.state
        system, question, *rest = state.problem.prompt
        assert [m.role for m in rest] == ["assistant", "user"] * (len(rest) // 2)
        assert (system, state.problem.id, state.problem.metadata) == (PROBLEM.prompt[0], "digit:7", {"below": 10})
        shown = tuple(m.content for m in rest)
        if question.content != QUESTION:
            shown = (question.content, *shown)
        begun = ScriptedPolicy("").text(state)
        self.turns.append(Turn(shown, begun, prompt.seed, self.say(shown, begun)))
        return self.turns[-1].said


@dataclass
class Digit:
    """Right if the text ends with the digit 7, unscored if it crashes. `closed`: whoever asks `verify` is caught."""

    closed: bool = False
    judged: list[str] = field(default_factory=list)

    def verify(self, problem, text):
        assert not self.closed, "it looked at the environment"
        self.judged.append(text)
        if "crash" in text:
            return Verdict(Outcome.UNSCORED, None, None, "the checker crashed")
        right = text.endswith("7")
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), text[-1:], f"{text[-1:]} is not it")

    def extract(self, text):
        raise AssertionError("nobody votes here")


@dataclass
class Rates:
    """Scores by a function of the text of the response."""

    value: Callable[[str], float]
    tokens: int = 0
    rated: list[str] = field(default_factory=list)
    name: str = "rates"

    def score(self, states, completions):
        texts = [ScriptedPolicy("").text(state) for state in states]
        self.rated += texts
        return [self.value(text) for text in texts]

    def cost_tokens(self, states):
        return self.tokens * len(states)


def search(strategy, talk, *, judge=None, scorer=None, **settings):
    """The outcome of one search of `PROBLEM`, which must not fail."""
    roles = Roles(talk.policy(), judge if judge is not None else Digit(closed=True), scorer)
    (outcome,) = continue_searches(strategy, [SearchRecord(PROBLEM)], roles, **settings)
    assert outcome.error is None, outcome.error
    return outcome


def text(outcome):
    state = outcome.result.chosen
    return None if state is None else ScriptedPolicy("").text(state)


def candidates(outcome):
    return [ScriptedPolicy("").text(candidate.state) for candidate in outcome.result.candidates]
