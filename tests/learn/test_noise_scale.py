"""The gradient noise scale, exactly, from every batch that can be drawn."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from clew.core.errors import InvalidValue
from clew.learn.noise_scale import gradient_noise_scale

GRADIENTS = torch.tensor([[1.0, 0.5], [-0.5, 2.0], [3.0, 0.0]], dtype=torch.float64)
"""Of single examples, each as likely as the others."""


def mean_squared_norm(batch: int) -> float:
    """|mean gradient|^2, averaged over every batch of independent examples."""
    drawn = torch.tensor(list(itertools.product(range(3), repeat=batch)))
    return GRADIENTS[drawn].mean(1).square().sum(-1).mean().item()


@pytest.mark.parametrize(("small", "large"), [(1, 2), (1, 4), (2, 5)])
def test_both_estimates_are_unbiased(small, large):
    found = gradient_noise_scale(
        mean_squared_norm(small), mean_squared_norm(large), small_batch=small, large_batch=large
    )
    true = GRADIENTS.mean(0).square().sum().item()
    variance = GRADIENTS.var(0, correction=0).sum().item()
    assert found.squared_gradient == pytest.approx(true, rel=1e-9)
    assert found.variance == pytest.approx(variance, rel=1e-9)
    assert found.batch_size == pytest.approx(variance / true, rel=1e-9)


def test_no_signal_is_an_infinite_batch():
    assert gradient_noise_scale(2.0, 1.0, small_batch=1, large_batch=2).batch_size == math.inf


@pytest.mark.parametrize(("small", "large"), [(2, 2), (0, 4), (5, 4)])
def test_batches_that_tell_nothing_are_refused(small, large):
    with pytest.raises(InvalidValue, match="batch sizes"):
        gradient_noise_scale(1.0, 1.0, small_batch=small, large_batch=large)
