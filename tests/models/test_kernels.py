"""Compiled loops against numpy in double precision, at the values where they could go wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import caching

from clew.models import decoder_kernels, kernels
from clew.models.blas import sgemm

F = np.float32


def test_exp32_over_its_whole_range() -> None:
    @kernels.compiled
    def apply(x, out):  # type: ignore[no-untyped-def]
        for i in range(x.size):
            out[i] = kernels.exp32(x[i])

    x = np.concatenate([np.linspace(-87, 88, 400_001), [0.0, -0.0, 1e-30, -1e-30]]).astype(F)
    out = np.empty_like(x)
    apply(x, out)
    assert np.abs(out / np.exp(x.astype(np.float64)) - 1).max() < 2e-7
    beyond = np.array([-88.0, -1e4, -np.inf, 89.0, 1e4, np.inf], F)
    apply(beyond, out)
    assert (out[:3] < 2e-38).all()
    assert (out[3:6] > 1e38).all()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 0.0])
def test_normalise(size: float) -> None:
    x = np.random.default_rng(0).standard_normal((5, 7)).astype(F) * F(size)
    out, scale = np.empty_like(x), np.empty(5, F)
    kernels.normalise(x, F(1e-6), out, scale)
    expected = 1 / np.sqrt(np.square(x.astype(np.float64)).mean(axis=1) + 1e-6)
    np.testing.assert_allclose(scale, expected, rtol=1e-5)
    np.testing.assert_allclose(out, x * expected[:, None], rtol=1e-5)


def test_swiglu_where_it_saturates() -> None:
    gate = np.array([[-1e4, -90.0, -20.0, -1.0, 0.0, 1.0, 20.0, 90.0, 1e4]], F)
    up = np.full_like(gate, 3.0)
    out = np.empty_like(gate)
    kernels.swiglu(np.concatenate([gate, up], axis=1), out)
    with np.errstate(over="ignore"):
        expected = 3.0 * gate / (1 + np.exp(-gate.astype(np.float64)))
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


@given(
    logits=st.lists(st.sampled_from([-50.0, -1.0, 0.0, 0.0, 2.0, 80.0]), min_size=1, max_size=12),
    uniform=st.sampled_from([0.0, 0.25, 0.5, 1 - 2.0**-24]) | st.floats(0, 1, exclude_max=True, width=32),
)
@settings(max_examples=300, deadline=None)
def test_a_plain_draw_inverts_the_cumulative_distribution(logits: list[float], uniform: float) -> None:
    uniform = min(uniform, 1 - 2.0**-24)
    tokens, logprobs = np.empty(1, np.int64), np.empty(1, F)
    kernels.draw_plainly(np.array([logits], F), np.zeros(1, np.int64), np.array([uniform], F), tokens, logprobs)
    probs = np.exp(np.array(logits) - max(logits))
    probs /= probs.sum()
    upto = np.cumsum(probs)
    token = int(tokens[0])
    assert 0 <= token < len(logits)
    assert upto[token] >= uniform - 1e-6
    assert upto[token] - probs[token] <= uniform + 1e-6
    assert abs(logprobs[0] - np.log(probs[token])) < 1e-5 * max(1.0, abs(np.log(probs[token])))


@pytest.mark.parametrize(
    ("probs", "entropy", "certainty"),
    [
        ([0.25] * 4, math.log(4), 0.0),
        ([0.97, 0.01, 0.01, 0.01], -0.97 * math.log(0.97) - 0.03 * math.log(0.01), 2.075198),
        ([1.0], 0.0, 0.0),
    ],
)
def test_entropy_and_self_certainty_of_known_distributions(
    probs: list[float], entropy: float, certainty: float
) -> None:
    found = np.full((2, 3), np.nan, F)
    logits = np.log(np.array([probs] * 3, F)) + np.array([[0.0], [90.0], [-90.0]], F)
    kernels.describe(logits, *found)
    np.testing.assert_allclose(found[0], entropy, atol=2e-5)
    np.testing.assert_allclose(found[1], certainty, atol=2e-5)
    assert (found >= 0).all()


@given(
    columns=st.integers(1, 9),
    kv_heads=st.sampled_from([1, 2]),
    width=st.sampled_from([2, 6, 8]),
    seed=st.integers(0, 99),
    size=st.sampled_from([0.0, 1.0, 20.0]),
)
@settings(max_examples=40, deadline=None)
def test_attention_of_tokens_in_any_row_and_column(
    columns: int, kv_heads: int, width: int, seed: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    heads, rows = 2 * kv_heads, rng.integers(0, 3, 5)
    padding = rng.integers(0, columns, 3)
    places = padding[rows] + (rng.random(5) * (columns - padding[rows])).astype(np.int64)
    queries = rng.standard_normal((5, heads, width)).astype(F) * F(size)
    keys = rng.standard_normal((3, kv_heads, width, columns + 2)).astype(F)
    values = rng.standard_normal((3, kv_heads, columns + 2, width)).astype(F)
    keys[..., columns:] = values[:, :, columns:] = np.nan
    out = np.full_like(queries, np.nan)
    decoder_kernels.attend(sgemm(), queries, keys, values, rows, places, padding, out)
    for token, (row, column) in enumerate(zip(rows, places, strict=True)):
        for head in range(heads):
            seen = slice(padding[row], column + 1)
            scores = queries[token, head].astype(np.float64) @ keys[row, head // 2, :, seen]
            weights = np.exp(scores - scores.max())
            expected = weights / weights.sum() @ values[row, head // 2, seen]
            np.testing.assert_allclose(out[token, head], expected, rtol=1e-4, atol=1e-5)


def test_without_a_place_to_write_nothing_is_cached_and_all_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])

    @kernels.compiled
    def double(x):  # type: ignore[no-untyped-def]
        return x + x

    assert double(F(1.5)) == 3.0
