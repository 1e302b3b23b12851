"""Trees made by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from clew.core.types import Completion, FinishReason, Message, Outcome, Problem, Verdict
from clew.search.tree import Tree

PROBLEM = Problem("toy:1", "toy", (Message("system", "add"), Message("user", "one")))
VALUES = {Outcome.RIGHT: 1.0, Outcome.WRONG: 0.0, Outcome.UNSCORED: None}


def words(state):
    """The text of a state: a letter a token, `.` for the stop token 0."""
    return "".join(chr(96 + token) if token else "." for token in state.tokens)


@dataclass
class Sprout:
    """A tree that grows by `add`."""

    tree: Tree
    text = staticmethod(words)

    def add(self, parent, tokens, *, finish="step", told=False, prior=1.0, verdict=None, backups=(), score=None):
        """A child that adds `tokens`; `backups` are values that a search counted at it, `verdict` an outcome."""
        tree, before = self.tree, self.tree.states[parent]
        if told:
            node = tree.add(parent, before.reopened().told(tuple(tokens)), prior=prior)
        else:
            logprobs = tuple(-float(token) for token in tokens)
            last = Completion(tuple(tokens), logprobs, FinishReason(finish), policy_version="p+1")
            node = tree.add(parent, before.extend(last), last, prior=prior)
        if verdict is not None:
            outcome = Outcome(verdict)
            tree.verdicts[node] = Verdict(outcome, VALUES[outcome], None)
        if score is not None:
            tree.score[node] = score
        for value in backups:
            tree.backup(node, value)
        return node


@pytest.fixture
def sprout():
    return Sprout(Tree(PROBLEM))


@pytest.fixture
def new_sprout():
    return lambda: Sprout(Tree(PROBLEM))
