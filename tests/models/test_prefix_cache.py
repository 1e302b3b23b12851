"""The prefix cache against a slow trie, and a growing search tree against the engine without it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_engine import LOGPROB_TOLERANCE, STOPS, Context, assert_same, make_contexts, slow_sample

from clew.core.errors import InvalidValue
from clew.core.types import Sampling
from clew.models.engine import RolloutEngine
from clew.models.prefix_cache import NOWHERE, PrefixCache
from clew.models.prefix_counts import Shape
from clew.models.reading import ranges
from clew.models.written import Sampled

SHAPE = Shape(layers=2, kv_heads=2, head_width=8, width=32, vocabulary=1051)
ROOMY = 1 << 24
PROMPTS = make_contexts([9, 7, 12, 1], seed=5)


def make_cache(capacity: int) -> PrefixCache:
    return PrefixCache(capacity * SHAPE.bytes, SHAPE)


def put(cache: PrefixCache, tokens: Sequence[int]) -> int:
    """Find and add `tokens` in a call of their own: how many are held then."""
    with cache.in_use(), cache.adding():
        path = cache.find(tokens)
        path, _ = cache.add(path, tokens[len(path) :])
    return len(path)


def test_a_token_takes_the_bytes_of_its_keys_values_and_state() -> None:
    assert SHAPE.bytes == 4 * (2 * 2 * 2 * 8 + 32)
    cache = make_cache(5)
    held = (cache.keys_values.nbytes + cache.hidden.nbytes) // SHAPE.bytes
    assert (cache.capacity, held) == (5, 6)


def test_less_than_a_token_is_an_error() -> None:
    with pytest.raises(InvalidValue, match=f"is {SHAPE.bytes - 1}\n  accepted: at least {SHAPE.bytes}"):
        PrefixCache(SHAPE.bytes - 1, SHAPE)


def test_the_longest_beginning_is_found() -> None:
    cache = make_cache(20)
    put(cache, [1, 2, 3])
    put(cache, [1, 2, 4, 5])
    assert len(cache) == 5
    lengths = [len(cache.find(path)) for path in ([1, 2, 3], [1, 2, 3, 9], [1, 2, 4, 5, 6], [1, 9], [2], [])]
    assert lengths == [3, 3, 4, 1, 0, 0]
    assert cache.find([1, 2, 3])[:2].tolist() == cache.find([1, 2, 4])[:2].tolist()


def test_what_was_used_longest_ago_goes_and_its_leaves_before_it() -> None:
    cache = make_cache(6)
    put(cache, [1, 2, 3])
    put(cache, [4, 5, 6])
    cache.find([1, 2])
    put(cache, [7])
    assert [len(cache.find(path)) for path in ([1, 2, 3], [4, 5, 6], [7])] == [2, 3, 1]
    put(cache, [8, 9])
    assert [len(cache.find(path)) for path in ([1, 2], [4, 5, 6], [7], [8, 9])] == [0, 3, 1, 2]
    assert cache.counts.evicted == 3


def test_what_is_in_use_stays_and_the_rest_is_not_kept() -> None:
    cache = make_cache(4)
    put(cache, [1, 2])
    with cache.in_use():
        assert len(cache.find([1])) == 1
        path, known = cache.add(NOWHERE, [5, 6, 7, 8])
        assert (len(path), known) == (3, 0)
        assert len(cache.find([1, 2])) == 1
        assert cache.num_lost(path, [8]) == 1
    assert put(cache, [5, 6, 7, 8]) == 4


def test_lost_tokens_are_those_computed_before_on_the_same_path() -> None:
    cache = make_cache(3)
    put(cache, [1, 2, 3])
    put(cache, [4, 2, 3])
    assert cache.num_lost(NOWHERE, [1, 2, 3, 4]) == 3
    assert cache.num_lost(NOWHERE, [2, 3]) == 0
    cache.forget()
    assert cache.num_lost(NOWHERE, [1, 2, 3]) == 0
    assert (len(cache), cache.counts.evicted) == (0, 0)


def test_what_was_added_but_not_written_is_forgotten() -> None:
    cache = make_cache(9)
    put(cache, [1, 2])

    def add_and_fail() -> None:
        with cache.adding():
            cache.add(NOWHERE, [3])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_and_fail()
    assert len(cache) == 0


@given(
    capacity=st.integers(1, 12),
    paths=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=30),
)
@settings(max_examples=200, deadline=None)
def test_it_is_a_prefix_closed_set_that_forgets_the_oldest(capacity: int, paths: list[list[int]]) -> None:
    """The slow reference is a dictionary from paths to the time of their last use."""
    cache = make_cache(capacity)
    used: dict[tuple[int, ...], int] = {}
    computed: set[tuple[int, ...]] = set()
    for time, path in enumerate(paths):
        prefixes = [tuple(path[: i + 1]) for i in range(len(path))]
        held = [p for p in prefixes if p in used]
        assert len(cache.find(path)) == len(held)
        lost = sum(p in computed and p not in used for p in prefixes)
        assert cache.num_lost(cache.find(path), path[len(held) :]) == lost
        put(cache, path)
        used.update(dict.fromkeys(held, time))
        missing = len(prefixes) - len(held)
        while missing > capacity - len(used) and (old := [p for p in used if used[p] < time]):
            del used[min(old, key=lambda p: (used[p], -len(p)))]
        used.update(dict.fromkeys(prefixes[len(held) :][: capacity - len(used)], time))
        computed.update(prefixes)
        assert len(cache) == len(used) <= capacity
    assert all(p[:-1] in used or len(p) == 1 for p in used)
    assert all(len(cache.find(p)) == len(p) for p in used)


def test_ranges() -> None:
    assert ranges(np.array([5, 0, 8]), np.array([2, 0, 3])).tolist() == [5, 6, 8, 9, 10]
    assert ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


class Growth:
    """A search tree that grows by sampling: states are token paths, and every call is noted."""

    def __init__(
        self, engine: RolloutEngine, seed: int, prompts: Sequence[Context] = PROMPTS, temperature: float = 1.0
    ) -> None:
        self.engine, self.rng, self.temperature = engine, random.Random(seed), temperature
        self.states = list(prompts)
        self.calls: list[tuple[Context, int, Sampling, Sampled]] = []
        self.computed: set[Context] = set()
        """Paths that any way of growing this tree has to compute: all but the last tokens that nobody continued."""
        self.coincidences = 0
        """Tokens that were drawn although somebody had drawn them before on the same path."""

    def grow(self, rounds: int) -> Growth:
        for _ in range(rounds):
            chosen = [self.rng.choice(self.states) for _ in range(self.rng.randint(1, 6))]
            sampling = Sampling(max_tokens=self.rng.randint(1, 5), temperature=self.temperature)
            seeds = [self.rng.randrange(10**9) for _ in chosen]
            self.computed |= {context[: i + 1] for context in chosen for i in range(len(context))}
            for context, seed, s in zip(chosen, seeds, self.engine.sample(chosen, seeds, sampling), strict=True):
                self.calls.append((context, seed, sampling, s))
                written = {(context + s.tokens)[:i] for i in range(len(context) + 1, len(context + s.tokens))}
                self.coincidences += len(written & self.computed)
                self.computed |= written
                if len(context) + len(s.tokens) < 80:
                    self.states.append(context + s.tokens)
            # Text that nobody sampled, twice alike up to its last token.
            told = self.rng.choice([s for s in self.states if len(s) < 80])
            self.states += [(*told, 11, 12, 13), (*told, 11, 12, 14)]
        return self

    @property
    def samples(self) -> list[Sampled]:
        return [sampled for *_, sampled in self.calls]


@pytest.mark.parametrize("temperature", [1.0, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_every_token_of_a_growing_tree_is_computed_once(model: Any, seed: int, temperature: float) -> None:
    engine = RolloutEngine(model, stop_ids=STOPS, cache_bytes=ROOMY)
    grown = Growth(engine, seed, temperature=temperature).grow(25)
    prefixes = grown.engine.prefixes
    assert prefixes is not None
    # Samples that draw what others have drawn walk along it, or with them.
    assert grown.coincidences > 10 if temperature < 1.0 else grown.coincidences == 0
    assert engine.computed == prefixes.counts.computed == len(grown.computed) == len(prefixes)
    assert (prefixes.counts.reread, prefixes.counts.evicted) == (0, 0)
    assert sum(s.read for s in grown.samples) == prefixes.counts.read
    assert all(s.read + s.cached == len(context) for context, _, _, s in grown.calls)
    plain = Growth(RolloutEngine(model, stop_ids=STOPS), seed, temperature=temperature).grow(25)
    assert sum(s.read for s in plain.samples) > 5 * prefixes.counts.read
    assert_same(grown.samples, plain.samples, 1e-5 / temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_a_growing_tree_is_that_of_transformers(model: Any, temperature: float) -> None:
    engine = RolloutEngine(model, stop_ids=STOPS, cache_bytes=ROOMY)
    grown = Growth(engine, 9, temperature=temperature).grow(12)
    expected = [slow_sample(model, context, seed, sampling, STOPS) for context, seed, sampling, _ in grown.calls]
    assert_same(grown.samples, expected, LOGPROB_TOLERANCE)


@given(seed=st.integers(0, 10**6), capacity=st.integers(1, 120), temperature=st.sampled_from([1.0, 0.05]))
@settings(max_examples=25, deadline=None)
def test_a_tiny_bound_changes_the_cost_alone(model: Any, seed: int, capacity: int, temperature: float) -> None:
    bounded = RolloutEngine(model, stop_ids=STOPS, cache_bytes=capacity * SHAPE.bytes)
    grown = Growth(bounded, seed, temperature=temperature).grow(12)
    plain = Growth(RolloutEngine(model, stop_ids=STOPS), seed, temperature=temperature).grow(12)
    # Logits are divided by the temperature, and so are the last digits in which they differ.
    assert_same(grown.samples, plain.samples, 1e-5 / temperature)
    prefixes = bounded.prefixes
    assert prefixes is not None
    assert len(prefixes) <= prefixes.capacity == capacity
    assert prefixes.counts.reread == sum(s.reread for s in grown.samples)
    assert all(s.reread <= s.read for s in grown.samples)
    # What was computed more than once was read again, or drawn when it was no longer held.
    again = prefixes.counts.computed - len(grown.computed)
    assert prefixes.counts.reread <= again <= prefixes.counts.reread + grown.coincidences
    assert prefixes.counts.computed == bounded.computed
    assert prefixes.counts.reread > 0 or capacity > 40


def test_what_is_held_is_walked_and_not_computed(model: Any) -> None:
    engine = RolloutEngine(model, stop_ids=STOPS, cache_bytes=ROOMY)
    sampling = Sampling(max_tokens=9, statistics=True)
    seeds = [3, 4, 3]
    first = engine.sample([PROMPTS[0]] * 3, seeds, sampling)
    before = engine.computed
    assert before == len(PROMPTS[0]) + len({s.tokens[: i + 1] for s in first for i in range(len(s.tokens) - 1)})
    again = engine.sample([PROMPTS[0]] * 3, seeds, sampling)
    assert_same(again, first, 1e-5)
    for one, other in zip(again, first, strict=True):
        assert (one.entropies, one.certainties) == (
            pytest.approx(other.entropies, abs=1e-5),
            pytest.approx(other.certainties, abs=1e-5),
        )
    # The last token of a completion was never computed; nobody needs it, as long as nobody goes on from it.
    assert engine.computed == before
    longer = engine.sample([PROMPTS[0]] * 3, seeds, Sampling(max_tokens=12))
    assert [s.tokens[:9] for s in longer] == [s.tokens for s in first]
    assert engine.computed - before == len({s.tokens[:i] for s in longer for i in range(9, len(s.tokens))})


def test_a_sample_meets_another_that_was_given_what_it_drew(model: Any) -> None:
    prompt = PROMPTS[0]
    sampling = Sampling(max_tokens=4)
    (drawn,) = RolloutEngine(model, stop_ids=()).sample([prompt], [5], sampling)
    engine = RolloutEngine(model, stop_ids=(), cache_bytes=ROOMY)
    engine.sample([prompt], [6], Sampling(max_tokens=1))
    told = prompt + drawn.tokens[:1]
    sampled = engine.sample([prompt, told], [5, 7], sampling)
    assert sampled[0].tokens == drawn.tokens
    assert [(s.read, s.cached) for s in sampled] == [(0, 9), (1, 9)]
    prefixes = engine.prefixes
    assert prefixes is not None
    # The first token that the one drew is the last of the other's context: it is computed once, and counts as read.
    paths = {context + s.tokens[:i] for context, s in zip([prompt, told], sampled, strict=True) for i in range(4)}
    assert engine.computed == len(prompt) - 1 + len(paths) == prefixes.counts.computed
    assert prefixes.counts.read == len(told)


def test_siblings_share_one_reading_and_the_first_pays(model: Any) -> None:
    engine = RolloutEngine(model, stop_ids=(), cache_bytes=ROOMY)
    a, b = PROMPTS[:2]
    sampling = Sampling(max_tokens=4)
    first = engine.sample([a, b, a, b], range(4), sampling)
    assert [(s.read, s.cached) for s in first] == [(9, 0), (7, 0), (0, 9), (0, 7)]
    child = a + first[0].tokens
    again = engine.sample([child, a, child], [7, 8, 9], sampling)
    assert [(s.read, s.cached, s.reread) for s in again] == [(1, 12, 0), (0, 9, 0), (0, 13, 0)]


def test_a_stop_token_of_a_reopened_response_is_not_in_the_way(model: Any) -> None:
    engine = RolloutEngine(model, stop_ids=STOPS, cache_bytes=ROOMY)
    sampled = next(s for s in engine.sample([PROMPTS[0]] * 40, range(40), Sampling(max_tokens=20)) if s.stopped)
    reopened = PROMPTS[0] + sampled.tokens[:-1]
    (again,) = engine.sample([reopened], [3], Sampling(max_tokens=6))
    assert (again.read, again.cached) == (0, len(reopened))
    assert_same([again], RolloutEngine(model, stop_ids=STOPS).sample([reopened], [3], Sampling(max_tokens=6)), 1e-5)


def test_new_weights_empty_the_cache(make_model: Callable[..., Any]) -> None:
    model, other = make_model(seed=0), make_model(seed=1)
    engine = RolloutEngine(model, stop_ids=STOPS, cache_bytes=ROOMY)
    sampling = Sampling(max_tokens=8)
    engine.sample(PROMPTS, range(4), sampling)
    model.load_state_dict(other.state_dict())
    engine.refresh()
    after = engine.sample(PROMPTS, range(4), sampling)
    assert_same(after, RolloutEngine(other, stop_ids=STOPS).sample(PROMPTS, range(4), sampling), 1e-5)
    assert all(s.reread == 0 for s in after)


def test_threads_share_the_cache(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clew.models.engine.ROWS_WORTH_A_THREAD", 1)
    prompts = make_contexts([5, 9, 3, 11, 6, 8, 4, 7], seed=6)
    plain = Growth(RolloutEngine(model, stop_ids=STOPS), 2, prompts).grow(10)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        grown = Growth(RolloutEngine(model, stop_ids=STOPS, cache_bytes=ROOMY), 2, prompts).grow(10)
        tiny = Growth(RolloutEngine(model, stop_ids=STOPS, cache_bytes=30 * SHAPE.bytes), 2, prompts).grow(10)
    finally:
        torch.set_num_threads(before)
    assert_same(grown.samples, plain.samples, 1e-5)
    assert_same(tiny.samples, plain.samples, 1e-5)
    assert grown.engine.prefixes is not None and len(grown.engine.prefixes) == len(grown.computed)


def test_rows_of_one_context_go_to_one_thread(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clew.models.engine.ROWS_WORTH_A_THREAD", 1)
    engine = RolloutEngine(model, stop_ids=STOPS, cache_bytes=ROOMY)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sampled = engine.sample(PROMPTS * 8, range(32), Sampling(max_tokens=3))
    finally:
        torch.set_num_threads(before)
    assert [s.read for s in sampled] == [len(prompt) for prompt in PROMPTS] + [0] * 28


def test_without_bytes_nothing_is_remembered(model: Any) -> None:
    engine = RolloutEngine(model, stop_ids=STOPS, cache_bytes=ROOMY)
    engine.remember(0)
    assert engine.prefixes is None
    twice = [engine.sample(PROMPTS[:1], [0], Sampling(max_tokens=2))[0].read for _ in range(2)]
    assert twice == [9, 9]
