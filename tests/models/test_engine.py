"""The rollout engine against transformers, and a sample against itself in other company."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_engine import LOGPROB_TOLERANCE, STOPS, assert_same, make_contexts, slow_sample

from clew.core.errors import InvalidValue
from clew.core.types import Sampling
from clew.models.architecture import SmallQwen3
from clew.models.engine import RolloutEngine
from clew.models.written import Sampled

PLACE_TOLERANCE = 1e-5
SIZES = {
    "multi-query": SmallQwen3(width=32, layers=2, heads=4, kv_heads=1, head_width=8, ffn_width=48, context=64),
    "grouped": SmallQwen3(width=32, layers=3, heads=4, kv_heads=2, head_width=16, ffn_width=40, context=64),
    "multi-head": SmallQwen3(width=64, layers=1, heads=4, kv_heads=4, head_width=16, ffn_width=96, context=64),
    "one-head": SmallQwen3(width=16, layers=2, heads=1, kv_heads=1, head_width=16, ffn_width=16, context=64),
}


MIXED = make_contexts([9, 7, 12, 1, 9, 3])


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    "sampling", [Sampling(max_tokens=14), Sampling(max_tokens=14, temperature=0.6, top_k=40, top_p=0.9)]
)
def test_samples_equal_those_of_transformers(make_model: Callable[..., Any], name: str, sampling: Sampling) -> None:
    model = make_model(SIZES[name])
    contexts = [c for c in MIXED for _ in range(2)]
    sampled = RolloutEngine(model, stop_ids=STOPS).sample(contexts, range(12), sampling)
    expected = [slow_sample(model, c, i, sampling, STOPS) for i, c in enumerate(contexts)]
    assert_same(sampled, expected, LOGPROB_TOLERANCE)
    assert len({len(s.tokens) for s in sampled}) > 3


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("lengths", [[8, 8, 8], [3, 8, 5, 1]])
def test_greedy_equals_transformers_generate(make_model: Callable[..., Any], name: str, lengths: list[int]) -> None:
    model = make_model(SIZES[name], seed=3)
    contexts = make_contexts(lengths, seed=1)
    sampled = RolloutEngine(model, stop_ids=STOPS).sample(
        contexts, [0] * len(contexts), Sampling(temperature=0.0, max_tokens=30)
    )
    for context, ours in zip(contexts, sampled, strict=True):
        ids = torch.tensor([context])
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30, eos_token_id=list(STOPS)
        )
        assert ours.tokens == tuple(expected[0, len(context) :].tolist())


def test_an_untied_model_is_unembedded_with_its_own_matrix(make_model: Callable[..., Any]) -> None:
    model = make_model(tied=False)
    sampling = Sampling(max_tokens=5)
    sampled = RolloutEngine(model, stop_ids=STOPS).sample(MIXED, range(6), sampling)
    assert_same(sampled, [slow_sample(model, c, i, sampling, STOPS) for i, c in enumerate(MIXED)], LOGPROB_TOLERANCE)


@pytest.fixture(scope="module")
def engine(model: Any) -> RolloutEngine:
    return RolloutEngine(model, stop_ids=STOPS)


@pytest.fixture(scope="module")
def alone(engine: RolloutEngine) -> Callable[[int, int], Sampled]:
    """Context `index` of MIXED sampled by itself with `seed`."""
    known: dict[tuple[int, int], Sampled] = {}

    def sample(index: int, seed: int) -> Sampled:
        if (index, seed) not in known:
            known[index, seed] = engine.sample([MIXED[index]], [seed], Sampling(max_tokens=24))[0]
        return known[index, seed]

    return sample


@settings(max_examples=25)
@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20)), min_size=1, max_size=40),
    max_rows=st.sampled_from([1, 2, 7, 512]),
)
def test_a_sample_does_not_depend_on_its_company(
    model: Any, alone: Callable[[int, int], Sampled], rows: list[tuple[int, int]], max_rows: int
) -> None:
    engine = RolloutEngine(model, stop_ids=STOPS, max_rows=max_rows)
    together = engine.sample([MIXED[i] for i, _ in rows], [seed for _, seed in rows], Sampling(max_tokens=24))
    assert_same(together, [alone(i, seed) for i, seed in rows], PLACE_TOLERANCE)


def test_a_longer_limit_only_lengthens_a_sample(engine: RolloutEngine) -> None:
    short, long = (engine.sample(MIXED, range(6), Sampling(max_tokens=n)) for n in (4, 24))
    for a, b in zip(short, long, strict=True):
        assert a.tokens == b.tokens[:4]
        assert a.stopped == (len(b.tokens) <= 4 and b.stopped)


def spy_on_decode(engine: RolloutEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows in each decoding step from now on."""
    rows: list[int] = []
    decode = engine._forward.step

    def spy(tokens: Any, *args: Any) -> Any:
        rows.append(len(tokens))
        return decode(tokens, *args)

    monkeypatch.setattr(engine._forward, "step", spy)
    return rows


