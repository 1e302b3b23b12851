"""Ensembles against scores worked out by hand, and bandits against the best reward model in hindsight."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import Completion, FinishReason, State
from clew.reward.bandit import Exp3, LinUcb, as_gain, exploration
from clew.reward.ensemble import ByDomain, Cautious, Weighted, WorstCase, lower_confidence
from clew.tasks import Countdown, Maze

COUNTDOWN = Countdown().problem({"numbers": [3, 5, 7, 9], "target": 30})
MAZE = Maze().problem({"rows": ["S.G"]})
STATES = [State(COUNTDOWN, (1, 2)), State(MAZE, (3,)), State(COUNTDOWN, ())]


@dataclass(frozen=True)
class Table:
    """Scorer: given numbers in order of the states, counting its tokens."""

    name: str
    by_length: tuple[float, ...]

    def score(self, states, completions):
        assert len(states) == len(completions)
        return [self.by_length[len(state.tokens)] for state in states]

    def cost_tokens(self, states):
        return sum(len(state.tokens) for state in states)


ONE, TWO = Table("one", (0.0, 0.5, 1.0)), Table("two", (0.5, 0.5, 0.0))


def scores(scorer):
    return scorer.score(STATES, [None] * 3)


def test_ensembles_by_hand():
    assert scores(Weighted(members=(ONE, TWO))) == [0.5, 0.5, 0.25]
    assert scores(Weighted(members=(ONE, TWO), weights=(3.0, 1.0))) == [0.75, 0.5, 0.125]
    assert scores(Weighted(members=(ONE, TWO), weights=(0.0, 2.0))) == [0.0, 0.5, 0.5]
    assert scores(WorstCase(members=(ONE, TWO))) == [0.0, 0.5, 0.0]
    # Half their difference is the deviation of two.
    assert scores(Cautious(members=(ONE, TWO), k=2.0)) == [-0.5, 0.5, -0.25]
    assert scores(Cautious(members=(ONE,), k=5.0)) == scores(ONE)
    for ensemble in (Weighted(members=(ONE, TWO)), Cautious(members=(ONE, TWO)), WorstCase(members=(ONE, TWO))):
        assert ensemble.cost_tokens(STATES) == 6
        assert ensemble.score([], []) == []
        assert "one, two" in ensemble.name


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=5), st.floats(0, 3))
def test_caution_lies_below_the_mean_and_falls_with_k(rows, k):
    scores_MN = np.array(rows)
    found = lower_confidence(scores_MN, k)
    spread = [math.sqrt(sum((x - sum(c) / len(c)) ** 2 for x in c) / len(c)) for c in zip(*rows, strict=True)]
    assert found == pytest.approx(
        [sum(c) / len(c) - k * s for c, s in zip(zip(*rows, strict=True), spread, strict=True)]
    )
    assert (found <= scores_MN.mean(0) + 1e-9).all()


def test_a_mixture_asks_the_expert_of_the_domain_alone():
    mixture = ByDomain(experts={"countdown": ONE, "maze": TWO})
    assert scores(mixture) == [1.0, 0.5, 0.0]
    assert mixture.cost_tokens(STATES) == 3
    by_size = replace(
        mixture, experts={"4": TWO}, domain=lambda p: str(len(p.metadata.get("numbers", ()))), otherwise=ONE
    )
    assert scores(by_size) == [0.0, 0.5, 0.5]
    with pytest.raises(UnknownName, match="maze"):
        scores(ByDomain(experts={"countdown": ONE}))


@dataclass(frozen=True)
class Echo:
    """Scorer: of each state the number in its completion, so that one paired with another's shows."""

    name: str = "echo"

    def score(self, states, completions):
        return [0.0 if completion is None else float(completion.tokens[0]) for completion in completions]

    def cost_tokens(self, states):
        return 0


def test_a_mixture_hands_each_expert_the_completions_of_its_own_states():
    completions = [Completion((1,), None, FinishReason.STEP), Completion((2,), None, FinishReason.STEP), None]
    mixture = ByDomain(experts={"countdown": Echo(), "maze": Echo()})
    assert mixture.score(STATES, completions) == [1.0, 2.0, 0.0]


def test_ensembles_of_nothing_and_bad_weights_are_refused():
    for make in (Weighted, Cautious, WorstCase):
        with pytest.raises(InvalidValue, match="at least one scorer"):
            make(members=())
    for weights in ((1.0,), (0.0, 0.0), (-1.0, 2.0), (math.nan, 1.0), (math.inf, 1.0)):
        with pytest.raises(InvalidValue, match="weights"):
            Weighted(members=(ONE, TWO), weights=weights)
    with pytest.raises(InvalidValue, match="finite"):
        Cautious(members=(ONE,), k=math.nan)


