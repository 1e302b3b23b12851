"""Filters against a slow reference, draws against exact probabilities, streams against SplitMix64 in plain integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from clew.core.types import Sampling
from clew.models.sampling import draw, filter_logits, stream_after, uniforms

LARGEST_UNIFORM = 1.0 - 2.0**-24
MASK_64 = (1 << 64) - 1

rows = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 4.0]) | st.floats(-8, 8, width=32), min_size=1, max_size=12)
temperatures = st.sampled_from([0.5, 1.0, 1.7])
top_ps = st.sampled_from([1e-6, 0.3, 0.5, 0.9, 0.999999, 1.0]) | st.floats(0.01, 1.0)
seeds = st.integers(0, 2**63 - 1)


def slow_filter(logits: list[float], temperature: float, top_k: int, top_p: float) -> tuple[list[bool], float]:
    """Which tokens remain, by definition; and how close top-p came to keeping one more or one less."""
    scaled = [x / (temperature or 1.0) for x in np.asarray(logits, dtype=np.float32).tolist()]
    kept = [True] * len(scaled)
    if top_k:
        smallest = sorted(scaled, reverse=True)[min(top_k, len(scaled)) - 1]
        kept = [x >= smallest for x in scaled]
    margin = 1.0
    if top_p < 1.0:
        total = math.fsum(math.exp(x) for x, keep in zip(scaled, kept, strict=True) if keep)
        before = 0.0
        for index in sorted(range(len(scaled)), key=lambda i: (-scaled[i], i)):
            if not kept[index]:
                continue
            kept[index] = before < top_p
            if before > 0.0:
                margin = min(margin, abs(before - top_p))
            before += math.exp(scaled[index]) / total
    return kept, margin


@given(rows, temperatures, st.integers(0, 13), top_ps)
@example([0.0] * 8, 1.0, 3, 1.0)
@example([0.0] * 8, 1.0, 0, 0.3)
@example([1.0, 1.0, 0.0, 0.0], 1.0, 1, 1.0)
@example([2.0], 1.0, 1, 1e-6)
def test_filter_keeps_what_the_definition_keeps(row: list[float], temperature: float, top_k: int, top_p: float) -> None:
    kept, margin = slow_filter(row, temperature, top_k, top_p)
    assume(margin > 1e-5)
    logits = torch.tensor([row])
    filtered = filter_logits(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p))[0]
    assert (filtered > -torch.inf).tolist() == kept
    remaining = torch.tensor(kept)
    expected = (logits[0].double()[remaining] / temperature).log_softmax(0).float()
    torch.testing.assert_close(filtered[remaining].log_softmax(0), expected, rtol=1e-5, atol=2e-5)


@given(rows)
def test_top_k_one_keeps_the_largest_and_its_ties(row: list[float]) -> None:
    filtered = filter_logits(torch.tensor([row]), Sampling(top_k=1))[0]
    assert (filtered > -torch.inf).tolist() == [x == max(row) for x in row]


@given(rows)
def test_a_tiny_top_p_keeps_exactly_one_of_the_largest(row: list[float]) -> None:
    filtered = filter_logits(torch.tensor([row]), Sampling(top_p=1e-9))[0]
    assert (filtered > -torch.inf).tolist() == [i == row.index(max(row)) for i in range(len(row))]


@given(rows)
def test_no_filter_changes_nothing(row: list[float]) -> None:
    logits = torch.tensor([row])
    assert torch.equal(filter_logits(logits, Sampling()), logits)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.6),
        Sampling(temperature=1.8, top_k=5),
        Sampling(top_p=0.8),
        Sampling(temperature=1.3, top_k=6, top_p=0.9),
    ],
)
def test_frequencies_of_draws_follow_the_exact_probabilities(sampling: Sampling) -> None:
    row = [2.0, -1.0, 0.3, 0.3, 1.1, -4.0, 0.0, 1.9]
    kept, _ = slow_filter(row, sampling.temperature, sampling.top_k, sampling.top_p)
    weights = np.array([math.exp(x / sampling.temperature) if k else 0.0 for x, k in zip(row, kept, strict=True)])
    probs = weights / weights.sum()
    n = 40_000
    noise = torch.from_numpy(uniforms(range(n), 1)[:, 0])
    drawn = draw(torch.tensor(row).expand(n, -1), noise, sampling)
    counts = np.bincount(drawn.tokens.numpy(), minlength=len(row))
    assert not counts[probs == 0.0].any()
    assert chisquare(counts[probs > 0.0], probs[probs > 0.0] * n).pvalue > 1e-3
    np.testing.assert_allclose(drawn.logprobs.numpy(), np.log(probs[drawn.tokens.numpy()]), atol=1e-5)


@given(
    st.lists(st.sampled_from([-math.inf, -200.0, -90.0, 0.0, 3.0]), min_size=1, max_size=40),
    st.sampled_from([0.0, 2.0**-24, 0.5, LARGEST_UNIFORM]) | st.floats(0.0, LARGEST_UNIFORM, width=32),
    st.sampled_from([0.3, 1.0]),
)
@example([0.0, -math.inf], LARGEST_UNIFORM, 1.0)
@example([-math.inf, 0.0, -math.inf], 0.0, 1.0)
def test_a_token_of_probability_zero_is_never_drawn(row: list[float], uniform: float, temperature: float) -> None:
    assume(max(row) > -math.inf)
    drawn = draw(torch.tensor([row]), torch.tensor([uniform]), Sampling(temperature=temperature))
    token = int(drawn.tokens)
    assert 0 <= token < len(row)
    assert math.exp((row[token] - max(row)) / temperature) > 1e-46
    assert math.isfinite(float(drawn.logprobs))


def test_the_extreme_uniforms_draw_the_first_and_the_last_possible_token() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 551, generator=generator)
    logits[:, :3] = logits[:, -3:] = -torch.inf
    assert draw(logits, torch.zeros(200), Sampling()).tokens.unique().tolist() == [3]
    assert draw(logits, torch.full((200,), LARGEST_UNIFORM), Sampling()).tokens.max() <= 547


def test_the_largest_uniform_stays_below_every_total() -> None:
    """Totals from 1 to 1024, powers of two and their neighbours among them, with an impossible last token."""
    generator = torch.Generator().manual_seed(0)
    exponents = 2.0 ** torch.arange(11)
    infinity = torch.tensor(torch.inf)
    totals = torch.cat(
        [
            exponents,
            exponents.nextafter(infinity),
            exponents[1:].nextafter(-infinity),
            1 + 1023 * torch.rand(5000, generator=generator),
        ]
    )
    point = totals * torch.tensor(LARGEST_UNIFORM, dtype=torch.float32)
    assert (point < totals).all()


@given(rows, st.floats(0.0, LARGEST_UNIFORM, width=32))
def test_greedy_takes_the_first_largest_and_reports_the_models_own_logprob(row: list[float], uniform: float) -> None:
    drawn = draw(torch.tensor([row]), torch.tensor([uniform]), Sampling(temperature=0.0))
    assert int(drawn.tokens) == row.index(max(row))
    expected = -math.log(math.fsum(math.exp(x - max(row)) for x in row))
    assert float(drawn.logprobs) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-44])
def test_a_temperature_near_zero_is_greedy_and_finite(temperature: float) -> None:
    logits = torch.tensor([[1.0, 9.0, -7.0], [30.0, 0.0, 0.0]])
    drawn = draw(logits, torch.tensor([0.0, LARGEST_UNIFORM]), Sampling(temperature=temperature))
    assert drawn.tokens.tolist() == [1, 0]
    assert drawn.logprobs.tolist() == [0.0, 0.0]


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(rows.filter(lambda r: len(r) > 3).map(lambda r: r[:4]), st.floats(0, 0.875, width=32)), min_size=1
    )
)
def test_a_row_is_drawn_alike_alone_and_in_a_batch(pairs: list[tuple[list[float], float]]) -> None:
    sampling = Sampling(temperature=0.8, top_k=3, top_p=0.95)
    logits, noise = torch.tensor([row for row, _ in pairs]), torch.tensor([u for _, u in pairs])
    together = draw(logits, noise, sampling)
    for index in range(len(pairs)):
        alone = draw(logits[index : index + 1], noise[index : index + 1], sampling)
        assert int(alone.tokens) == int(together.tokens[index])
        assert float(alone.logprobs) == pytest.approx(float(together.logprobs[index]), abs=1e-6)


def slow_uniform(seed: int, position: int) -> float:
    """SplitMix64 as published, with Python's integers: the top 24 bits of output `position` + 1."""
    x = (seed * 0xD1342543DE82EF95 + (position + 1) * 0x9E3779B97F4A7C15) & MASK_64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK_64
    return ((x ^ (x >> 31)) >> 40) / 2**24