@pytest.mark.parametrize("temperature", [1.0, 0.15])
def test_each_step_computes_the_distinct_tokens_of_those_that_go_on(
    model: Any, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    monkeypatch.setattr("clew.models.engine.ROWS_WORTH_A_THREAD", 1000)
    engine = RolloutEngine(model, stop_ids=STOPS)
    rows = spy_on_decode(engine, monkeypatch)
    sampling = Sampling(max_tokens=40, temperature=temperature)
    sampled = engine.sample(MIXED * 20, range(120), sampling)
    for step, count in enumerate(rows, start=1):
        on = [(c, s.tokens[:step]) for c, s in zip(MIXED * 20, sampled, strict=True) if len(s.tokens) > step]
        assert count == len(set(on))
        assert temperature == 1.0 or step > 1 or count < 0.8 * len(on)
    assert len(rows) == max(len(s.tokens) for s in sampled) - 1
    assert engine.computed == sum(rows) + sum(map(len, set(MIXED)))


@pytest.mark.parametrize("threads", [2, 3])
def test_rows_side_by_side_in_threads_are_the_same_samples(
    model: Any, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    engine = RolloutEngine(model, stop_ids=STOPS)
    contexts, before = sorted(MIXED * 20), torch.get_num_threads()
    torch.set_num_threads(1)
    alone = engine.sample(contexts, range(120), Sampling(max_tokens=40))
    monkeypatch.setattr("clew.models.engine.ROWS_WORTH_A_THREAD", 8)
    torch.set_num_threads(threads)
    try:
        together = engine.sample(contexts, range(120), Sampling(max_tokens=40))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        assert (one.tokens, one.stopped, one.read, one.cached) == (
            other.tokens,
            other.stopped,
            other.read,
            other.cached,
        )
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_decoding_ends_when_every_row_has_finished(
    make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = RolloutEngine(make_model(), stop_ids=tuple(range(1051)))
    rows = spy_on_decode(engine, monkeypatch)
    sampled = engine.sample(MIXED, range(6), Sampling(max_tokens=40))
    assert rows == []
    assert all(len(s.tokens) == len(s.logprobs) == 1 and s.stopped for s in sampled)


def test_rows_that_never_stop_have_the_full_length(model: Any) -> None:
    for stops in ((), (3000,)):
        for limit in (1, 2, 9):
            sampled = RolloutEngine(model, stop_ids=stops).sample(MIXED, range(6), Sampling(max_tokens=limit))
            assert [(len(s.tokens), len(s.logprobs), s.stopped) for s in sampled] == [(limit, limit, False)] * 6


def test_a_stop_token_ends_a_sample_and_stands_nowhere_else(engine: RolloutEngine) -> None:
    sampled = engine.sample(MIXED * 5, range(30), Sampling(max_tokens=24))
    assert {s.stopped for s in sampled} == {True, False}
    for s in sampled:
        assert (s.tokens[-1] in STOPS) == s.stopped
        assert not set(s.tokens[:-1]) & set(STOPS)
        assert s.stopped or len(s.tokens) == 24


def test_a_shared_context_is_read_once_and_counted(engine: RolloutEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[int]] = []
    original = engine._forward.run

    def spy(tokens: Any, *args: Any) -> Any:
        read.append(tokens.tolist())
        return original(tokens, *args)

    a, b = MIXED[:2]
    with monkeypatch.context() as patch:
        patch.setattr(engine._forward, "run", spy)
        sampled = engine.sample([a, b, a, a, b], range(5), Sampling(max_tokens=1))
    assert read == [[*a, *b]]
    assert [(s.read, s.cached) for s in sampled] == [(9, 0), (7, 0), (0, 9), (0, 9), (0, 7)]


def test_what_does_not_fit_in_the_context_is_an_error(engine: RolloutEngine) -> None:
    context = MIXED[0]
    fits = engine.sample([context], [0], Sampling(max_tokens=96 - len(context)))
    assert len(fits[0].tokens) <= 96 - len(context)
    with pytest.raises(InvalidValue, match=r"is 97\n  accepted: at most 96 tokens"):
        engine.sample([MIXED[3], context], [0, 1], Sampling(max_tokens=97 - len(context)))


def test_the_last_position_of_the_context_is_used(model: Any) -> None:
    sampling = Sampling(max_tokens=96 - 9)
    sampled = RolloutEngine(model, stop_ids=()).sample(MIXED[:1], [5], sampling)
    assert_same(sampled, [slow_sample(model, MIXED[0], 5, sampling, ())], LOGPROB_TOLERANCE)


def test_an_empty_context_is_an_error_and_no_context_gives_nothing(engine: RolloutEngine) -> None:
    with pytest.raises(InvalidValue, match="what to do"):
        engine.sample([MIXED[0], ()], [0, 1], Sampling(max_tokens=3))
    assert engine.sample([], [], Sampling(max_tokens=3)) == []


def test_refresh_takes_over_new_weights_and_nothing_else_does(make_model: Callable[..., Any]) -> None:
    model, other = make_model(seed=0), make_model(seed=1)
    engine = RolloutEngine(model, stop_ids=STOPS)
    sampling = Sampling(max_tokens=8)
    before = engine.sample(MIXED, range(6), sampling)
    model.load_state_dict(other.state_dict())
    assert engine.sample(MIXED, range(6), sampling) == before
    engine.refresh()
    after = engine.sample(MIXED, range(6), sampling)
    assert [s.tokens for s in after] != [s.tokens for s in before]
    assert after == RolloutEngine(other, stop_ids=STOPS).sample(MIXED, range(6), sampling)


def test_the_same_call_gives_the_same_answer(engine: RolloutEngine) -> None:
    first, second = (engine.sample(MIXED, range(6), Sampling(max_tokens=12)) for _ in range(2))
    assert first == second
