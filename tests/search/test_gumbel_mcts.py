"""Gumbel MCTS: the halving as it is scheduled, and better first steps than the policy's own."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import pytest

from clew.core.seeds import derive_seed
from clew.core.types import Outcome, Problem, Sampling, Verdict
from clew.search import TabularPolicy, run_searches
from clew.search.gumbel_mcts import GumbelMcts
from clew.search.selection import gumbels, halving_schedule

WORDS = ("end", *"abcdefgh")
PROBLEM = Problem("letters", "letters", ())
TOKEN = Sampling(max_tokens=1)


@dataclass(frozen=True)
class Judge:
    def verify(self, problem, text):
        return Verdict(Outcome.WRONG, worth(text), text)

    def extract(self, text):
        return text


def worth(text):
    """Later first letters are better; what follows matters less."""
    letters = [WORDS.index(letter) for letter in text.split()] or [0]
    return letters[0] / 10 + sum(letters[1:]) / 1000


def policy(depth=1, probs=None):
    def next_probs(state):
        if len(state.tokens) >= depth:
            return [1.0] + [0.0] * 8
        return [0.0, *(probs or [1 / 8] * 8)]

    return TabularPolicy(WORDS, next_probs)


def run(strategy, model, seed=0, problem=PROBLEM):
    (outcome,) = run_searches(strategy, [problem], model, task=Judge(), seed=seed)
    assert outcome.error is None
    return outcome


@pytest.mark.parametrize("in_flight", [1, 3, 16])
@pytest.mark.parametrize("iterations", [1, 7, 8, 24, 64])
def test_first_steps_are_visited_as_scheduled(iterations, in_flight):
    strategy = GumbelMcts(
        iterations=iterations, considered=64, width=3, sampling=TOKEN, rollout=TOKEN, leaves_in_flight=in_flight
    )
    tree = run(strategy, policy(depth=3)).result.tree
    steps = tree.children[0]
    assert len(steps) == 8
    # The child of each simulation has been visited as often as the schedule says.
    seen = Counter(dict.fromkeys(range(8), 0))
    for before in halving_schedule(8, iterations):
        seen[next(i for i in range(8) if seen[i] == before)] += 1
    assert sorted(tree.visits[s] for s in steps) == sorted(seen.values())
    assert tree.visits[0] == iterations


def test_halving_keeps_what_noise_prior_and_value_rate_highest():
    """Eight finished first steps of exact value, 24 simulations: who is left is known by hand."""
    strategy = GumbelMcts(iterations=24, considered=64, sampling=Sampling(max_tokens=8), max_depth=1, choose="visits")
    tree = run(strategy, policy()).result.tree
    steps = tree.children[0]
    noise = gumbels(64, random.Random(derive_seed(0, PROBLEM.id, "gumbel")))[: len(steps)]
    values = [tree.value(s) for s in steps]
    low, high = min(values), max(values)

    def ranked(among, most):
        scale = (50 + most) * 0.1 / (high - low)
        return sorted(among, key=lambda i: -(noise[i] + math.log(tree.prior[steps[i]]) + scale * (values[i] - low)))

    assert len(steps) == 8
    # Phases of 24 / (3 * considered) visits: 8 steps once, 4 twice, 2 four times.
    kept = ranked(range(8), 1)[:4]
    final = ranked(kept, 3)[:2]
    assert {i for i, s in enumerate(steps) if tree.visits[s] >= 3} == set(kept)
    assert {i for i, s in enumerate(steps) if tree.visits[s] >= 5} == set(final)


def test_improves_on_the_policy():
    """The expected worth of the answer rises above the policy's own with few simulations, and with more above that."""
    skewed = [0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05]
    model = policy(depth=2, probs=skewed)
    plain = sum(p * worth(WORDS[i + 1]) for i, p in enumerate(skewed))
    means = []
    for iterations in (4, 16, 64):
        strategy = GumbelMcts(iterations=iterations, considered=8, sampling=TOKEN, rollout=Sampling(), choose="visits")
        answers = [
            run(strategy, model, seed, Problem(f"letters:{seed}", "letters", ())).result.chosen for seed in range(60)
        ]
        means.append(sum(worth(model.text(answer)) for answer in answers) / 60)
    assert plain + 0.1 < means[0] < means[-1] + 1e-9
    assert means == sorted(means) or min(b - a for a, b in pairwise(means)) > -0.01


def test_other_noise_other_halving():
    def visits(seed):
        strategy = GumbelMcts(iterations=10, considered=32, sampling=TOKEN, rollout=TOKEN, seed=seed)
        tree = run(strategy, policy(depth=3)).result.tree
        return [tree.visits[s] for s in tree.children[0]]

    assert visits(0) == visits(0)
    assert len({tuple(visits(seed)) for seed in range(8)}) > 1
