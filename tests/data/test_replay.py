"""The replay buffer: age, capacity, fair draws, and the same again from disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.cost import Cost
from clew.core.errors import InvalidValue, RunDirectoryError
from clew.core.types import Completion, FinishReason, Group, Outcome, Problem, Reward, State, Trajectory, Verdict
from clew.data.replay import Entry, Recency, ReplayBuffer, load_buffer, save_buffer, uniformly
from clew.data.store import TrajectoryStore

PROBLEM = Problem("toy:1", "toy", ())


@given(
    st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=1, max_size=6),
    st.integers(1, 8),
    st.none() | st.integers(0, 3),
)
def test_what_stays_is_what_a_list_of_all_says(rounds, capacity, max_age):
    buffer, everything = ReplayBuffer(capacity=capacity, max_age=max_age), []
    for number, items in enumerate(rounds):
        if number:
            buffer = buffer.next_round()
        buffer = buffer.added(items, version=f"p+{number}")
        everything = [*everything, *(Entry(item, number, f"p+{number}") for item in items)][-capacity:]
        everything = [one for one in everything if max_age is None or number - one.round <= max_age]
    assert list(buffer.entries) == everything
    assert len(buffer) <= capacity
    assert buffer.ages() == [len(rounds) - 1 - one.round for one in everything]
    newest = f"p+{len(rounds) - 1}"
    stale = [one.version != newest for one in everything]
    assert buffer.stale(newest) == (sum(stale) / len(stale) if stale else 0.0)


def test_adding_gives_a_new_buffer():
    empty = ReplayBuffer(capacity=2)
    full = empty.added("ab")
    assert (len(empty), [one.item for one in full.added("c").entries]) == (0, ["b", "c"])


def three_ages():
    """One entry each of age 2, 1 and 0."""
    buffer = ReplayBuffer(capacity=9).added(["old"]).next_round().added(["middle"]).next_round()
    return buffer.added(["new"])


def frequencies(buffer, weight, n=1, draws=3000):
    counts = Counter(one.item for seed in range(draws) for one in buffer.sample(n, seed=seed, weight=weight))
    return {item: counts[item] / draws for item in ("old", "middle", "new")}


def test_draws_are_as_likely_as_their_weights():
    buffer = three_ages()
    assert frequencies(buffer, uniformly) == pytest.approx({"old": 1 / 3, "middle": 1 / 3, "new": 1 / 3}, abs=0.04)
    assert frequencies(buffer, Recency(1.0)) == pytest.approx({"old": 1 / 7, "middle": 2 / 7, "new": 4 / 7}, abs=0.04)
    # Two of three without replacement: 1 minus the chance to be the one that is left out.
    left_out = {"old": (4 * 2 / 3 + 2 * 4 / 5) / 7, "middle": (4 / 3 + 4 / 6) / 7, "new": (2 / 5 + 2 / 6) / 7}
    expected = {item: 1 - chance for item, chance in left_out.items()}
    assert sum(expected.values()) == pytest.approx(2.0)
    assert frequencies(buffer, Recency(1.0), n=2) == pytest.approx(expected, abs=0.04)


@given(st.integers(0, 6), st.integers(0, 5))
def test_a_draw_repeats_and_has_no_entry_twice(n, seed):
    buffer = ReplayBuffer(capacity=9).added(range(4))
    drawn = buffer.sample(n, seed=seed)
    assert drawn == buffer.sample(n, seed=seed)
    assert len({one.item for one in drawn}) == len(drawn) == min(n, 4)


def test_rounds_and_seeds_draw_differently():
    buffer = ReplayBuffer(capacity=99).added(range(50))
    draws = [buffer.sample(10, seed=0), buffer.sample(10, seed=1), buffer.next_round().sample(10, seed=0)]
    assert len({tuple(one.item for one in drawn) for drawn in draws}) == 3


def test_a_small_weight_is_no_crash_and_never_wins():
    buffer = three_ages()
    drawn = [buffer.sample(1, seed=seed, weight=lambda age: 1e-300 if age else 1.0)[0].item for seed in range(50)]
    assert set(drawn) == {"new"}
    assert len(buffer.sample(3, seed=0, weight=lambda age: 1e-300 if age else 1.0)) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReplayBuffer(capacity=0),
        lambda: ReplayBuffer(capacity=1, max_age=-1),
        lambda: Recency(0.0),
        lambda: Recency(float("nan")),
        lambda: ReplayBuffer(capacity=1).sample(-1, seed=0),
        lambda: three_ages().sample(1, seed=0, weight=lambda age: 0.0),
    ],
)
def test_wrong_settings_are_refused(make):
    with pytest.raises(InvalidValue, match="accepted"):
        make()


def group(*values):
    def one(value, token):
        last = Completion((token, 0), (-0.5, -0.25), FinishReason.STOP, policy_version="p+1")
        outcome = Outcome.UNSCORED if value is None else Outcome.RIGHT if value else Outcome.WRONG
        reward = Reward(float("nan") if value is None else value)
        return Trajectory(State(PROBLEM).extend(last), "text", Verdict(outcome, value), reward, Cost(), 0, last)

    return Group(PROBLEM, tuple(one(value, token) for token, value in enumerate(values, 1)))


def buffer_of_groups():
    buffer = ReplayBuffer(capacity=5, max_age=3).added([group(1.0), group(0.0)], version="p+0").next_round()
    return buffer.next_round().added([group(1.0, 0.0)], version="p/1/x").added([group(0.0)], version="p+2")


def test_saved_and_loaded(tmp_path):
    buffer = buffer_of_groups()
    with TrajectoryStore(tmp_path / "store") as store:
        store.add("rl", [group(1.0)])
        save_buffer(store, buffer)
        loaded = load_buffer(store, capacity=5, max_age=3, round=2)
        assert loaded == buffer
        assert loaded.sample(3, seed=1) == buffer.sample(3, seed=1)
        assert len(load_buffer(store, capacity=2, round=2)) == 2
        assert [one.round for one in load_buffer(store, capacity=5, max_age=1, round=2).entries] == [2, 2]
        # A second save takes the place of the first, and of nothing else.
        later = replace(buffer.next_round(), entries=buffer.entries[2:]).added([group(1.0)], version="p+3")
        save_buffer(store, later)
        assert load_buffer(store, capacity=5, max_age=3, round=3) == later
        assert len(list(store.groups("rl"))) == 1


def test_two_buffers_in_one_store(tmp_path):
    with TrajectoryStore(tmp_path / "store") as store:
        save_buffer(store, ReplayBuffer(capacity=5).added([group(1.0)]), name="a")
        save_buffer(store, ReplayBuffer(capacity=5).added([group(0.0), group(0.0)]), name="b")
        assert len(load_buffer(store, capacity=5, round=0, name="a")) == 1
        assert len(load_buffer(store, capacity=5, round=0, name="b")) == 2
        assert len(load_buffer(store, capacity=5, round=0)) == 0


def test_what_could_not_be_judged_is_not_kept(tmp_path):
    with TrajectoryStore(tmp_path / "store") as store:
        save_buffer(store, ReplayBuffer(capacity=5).added([group(1.0, None), group(None)]))
        loaded = load_buffer(store, capacity=5, round=0)
    assert [len(one.item.trajectories) for one in loaded.entries] == [1]


def test_another_stage_is_no_buffer(tmp_path):
    with TrajectoryStore(tmp_path / "store") as store:
        store.add("rl", [group(1.0)])
        with pytest.raises(RunDirectoryError, match="accepted"):
            load_buffer(store, capacity=5, round=0, name="rl")
        assert len(load_buffer(store, capacity=5, round=0)) == 0


def test_a_buffer_of_a_later_round_is_refused(tmp_path):
    with TrajectoryStore(tmp_path / "store") as store:
        save_buffer(store, buffer_of_groups())
        with pytest.raises(RunDirectoryError, match="round"):
            load_buffer(store, capacity=5, round=1)
