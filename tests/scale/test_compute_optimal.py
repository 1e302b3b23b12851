"""Compute-optimal choice: planted worlds with a known plan, and noise, where there is nothing to find."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.scale.compute_optimal import Cell, Measured, bin_of, cross_validate, edges_of, plan


def world(rng, right, *, problems=200, budgets=(64,), strategies=("a", "b"), tokens=lambda name: 10):
    """`right(strategy, difficulty, budget)` is the probability that a search of it is right."""
    rows = []
    for number in range(problems):
        difficulty = rng.random()
        rows += [
            Measured(f"p{number}", difficulty, name, b, rng.random() < right(name, difficulty, b), tokens(name))
            for name in strategies
            for b in budgets
        ]
    return rows


def crossing(name, difficulty, budget):
    """`a` wins on easy problems, `b` on hard ones."""
    easy = difficulty < 0.5
    return 0.9 if (name == "a") == easy else 0.3


def test_the_planted_plan_is_found_and_pays_on_unseen_problems():
    rows = world(random.Random(0), crossing, problems=400)
    made = plan(rows, bins=2)
    assert made.choice == {Cell(0, 64): "a", Cell(1, 64): "b"}
    assert made.edges[0] == pytest.approx(0.5, abs=0.06)
    assert (made.strategy(0.1, 64), made.strategy(0.9, 64)) == ("a", "b")
    (found,) = cross_validate(rows, bins=2)
    assert found.optimal.low > found.fixed.high
    assert found.optimal.mean == pytest.approx(0.9, abs=0.06)
    assert found.optimal.n == found.fixed.n == 400
    assert found.each["a"].mean == pytest.approx(0.6, abs=0.08)


def test_noise_is_not_sold_as_a_gain():
    gains = []
    for seed in range(20):
        rows = world(random.Random(seed), lambda *_: 0.5, problems=100, strategies=tuple("abcdefgh"))
        (found,) = cross_validate(rows, bins=5, seed=seed)
        made = plan(rows, bins=5)
        in_sample = sum(r.right for r in rows if r.strategy == made.strategy(r.difficulty, r.budget)) / 100
        gains.append((found.optimal.mean, in_sample))
    honest = sum(cv for cv, _ in gains) / len(gains)
    assert honest == pytest.approx(0.5, abs=0.05)
    assert sum(seen for _, seen in gains) / len(gains) > honest + 0.1, "in the sample the same plans look good"


def test_equals_are_decided_by_tokens_then_by_name():
    rows = world(random.Random(1), lambda *_: 1.0, problems=10, tokens=lambda name: {"a": 9, "b": 3}[name])
    assert set(plan(rows, bins=2).choice.values()) == {"b"}
    assert set(plan([replace(r, tokens=5) for r in rows], bins=2).choice.values()) == {"a"}


def test_a_budget_between_two_is_served_by_the_one_it_covers():
    rows = world(random.Random(2), lambda name, d, b: float((name == "a") == (b == 64)), budgets=(64, 256), problems=20)
    made = plan(rows, bins=1)
    assert [made.strategy(0.5, b) for b in (10, 64, 255, 256, 9999)] == ["a", "a", "a", "b", "b"]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=40), st.integers(1, 6))
def test_bins_cover_everything_in_order_and_ties_share_a_bin(difficulties, bins):
    edges = edges_of(difficulties, bins)
    assert list(edges) == sorted(set(edges))
    assert len(edges) < bins
    slow = [sum(edge <= d for edge in edges) for d in difficulties]
    assert [bin_of(d, edges) for d in difficulties] == slow
    for at in range(len(edges) + 1):
        assert at in slow, "no bin is empty on what it was made from"


def test_distinct_difficulties_fill_bins_equally():
    edges = edges_of(range(100), 5)
    assert edges == (20, 40, 60, 80)


def test_what_cannot_be_validated_is_refused():
    rows = world(random.Random(3), crossing, problems=4)
    with pytest.raises(InvalidValue, match="folds"):
        cross_validate(rows, folds=5)
    with pytest.raises(InvalidValue, match="calibration"):
        cross_validate(rows[:-1], folds=2)
    with pytest.raises(InvalidValue, match="calibration rows"):
        plan([])


def test_folds_divide_problems_and_do_not_depend_on_the_order_of_rows():
    rows = world(random.Random(4), crossing, problems=50)
    shuffled = random.Random(5).sample(rows, len(rows))
    assert cross_validate(rows) == cross_validate(shuffled)
