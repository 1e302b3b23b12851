"""Arms over the same seeds: the deviation against a fit by least squares, Tukey's difference against printed tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clew.core.errors import InvalidValue
from clew.stats.blocks import Blocks, blocks


def fitted(values):
    """Residual mean square of y = arm + seed, by least squares on indicator columns."""
    arms, seeds = values.shape
    rows = [(a, s) for a in range(arms) for s in range(seeds)]
    design = np.array([[*(a == i for i in range(arms)), *(s == j for j in range(seeds))] for a, s in rows], dtype=float)
    y = values.flatten()
    solution, *_ = np.linalg.lstsq(design, y, rcond=None)
    return float(np.square(y - design @ solution).sum()) / (len(y) - np.linalg.matrix_rank(design))


@given(arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(2, 5)), elements=st.floats(0, 1)))
def test_the_deviation_is_that_of_a_fit(values):
    found = blocks(values.tolist())
    assert found.deviation**2 == pytest.approx(fitted(values), abs=1e-12)
    assert found.df == (values.shape[0] - 1) * (values.shape[1] - 1)


@given(arrays(np.float64, (4, 3), elements=st.floats(0, 1)), arrays(np.float64, 3, elements=st.floats(-1, 1)))
def test_what_a_whole_seed_is_worth_does_not_count(values, levels):
    assert blocks((values + levels).tolist()).deviation == pytest.approx(blocks(values.tolist()).deviation, abs=1e-12)


def test_two_arms_are_a_paired_test():
    one, other = [0.30, 0.34, 0.29, 0.40], [0.25, 0.31, 0.27, 0.33]
    away = np.subtract(one, other)
    # Student's t at 3 degrees of freedom; for two arms Tukey's quantile is sqrt(2) of it.
    half = 3.182446305284263 * away.std(ddof=1) / math.sqrt(4)
    assert blocks([one, other]).least_difference == pytest.approx(half, rel=1e-6)


@pytest.mark.parametrize(("arms", "df", "quantile"), [(3, 10, 3.877), (15, 30, 5.211), (5, 20, 4.232), (10, 5, 6.995)])
def test_the_quantiles_are_those_of_printed_tables(arms, df, quantile):
    found = Blocks(deviation=math.sqrt(2), df=df, arms=arms, seeds=2)
    assert found.least_difference == pytest.approx(quantile, abs=6e-4)


def test_the_half_width_is_students():
    assert Blocks(deviation=2.0, df=28, arms=15, seeds=4).half_width == pytest.approx(2.048407141795244)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 2.0], [1.0]]])
def test_too_little_is_refused(values):
    with pytest.raises(InvalidValue):
        blocks(values)
