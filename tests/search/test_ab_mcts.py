"""AB-MCTS-A: posteriors against their closed forms, and when it grows wide or deep."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clew.core.errors import InvalidValue
from clew.core.types import Outcome, Problem, Sampling, Verdict
from clew.search import StopReason, TabularPolicy, run_searches
from clew.search.ab_mcts import AbMcts
from clew.search.thompson import Arm, Beta, Gaussian

REWARDS = st.lists(st.floats(-100.0, 100.0) | st.sampled_from([0.0, 1.0, 1e6]), max_size=20)
DRAWS = 40_000


def arm_of(rewards):
    arm = Arm()
    for reward in rewards:
        arm.observe(reward)
    return arm


@given(REWARDS | st.floats(-1e6, 1e6).map(lambda x: [x] * 7))
def test_an_arm_keeps_mean_and_squares(rewards):
    arm = arm_of(rewards)
    mean = statistics.fmean(rewards) if rewards else 0.0
    assert arm.count == len(rewards)
    assert arm.mean == pytest.approx(mean, rel=1e-9, abs=1e-7)
    assert arm.spread == pytest.approx(math.fsum((r - mean) ** 2 for r in rewards), rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("rewards", [[], [0.7], [1.0, 1.0, 0.0, 1.0], [3.0, -1.0, 2.5, 2.0, 0.0, 1.0, 1.0]])
def test_gaussian_draws_are_student_t(rewards):
    """Posterior of the mean: t of nu_n degrees around m_n with scale sqrt(tau_n^2 / kappa_n) (Murphy 2023, 3.4.3.3)."""
    m, kappa, nu, tau2 = 0.0, 1.0, 1.0, 0.1
    n, mean = len(rewards), sum(rewards) / max(1, len(rewards))
    squares = sum((r - mean) ** 2 for r in rewards)
    kappa_n, nu_n = kappa + n, nu + n
    m_n = (kappa * m + sum(rewards)) / kappa_n
    tau2_n = (nu * tau2 + squares + n * kappa / (kappa + n) * (m - mean) ** 2) / nu_n
    stream, arm = random.Random(1), arm_of(rewards)
    draws = sorted(Gaussian().draw(arm, stream) for _ in range(DRAWS))
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        exact = stats.t.ppf(quantile, nu_n, loc=m_n, scale=math.sqrt(tau2_n / kappa_n))
        share = sum(d <= exact for d in draws) / DRAWS
        assert share == pytest.approx(quantile, abs=0.012)


@pytest.mark.parametrize("rewards", [[], [1.0], [0.0, 0.0, 0.0], [0.25, 0.5, 1.0, 0.0]])
def test_beta_draws_have_the_moments_of_the_posterior(rewards):
    a, b = 0.5 + sum(rewards), 0.5 + len(rewards) - sum(rewards)
    stream, arm = random.Random(2), arm_of(rewards)
    draws = [Beta().draw(arm, stream) for _ in range(DRAWS)]
    assert statistics.fmean(draws) == pytest.approx(a / (a + b), abs=0.01)
    assert statistics.pvariance(draws) == pytest.approx(a * b / ((a + b) ** 2 * (a + b + 1)), rel=0.06)


@given(st.lists(st.just(1.0) | st.just(0.0) | st.floats(0.0, 1.0), max_size=30), st.integers())
def test_draws_are_numbers_whatever_was_seen(rewards, seed):
    arm = arm_of(rewards)
    for posterior in (Gaussian(), Beta(), Gaussian(variance=1e-12, nu=1e-3)):
        assert math.isfinite(posterior.draw(arm, random.Random(seed)))


@pytest.mark.parametrize("settings", [{"kappa": 0.0}, {"nu": -1.0}, {"variance": math.nan}])
def test_wrong_priors_are_refused(settings):
    with pytest.raises(InvalidValue, match=next(iter(settings))):
        Gaussian(**settings)


def test_wrong_beta_priors_are_refused():
    with pytest.raises(InvalidValue, match="a is 0"):
        Beta(a=0.0)


WORDS = ("end", *(f"w{i}" for i in range(63)))
STEP = Sampling(max_tokens=1)


def spread_policy():
    """Many different steps, three of them a response."""
    return TabularPolicy(WORDS, lambda s: [1.0] + [0.0] * 63 if len(s.tokens) >= 6 else [0.0] + [1 / 63] * 63)


@dataclass(frozen=True)
class Judge:
    def verify(self, problem, text):
        return Verdict(Outcome.WRONG, 0.0, text)

    def extract(self, text):
        return text


@dataclass(frozen=True)
class ByDepth:
    """Deeper is better by `slope` a step; at one depth steps differ by `noise`."""

    slope: float
    noise: float
    name: str = "by-depth"

    def score(self, states, completions):
        return [
            self.slope * len(s.tokens) + self.noise * ((s.tokens[-1] * 37 + len(s.tokens)) % 64) / 64 for s in states
        ]

    def cost_tokens(self, states):
        return 0


def grow(scorer, posterior=None, problems=8, **settings):
    strategy = AbMcts(
        posterior=posterior or Gaussian(), sampling=STEP, guide="scorer", evaluate="value", max_depth=6, **settings
    )
    names = [Problem(f"p:{i}", "toy", ()) for i in range(problems)]
    outcomes = run_searches(strategy, names, spread_policy(), task=Judge(), scorer=scorer)
    assert [o.error for o in outcomes] == [None] * problems
    return [o.result.tree for o in outcomes]


def widths(trees):
    return statistics.fmean(len(tree.children[0]) for tree in trees)


def depths(trees):
    return statistics.fmean(sum(tree.depth) / len(tree) for tree in trees)


@pytest.mark.parametrize("posterior", [Gaussian(), Beta()], ids=repr)
def test_goes_deep_where_depth_pays_and_wide_where_it_costs(posterior):
    deep = grow(ByDepth(slope=0.15, noise=0.05), posterior, iterations=60)
    wide = grow(ByDepth(slope=0.0, noise=0.9), posterior, iterations=60)
    assert depths(deep) > depths(wide) + 0.3
    assert widths(deep) + 5 < widths(wide)


def test_each_iteration_samples_one_step_and_counts_one_visit():
    for tree in grow(ByDepth(slope=0.1, noise=0.3), iterations=50):
        assert tree.visits[0] == 50 == tree.cost().model_calls
        # Nothing grows below what is at the largest depth.
        assert max(tree.depth) <= 6


def test_steps_in_flight_may_share_a_parent_and_keep_streams_of_their_own():
    for tree in grow(ByDepth(slope=0.0, noise=1.0), iterations=64, leaves_in_flight=16):
        assert tree.visits[0] == 64 == tree.cost().model_calls
        # 64 draws from 63 words with replacement: if streams were shared there would be only a few.
        assert len(tree) > 30


def test_a_reward_that_is_no_share_is_refused_under_beta():
    strategy = AbMcts(posterior=Beta(), sampling=STEP, guide="scorer", evaluate="value")
    scorer = ByDepth(slope=2.0, noise=0.0)
    with pytest.raises(InvalidValue, match=r"a reward is 2\.0"):
        run_searches(strategy, [Problem("p", "toy", ())], spread_policy(), task=Judge(), scorer=scorer)
    (outcome,) = run_searches(
        AbMcts(iterations=3, sampling=STEP, guide="scorer", evaluate="value"),
        [Problem("p", "toy", ())],
        spread_policy(),
        task=Judge(),
        scorer=scorer,
    )
    assert outcome.stop is StopReason.FINISHED
