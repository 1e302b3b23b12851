"""Advantages against golden values, a slow loop, and properties over nasty groups."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clew.learn.advantages import group_centred, group_normalised, informative, leave_one_out

GOLDEN = torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0])
FUNCTIONS = [group_centred, group_normalised, leave_one_out]
TOLERANCE = 1e-9

rewards = st.one_of(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9),
    st.builds(lambda r, n: [r] * n, st.floats(-1e3, 1e3), st.integers(1, 9)),
    st.builds(lambda r, odd, n: [odd] + [r] * n, st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.integers(1, 8)),
    st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=9),
    st.lists(st.sampled_from([0.1, 0.1 + 2**-54, 0.3]), min_size=1, max_size=9),
)


def slow(kind: Callable[..., Tensor], values: list[float], valid: list[bool]) -> list[float]:
    kept = [v for v, ok in zip(values, valid, strict=True) if ok]
    answer = []
    for i, (value, ok) in enumerate(zip(values, valid, strict=True)):
        if not ok or len(kept) < 2:
            answer.append(0.0)
        elif kind is leave_one_out:
            others = [v for j, v in enumerate(values) if valid[j] and j != i]
            answer.append(value - math.fsum(others) / len(others))
        else:
            centred = value - math.fsum(kept) / len(kept)
            answer.append(centred / (statistics.stdev(kept) + 1e-4) if kind is group_normalised else centred)
    return answer


@pytest.mark.parametrize(
    ("function", "right", "wrong"),
    [(group_centred, 0.75, -0.25), (leave_one_out, 0.8571, -0.2857), (group_normalised, 1.6198, -0.5399)],
)
def test_golden(function: Callable[..., Tensor], right: float, wrong: float) -> None:
    assert function(GOLDEN).tolist() == pytest.approx([right] * 2 + [wrong] * 6, abs=5e-5)


def test_golden_of_other_libraries_follow_from_eps() -> None:
    assert group_normalised(GOLDEN, eps=1e-6)[0].item() == pytest.approx(1.6202, abs=5e-5)


@pytest.mark.parametrize("function", FUNCTIONS)
@given(data=st.data())
def test_against_the_slow_loop(function: Callable[..., Tensor], data: st.DataObject) -> None:
    values = data.draw(rewards)
    valid = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    # What is not valid must not be read, so it is nan.
    tensor = torch.tensor([v if ok else math.nan for v, ok in zip(values, valid, strict=True)], dtype=torch.float64)
    got = function(tensor, torch.tensor(valid)).tolist()
    assert got == pytest.approx(slow(function, values, valid), abs=1e-7 if function is group_normalised else TOLERANCE)


@pytest.mark.parametrize("function", FUNCTIONS)
@given(value=st.floats(-1e30, 1e30), size=st.integers(1, 12))
def test_equal_rewards_give_exact_zeros(function: Callable[..., Tensor], value: float, size: int) -> None:
    for dtype in (torch.float32, torch.float64):
        group = torch.full((size,), value, dtype=dtype)
        assert function(group).tolist() == [0.0] * size
        assert not informative(group)


@pytest.mark.parametrize("function", FUNCTIONS)
@given(values=rewards, shift=st.floats(-100, 100), seed=st.integers(0, 99))
def test_shift_changes_nothing_and_permutation_permutes(
    function: Callable[..., Tensor], values: list[float], shift: float, seed: int
) -> None:
    group = torch.tensor(values, dtype=torch.float64)
    base = function(group)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(function(group[order]), base[order], atol=1e-7)
    if function is not group_normalised:  # whose eps magnifies the rounding of a shift
        assert torch.allclose(function(group + shift), base, atol=1e-9)
    assert abs(base.sum().item()) <= 1e-6


@given(values=rewards)
def test_normalised_is_bounded_by_the_group_size(values: list[float]) -> None:
    # One that differs from ties is the largest: (n - 1) / sqrt(n) deviations.
    bound = (len(values) - 1) / math.sqrt(len(values))
    assert group_normalised(torch.tensor(values, dtype=torch.float64)).abs().max() <= bound + 1e-6


@given(values=rewards)
def test_informative_says_when_an_advantage_is_not_zero(values: list[float]) -> None:
    group = torch.tensor(values, dtype=torch.float64)
    assert informative(group).item() == (len(set(values)) > 1)


def test_groups_are_independent_and_nothing_valid_is_zero() -> None:
    batch = torch.tensor([[1.0, 0, 0], [5.0, 5, 5], [math.nan, 1, 0], [math.nan] * 3])
    valid = ~batch.isnan()
    assert group_centred(batch, valid)[2].tolist() == [0, 0.5, -0.5]
    assert leave_one_out(batch, valid).tolist()[1:] == [[0, 0, 0], [0, 1, -1], [0, 0, 0]]
    assert informative(batch, valid).tolist() == [True, False, True, False]
    assert torch.equal(group_centred(batch, valid)[0], group_centred(batch[0]))
