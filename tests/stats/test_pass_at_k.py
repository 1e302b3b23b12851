from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.stats.pass_at_k import pass_at_k


@pytest.mark.parametrize(("k", "expected"), [(1, 0.3), (2, 8 / 15), (5, 11 / 12), (8, 1.0), (10, 1.0)])
def test_golden_values(k, expected):
    assert pass_at_k([10], [3], k)[0] == pytest.approx(expected, abs=1e-12)


def test_large_counts_are_stable():
    assert pass_at_k([200], [1], 100)[0] == pytest.approx(0.5, abs=1e-12)
    assert pass_at_k([100_000], [1], 1_000)[0] == pytest.approx(0.01, abs=1e-12)


@settings(deadline=None)
@given(outcomes=st.lists(st.booleans(), min_size=1, max_size=8), data=st.data())
def test_equals_enumeration_of_all_subsets(outcomes, data):
    k = data.draw(st.integers(1, len(outcomes)))
    subsets = list(combinations(outcomes, k))
    expected = sum(map(any, subsets)) / len(subsets)
    assert pass_at_k([len(outcomes)], [sum(outcomes)], k)[0] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(n=st.integers(1, 24), data=st.data())
def test_monotone_in_k_and_in_right(n, data):
    c = data.draw(st.integers(0, n))
    by_k = [pass_at_k([n], [c], k)[0] for k in range(1, n + 1)]
    assert by_k == sorted(by_k)
    assert by_k[0] == pytest.approx(c / n)
    assert by_k[-1] == float(c > 0)
    if c < n:
        assert all(pass_at_k([n], [c + 1], k)[0] >= low for k, low in enumerate(by_k, start=1))


def test_vectorised_over_problems_of_different_size():
    got = pass_at_k([4, 10, 3], [0, 3, 3], 2)
    assert got.tolist() == pytest.approx([0.0, 8 / 15, 1.0], abs=1e-12)


@pytest.mark.parametrize(
    ("n", "c", "k"), [([], [], 1), ([4], [1], 5), ([4, 2], [1, 1], 3), ([4], [1], 0), ([4], [5], 1)]
)
def test_what_has_no_answer_is_an_error(n, c, k):
    with pytest.raises(InvalidValue) as error:
        pass_at_k(n, c, k)
    assert error.value.accepted
    assert error.value.advice
