"""A toy world: guess the digit that a problem hides. Exactly known, a few bytes a sample."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from clew.core.types import Message, Outcome, Problem, Verdict
from clew.search import ScriptedPolicy

# Lets the tests of this folder import `worlds` and `cases`, whatever pytest's import mode.
sys.path.append(str(Path(__file__).parent))


@dataclass
class ToyTask:
    """Right if the text says `answer D` with the problem's digit. Counts what it is asked."""

    verified: list[str] = field(default_factory=list)
    extracted: int = 0

    def verify(self, problem, text):
        self.verified.append(problem.id)
        answer = _answer(text)
        if "crash" in text:
            return Verdict(Outcome.UNSCORED, None, answer, "crash")
        right = answer == problem.metadata["digit"]
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), answer)

    def extract(self, text):
        self.extracted += 1
        return _answer(text)


def _answer(text):
    return text.partition("answer ")[2][:1] or None


@dataclass
class CountingPolicy:
    """Counts independently of the driver, per problem."""

    policy: ScriptedPolicy
    calls: list[int] = field(default_factory=list)
    given: dict = field(default_factory=dict)
    version: str = "counting"

    def sample(self, prompts, sampling):
        self.calls.append(len(prompts))
        completions = self.policy.sample(prompts, sampling)
        for prompt, completion in zip(prompts, completions, strict=True):
            self.given.setdefault(prompt.state.problem.id, []).append(completion)
        return completions

    def text(self, state):
        return self.policy.text(state)

    def encode(self, text):
        return self.policy.encode(text)


def _problem(i):
    return Problem(f"toy:{i}", "toy", (Message("user", f"guess {i}"),), {"digit": str(i % 10)})


def _script(prompt, sampling):
    digit = prompt.seed % 7
    if digit == 6:
        return "no idea" * (prompt.seed % 3)
    return "x" * (prompt.seed % 11) + f"answer {digit}"


def _policy():
    return ScriptedPolicy(_script, logprob=lambda prompt, token: -1.0 - prompt.seed % 101 / 100)


@pytest.fixture
def toy():
    return SimpleNamespace(
        Task=ToyTask,
        Counting=CountingPolicy,
        problem=_problem,
        problems=[_problem(i) for i in range(9)],
        policy=_policy,
    )
