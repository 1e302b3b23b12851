"""A world of one-word steps that can be enumerated: what it is worth to end anywhere is drawn once and for all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache

from clew.core.protocols import Prompt
from clew.core.seeds import derive_seed
from clew.core.types import Message, Outcome, Problem, Sampling, State, Verdict
from clew.search.driver import run_searches
from clew.search.policies import TabularPolicy
from clew.search.serve import sample_seed

WORDS = ("</s>", "a;", "b;", "c;")
DEPTH = 4
STEPS = Sampling(max_tokens=8, step_ends=(";",))
WHOLE = Sampling(max_tokens=64)
PROBLEMS = [Problem(f"world:{i}", "world", (Message("user", str(i)),)) for i in range(6)]


def next_probs(state):
    if len(state.tokens) == DEPTH:
        return (1.0, 0.0, 0.0, 0.0)
    weights = [1 + derive_seed(3, state.problem.id, word, *state.tokens) % 4 for word in range(4)]
    return tuple(weight / sum(weights) for weight in weights)


POLICY = TabularPolicy(WORDS, next_probs)


def reward(state):
    """In [0, 1] with the full width of a float: two ends are hardly ever worth the same."""
    return derive_seed(5, state.problem.id, *state.tokens) / 2**63


def value(state):
    """V*: the reward of the best end that can be reached."""
    if state.finished:
        return reward(state)
    return _value(state.problem.id, state.tokens)


@cache
def _value(problem_id, tokens):
    state = State(next(problem for problem in PROBLEMS if problem.id == problem_id), tokens)
    return max(reward(state.extend(completion)) for completion, _ in POLICY.enumerate(state, WHOLE))


def noisy(state):
    """A guide that is often wrong, and that rates many states alike."""
    return derive_seed(7, state.problem.id, *state.tokens) % 5 / 4


@dataclass
class Guide:
    rate: object
    asked: list = field(default_factory=list)
    name: str = "guide"

    def score(self, states, completions):
        self.asked.append([(state.problem.id, state.tokens) for state in states])
        return [self.rate(state) for state in states]

    def cost_tokens(self, states):
        return 0


class Task:
    def verify(self, problem, text):
        words = [WORDS.index(word) for word in text.split()]
        state = State(problem, (*words, 0), finished=True)
        right = reward(state) > 0.9
        return Verdict(Outcome.RIGHT if right else Outcome.WRONG, float(right), self.extract(text))

    def extract(self, text):
        return text.split()[-1] if text else None


def search(strategy, rate=value, *, problems=PROBLEMS, scorer=None, **settings):
    scorer = scorer or Guide(rate)
    outcomes = run_searches(strategy, problems, POLICY, task=Task(), scorer=scorer, **settings)
    assert [outcome.error for outcome in outcomes] == [None] * len(problems)
    return outcomes


def plain(problem, max_depth, seed=0):
    """Step after step, without any search."""
    state = State(problem)
    while not state.finished and len(state.steps) < max_depth:
        (completion,) = POLICY.sample([Prompt(state, sample_seed(seed, state, 0))], STEPS)
        state = state.extend(completion)
    return state


@dataclass
class Draw:
    """Draws as a search does: the next sample of a state continues where its last one ended."""

    count: Counter = field(default_factory=Counter)
    all: list = field(default_factory=list)

    def __call__(self, state):
        seed = sample_seed(0, state, self.count[state.tokens])
        self.count[state.tokens] += 1
        self.all.append(state.extend(POLICY.sample([Prompt(state, seed)], STEPS)[0]))
        return self.all[-1]


def grown(outcome):
    """All states of the tree but the root, in the order they were made."""
    return outcome.result.tree.states[1:]


def distinct(states):
    return list({state.tokens: state for state in states}.values())


def ranked(states, rate):
    return sorted(states, key=lambda state: -rate(state))


def optimum(problem):
    """Tokens of the best response there is."""
    root = State(problem)
    return max((root.extend(completion) for completion, _ in POLICY.enumerate(root, WHOLE)), key=reward).tokens
