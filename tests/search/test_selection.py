"""Selection rules: golden values, slow references written from the papers, and properties with nasty inputs."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.search.selection import (
    best,
    completed_q,
    exploration,
    gumbel_interior,
    gumbels,
    halving_schedule,
    improved_policy,
    min_max,
    mixed_value,
    normalise,
    puct,
    sigma,
    uct,
    with_noise,
)

CLOSE = 1e-6
NUMBERS = st.floats(-5.0, 5.0) | st.sampled_from([0.0, 1.0])


def test_uct_golden_values():
    assert uct(0.5, 16, 4, c=2.0) == pytest.approx(2.165109, abs=CLOSE)  # rStar
    assert uct(0.5, 16, 4, c=0.7 * math.sqrt(2.0)) == pytest.approx(1.324187, abs=CLOSE)  # ReST-MCTS*
    assert uct(0.5, 16, 0, c=2.0) == math.inf
    assert uct(-3.0, 1, 1, c=2.0) == -3.0


def test_puct_golden_values():
    assert puct(0.5, 0.2, 100, 9) == pytest.approx(0.751025, abs=CLOSE)
    assert puct(0.0, 0.6, 1, 0) == pytest.approx(0.750061, abs=CLOSE)
    assert puct(0.3, 0.0, 100, 3) == 0.3


@given(NUMBERS, st.floats(0.0, 1.0), st.integers(0, 10_000), st.integers(0, 10_000))
def test_puct_is_its_formula(q, prior, above, visits):
    slow = q + prior * math.sqrt(above) / (1 + visits) * (1.25 + math.log((above + 19652 + 1) / 19652))
    assert puct(q, prior, above, visits) == pytest.approx(slow)
    assert puct(q, prior, above, visits) == q + prior * exploration(above) / (1.0 + visits)


@given(st.lists(NUMBERS, min_size=1), st.data())
def test_min_max_keeps_the_order_and_stays_between_0_and_1(values, data):
    scaled = [min_max(v, min(values), max(values)) for v in values]
    assert all(0.0 <= s <= 1.0 for s in scaled)
    if max(values) - min(values) > 1e-6:
        assert min(scaled) == 0.0 and max(scaled) == 1.0
        i, j = data.draw(st.integers(0, len(values) - 1)), data.draw(st.integers(0, len(values) - 1))
        assert (values[i] < values[j]) <= (scaled[i] <= scaled[j])
    if len(set(values)) == 1:
        assert set(scaled) == {0.0}


@given(st.lists(st.floats(-800.0, 3.0), min_size=1))
def test_normalise_is_a_softmax(weights):
    exact = np.exp(np.array(weights) - np.max(weights))
    assert normalise(weights) == pytest.approx((exact / exact.sum()).tolist())


@given(st.integers(1, 20), st.sampled_from([0.03, 0.3, 5.0, 1e-6]), st.floats(0.0, 1.0), st.integers())
def test_noise_leaves_probabilities(num, alpha, fraction, seed):
    priors = normalise([random.Random(seed).random() for _ in range(num)])
    noisy = with_noise(priors, fraction, alpha, random.Random(seed))
    assert sum(noisy) == pytest.approx(1.0)
    assert all(n >= (1.0 - fraction) * p - CLOSE for n, p in zip(noisy, priors, strict=True))
    assert with_noise(priors, 0.0, alpha, random.Random(seed)) == priors


def test_noise_has_the_moments_of_a_dirichlet():
    stream, alpha, num = random.Random(0), 0.3, 4
    draws = [with_noise([0.25] * num, 1.0, alpha, stream)[0] for _ in range(20_000)]
    mean = sum(draws) / len(draws)
    variance = sum((d - mean) ** 2 for d in draws) / len(draws)
    assert mean == pytest.approx(1 / num, abs=0.01)
    assert variance == pytest.approx((1 / num) * (1 - 1 / num) / (num * alpha + 1), rel=0.05)


def test_mixed_value_golden_value():
    assert mixed_value(0.1, [0.5, 0.3, 0.2], [0.5, -0.2, 99.0], [2, 1, 0]) == pytest.approx(0.203125, abs=CLOSE)


@st.composite
def children(draw):
    """Value of the node, then priors, Q and visits of its children: ties, nothing visited, a single one, no prior."""
    num = draw(st.integers(1, 6))
    priors = normalise(draw(st.lists(st.floats(-30.0, 0.0) | st.just(0.0), min_size=num, max_size=num)))
    q = draw(st.lists(NUMBERS, min_size=num, max_size=num) | NUMBERS.map(lambda x: [x] * num))
    visits = draw(st.lists(st.integers(0, 3) | st.integers(0, 400), min_size=num, max_size=num))
    return draw(NUMBERS), priors, q, visits


def reference_sigma(value, priors, q, visits):
    """`qtransform_completed_by_mix_value` of mctx from its definition: arrays, no branches."""
    priors, q, visits = np.array(priors), np.array(q), np.array(visits)
    priors = np.maximum(np.finfo(np.float64).tiny, priors)
    seen = visits > 0
    weighted = (np.where(seen, priors * q, 0.0).sum() / np.where(seen, priors, 0.0).sum()) if seen.any() else 0.0
    mixed = (value + visits.sum() * weighted) / (visits.sum() + 1)
    completed = np.where(seen, q, mixed)
    rescaled = (completed - completed.min()) / max(completed.max() - completed.min(), 1e-8)
    return completed, (50 + visits.max()) * 0.1 * rescaled


@given(children())
def test_completed_q_and_sigma_against_a_slow_reference(node):
    value, priors, q, visits = node
    completed, scaled = reference_sigma(value, priors, q, visits)
    ours = completed_q(value, priors, q, visits)
    assert ours == pytest.approx(completed.tolist(), abs=1e-9)
    # Where all are equal, the smallest range divides what rounding left.
    assert sigma(ours, visits) == pytest.approx(scaled.tolist(), abs=1e-4)


@given(children())
def test_gumbel_interior_against_a_slow_reference(node):
    value, priors, q, visits = node
    s = sigma(completed_q(value, priors, q, visits), visits)
    logits = np.log(np.array(priors)) + np.array(s)
    improved = np.exp(logits - logits.max())
    improved /= improved.sum()
    ours = improved_policy(priors, s)
    assert ours == pytest.approx(improved.tolist())
    lag = [p - n / (1 + sum(visits)) for p, n in zip(ours, visits, strict=True)]
    assert gumbel_interior(ours, visits) == next(i for i, x in enumerate(lag) if x == max(lag))


def test_gumbel_interior_counts_the_visit_to_come():
    # 0.85 - 3/4 < 0.15, but 0.85 - 3/5 > 0.15.
    assert gumbel_interior([0.85, 0.15], [3, 0]) == 1
    assert gumbel_interior([0.5, 0.5], [0, 0]) == 0


def test_improved_policy_of_a_prior_of_zero_is_zero():
    assert improved_policy([0.0, 1.0], [500.0, 0.0]) == [0.0, 1.0]


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6))
def test_gumbel_interior_visits_in_proportion(weights):
    probs = [w / sum(weights) for w in weights]
    visits = [0] * len(probs)
    for _ in range(200):
        visits[gumbel_interior(probs, visits)] += 1
    assert all(abs(n - 200 * p) <= len(probs) for n, p in zip(visits, probs, strict=True))


def test_halving_golden_values():
    assert halving_schedule(4, 8) == [0, 0, 0, 0, 1, 1, 2, 2]
    assert halving_schedule(16, 32) == [0] * 16 + [1] * 8 + [2] * 4 + [3] * 4
    assert halving_schedule(1, 3) == [0, 1, 2]
    assert halving_schedule(0, 2) == [0, 1]


@given(st.integers(1, 33), st.integers(1, 300))
def test_halving_against_a_bandit_that_is_halved(considered, simulations):
    """The tournament itself, with arm i always better than arm i + 1: who is visited, and how often before."""
    seen, before = Counter(), []
    arms = list(range(considered))
    phases = math.ceil(math.log2(considered)) if considered > 1 else 1
    while len(before) < simulations:
        each = max(1, int(simulations / (phases * len(arms)))) if considered > 1 else simulations
        for arm in arms * each:
            before.append(seen[arm])
            seen[arm] += 1
        arms = arms[: max(2, len(arms) // 2)] if considered > 1 else arms
    assert halving_schedule(considered, simulations) == before[:simulations]


def test_gumbels_pick_by_softmax():
    stream, logits = random.Random(1), [math.log(p) for p in (0.6, 0.3, 0.1)]
    picks = Counter(best([g + x for g, x in zip(gumbels(3, stream), logits, strict=True)]) for _ in range(20_000))
    assert [picks[i] / 20_000 for i in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.015)


class Zero(random.Random):
    def random(self):
        return 0.0


def test_gumbels_are_finite_for_the_most_unlikely_draw():
    assert all(map(math.isfinite, gumbels(3, Zero())))


def test_best_of_equals_is_the_first():
    assert best([1.0, 2.0, 2.0]) == 1
    assert best([0.0]) == 0