@given(st.lists(seeds, min_size=1, max_size=4), st.integers(1, 5))
@example([0, 2**63 - 1], 5)
def test_uniforms_are_splitmix64(chosen: list[int], count: int) -> None:
    expected = [[slow_uniform(seed, t) for t in range(count)] for seed in chosen]
    assert uniforms(chosen, count).tolist() == expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 5000), st.integers(1, 9))
@example(2**64 - 1, 1, 1)
def test_a_stream_can_be_gone_on_with_under_another_seed(seed: int, before: int, count: int) -> None:
    assert (
        uniforms([stream_after(seed, before)], count).tolist() == uniforms([seed], before + count)[:, before:].tolist()
    )
    assert 0 <= stream_after(seed, before) < 2**64


def test_golden_uniforms_of_seed_zero() -> None:
    """The published first outputs of SplitMix64 from state 0: e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f."""
    expected = [0xE220A8 / 2**24, 0x6E789E / 2**24, 0x06C45D / 2**24]
    assert uniforms([0], 3).tolist() == [expected]


def test_neighbouring_seeds_and_positions_are_uncorrelated() -> None:
    noise = uniforms(range(2000), 50).astype(np.float64)
    bound = 4.5 / math.sqrt(noise.size)
    for a, b in ((noise[:-1], noise[1:]), (noise[:, :-1], noise[:, 1:]), (noise[:-1, 1:], noise[1:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < bound
    assert abs(noise.mean() - 0.5) < 4.5 * math.sqrt(1 / 12 / noise.size)
    for column in (noise[:, 0], noise[:, 49], noise[7]):
        counts = np.histogram(column, bins=10, range=(0, 1))[0]
        assert chisquare(counts).pvalue > 1e-4


def test_a_longer_stream_begins_with_the_shorter_one() -> None:
    everything: Any = uniforms([5, 6, 7], 9)
    assert uniforms([6], 4).tolist() == [everything[1, :4].tolist()]