def changing_world(rng, picks):
    """Three reward models: the second is best, but the first looks better until a third of the way."""
    means = np.where(np.arange(picks)[:, None] < picks / 3, [0.7, 0.4, 0.2], [0.1, 0.7, 0.5])
    return (rng.random((picks, 3)) < means).astype(float)


def gain_of(bandit, gains, rng):
    total = 0.0
    for row in gains:
        model = bandit.pick(rng)
        total += row[model]
        bandit = bandit.learn(model, row[model])
    return total, bandit


def test_the_regret_of_exp3_stays_below_its_bound_and_far_below_picking_at_random():
    picks, regrets, at_random = 1500, [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        gains = changing_world(rng, picks)
        best = gains.sum(0).max()
        total, bandit = gain_of(Exp3.over(3, picks), gains, rng)
        regrets.append(best - total)
        at_random.append(best - gains.mean(1).sum())
        assert bandit.probabilities_K.argmax() == gains.sum(0).argmax() == 1
    bound = 2 * math.sqrt(math.e - 1) * math.sqrt(picks * 3 * math.log(3))
    assert np.mean(regrets) < bound
    assert np.mean(regrets) < 0.6 * np.mean(at_random)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.floats(0.001, 1.0))
def test_probabilities_are_probabilities_and_none_is_forgotten(estimates, explore):
    found = Exp3(explore=explore, estimates_K=tuple(estimates)).probabilities_K
    assert found.sum() == pytest.approx(1.0)
    assert (found >= explore / len(estimates) - 1e-12).all()
    for a, b in itertools.pairwise(estimates):
        assert a != b or found[estimates.index(a)] == pytest.approx(found[estimates.index(b)])


def test_estimates_of_exp3_are_unbiased():
    """In expectation over picks each model's estimate grows by its gain: summed over all picks, exactly."""
    bandit, gains = Exp3(explore=0.2, estimates_K=(0.0, 3.0, 1.0)), (0.3, 0.9, 0.0)
    grown = np.zeros(3)
    for model, p in enumerate(bandit.probabilities_K):
        grown += p * (np.array(bandit.learn(model, gains[model]).estimates_K) - bandit.estimates_K)
    assert grown == pytest.approx(gains)


def test_linucb_learns_which_model_suits_which_batch_and_exp3_cannot():
    """Two kinds of batches, each with a reward model of its own: brute force knows the best of each."""
    rng = np.random.default_rng(0)
    gain_KD = np.array([[0.8, 0.1], [0.2, 0.7], [0.4, 0.4]])
    bandit, blind, regret, blind_regret = LinUcb.over(3, 2), Exp3.over(3, 1000), [], []
    for _ in range(1000):
        context = np.eye(2)[rng.integers(2)]
        expected = gain_KD @ context
        for chooser, regrets in ((bandit, regret), (blind, blind_regret)):
            model = chooser.pick(context) if isinstance(chooser, LinUcb) else chooser.pick(rng)
            regrets.append(expected.max() - expected[model])
            gain = float(rng.random() < expected[model])
            if isinstance(chooser, LinUcb):
                bandit = chooser.learn(model, context, gain)
            else:
                blind = chooser.learn(model, gain)
    assert sum(regret) < 0.15 * sum(blind_regret)
    assert sum(regret[500:]) < 0.3 * sum(regret[:500]) + 5
    assert [bandit.pick(np.eye(2)[kind]) for kind in (0, 1)] == [0, 1]


def test_linucb_bounds_are_those_of_ridge_regression():
    rng = np.random.default_rng(1)
    bandit, contexts, gains = LinUcb.over(1, 3, width=2.0), rng.normal(size=(20, 3)), rng.random(20)
    for context, gain in zip(contexts, gains, strict=True):
        bandit = bandit.learn(0, context, gain)
    x = rng.normal(size=3)
    precision = np.eye(3) + contexts.T @ contexts
    theta = np.linalg.solve(precision, contexts.T @ gains)
    expected = x @ theta + 2.0 * math.sqrt(x @ np.linalg.solve(precision, x))
    assert bandit.bounds_K(x)[0] == pytest.approx(expected)


def test_gains_and_settings():
    assert [as_gain(change, 0.5) for change in (-2.0, -0.5, 0.0, 0.25, 9.0)] == [0.0, 0.0, 0.5, 0.75, 1.0]
    assert exploration(1, 100) == exploration(5, 1) == 1.0
    assert Exp3.over(1, 10).probabilities_K.tolist() == [1.0]
    for wrong in (lambda: Exp3.over(0, 3), lambda: LinUcb.over(2, 0), lambda: Exp3.over(2, 10).learn(0, 1.5)):
        with pytest.raises(InvalidValue):
            wrong()
    with pytest.raises(InvalidValue, match="explore"):
        Exp3(explore=0.0, estimates_K=(0.0,))
