"""The store gives back exactly what it was given, and nothing half-written after a kill."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clew
from clew.core.cost import Cost
from clew.core.errors import InvalidValue, RunDirectoryError
from clew.core.types import (
    Completion,
    FinishReason,
    Group,
    Message,
    Outcome,
    Problem,
    Provenance,
    Reward,
    Span,
    State,
    Trajectory,
    Verdict,
)
from clew.data.rows import pack_floats, unpack_floats
from clew.data.store import TrajectoryStore

NO_NAN = st.floats(allow_nan=False)
FLOAT32 = st.floats(width=32, allow_nan=False)
INT32 = st.integers(-(2**31), 2**31 - 1)
COUNT = st.integers(0, 2**40)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
TOKENS = st.lists(INT32, max_size=8).map(tuple)
FLOATS = st.one_of(st.lists(FLOAT32, max_size=6), st.lists(NO_NAN, max_size=6)).map(tuple)

problems = st.builds(
    Problem,
    id=TEXT,
    task=TEXT,
    prompt=st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=2).map(tuple),
    metadata=st.dictionaries(TEXT, JSON, max_size=3),
)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    problem = draw(problems)
    trajectories = st.builds(
        Trajectory,
        state=st.builds(
            State,
            problem=st.just(problem),
            tokens=TOKENS,
            steps=st.lists(st.builds(Span, st.integers(0, 99), st.integers(0, 99)), max_size=3).map(tuple),
            finished=st.booleans(),
        ),
        text=TEXT,
        verdict=st.builds(
            Verdict, st.sampled_from(Outcome), value=st.none() | NO_NAN, answer=st.none() | TEXT, reason=TEXT
        ),
        reward=st.builds(Reward, NO_NAN, st.dictionaries(TEXT, NO_NAN, max_size=3)),
        cost=st.builds(Cost, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, NO_NAN),
        seed=st.integers(0, 2**63 - 1),
        completion=st.builds(
            Completion,
            tokens=TOKENS,
            logprobs=st.none() | FLOATS,
            finish=st.sampled_from(FinishReason),
            policy_version=TEXT,
            prompt_tokens_read=COUNT,
            prompt_tokens_cached=COUNT,
            prompt_tokens_reread=COUNT,
            entropies=st.none() | FLOATS,
            certainties=st.none() | FLOATS,
            pieces=st.lists(st.tuples(TEXT, COUNT), max_size=3).map(tuple),
        ),
        step_rewards=FLOATS,
        provenance=st.builds(Provenance, TEXT, st.none() | COUNT, TEXT),
    )
    return Group(problem, tuple(draw(st.lists(trajectories, max_size=3))))


def simple(text: str, n: int = 2, name: str = "p") -> Group:
    problem = Problem(name, "countdown", (Message("user", "make 24"),), {"numbers": [1, 2]})
    state = State(problem).extend(Completion((1, 2, 3), (-0.5, -0.25, -1.0), FinishReason.STOP))
    trajectory = Trajectory(
        state=state,
        text=text,
        verdict=Verdict(Outcome.RIGHT, 1.0, "24"),
        reward=Reward(1.0, {"outcome": 1.0}),
        cost=Cost(tokens_sampled=3),
        seed=7,
        completion=Completion((1, 2, 3), (-0.5, -0.25, -1.0), FinishReason.STOP),
    )
    return Group(problem, (trajectory,) * n)


def texts(store: TrajectoryStore, stage: str) -> list[str]:
    return [t.text for g in store.groups(stage) for t in g.trajectories]


@settings(max_examples=60, deadline=None)
@given(first=st.lists(groups(), max_size=3), second=st.lists(groups(), max_size=2))
def test_round_trip_is_exact(first: list[Group], second: list[Group]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store.sqlite"
        with TrajectoryStore(path) as store:
            store.add("a", first)
            store.add("b", second)
            store.add("a", second)
        with TrajectoryStore(path) as store:
            assert list(store.groups("a")) == first + second
            assert list(store.groups("b")) == second
            assert repr(list(store.groups("a"))) == repr(first + second)  # also the types: 1 is not 1.0
            assert store.count("b") == sum(len(g.trajectories) for g in second)
            assert store.count() == sum(len(g.trajectories) for g in first + second + second)


@given(values=FLOATS)
def test_floats_take_four_bytes_where_that_is_exact(values: tuple[float, ...]) -> None:
    assert unpack_floats(pack_floats(values)) == values
    assert len(pack_floats((-0.5, -0.25))) == 9 and len(pack_floats((0.1,))) == 9
    assert len(pack_floats((1e300,))) == 9


def test_problems_of_equal_id_and_other_order_are_both_kept(tmp_path: Path) -> None:
    one = Group(Problem("countdown:1-2=3", "countdown", (), {"numbers": [1, 2]}), ())
    other = Group(Problem("countdown:1-2=3", "countdown", (), {"numbers": [2, 1]}), ())
    with TrajectoryStore(tmp_path / "s") as store:
        store.add("rl", [one, other, one])
        assert list(store.groups("rl")) == [one, other, one]


def test_replace_is_idempotent_and_touches_one_stage(tmp_path: Path) -> None:
    with TrajectoryStore(tmp_path / "s") as store:
        store.add("sft", [simple("keep")])
        store.add("rl", [simple("torn")])
        for _ in range(2):
            store.replace("rl", [simple("x", 1), simple("y", 1)])
        assert texts(store, "rl") == ["x", "y"] and texts(store, "sft") == ["keep", "keep"]
        assert store.stages() == ["sft", "rl"]
        store.replace("rl")
        assert store.count("rl") == 0 and store.count() == 2 and store.stages() == ["sft"]


def test_a_failed_add_leaves_nothing(tmp_path: Path) -> None:
    stranger = simple("z", name="q").trajectories
    with TrajectoryStore(tmp_path / "s") as store:
        store.add("rl", [simple("x", 1)])
        with pytest.raises(InvalidValue, match="q in a group of p"):
            store.replace("rl", [simple("y"), Group(simple("").problem, stranger)])
        assert texts(store, "rl") == ["x"]


@pytest.mark.parametrize("metadata", [{"numbers": (1, 2)}, {3: 4}, {"x": float("nan")}])
def test_metadata_that_json_would_change_is_refused(tmp_path: Path, metadata: dict[str, object]) -> None:
    with TrajectoryStore(tmp_path / "s") as store, pytest.raises(InvalidValue, match="metadata"):
        store.add("rl", [Group(Problem("p", "t", (), metadata), ())])


def test_a_reward_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    good = simple("x", 1).trajectories[0]
    fields = {name: getattr(good, name) for name in Trajectory.__dataclass_fields__}
    bad = Trajectory(**{**fields, "reward": Reward(float("nan"))})
    with TrajectoryStore(tmp_path / "s") as store, pytest.raises(InvalidValue, match="reward"):
        store.add("rl", [Group(good.state.problem, (bad,))])


def test_files_that_are_no_store_are_told_in_three_parts(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is not a database, but it is long enough to be looked at" * 20)
    with sqlite3.connect(tmp_path / "future") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for name, told in (("text", "not a store"), ("future", "store version 99"), ("absent/dir", "directory exists")):
        with pytest.raises(RunDirectoryError, match=told) as caught:
            TrajectoryStore(tmp_path / name)
        assert "accepted:" in str(caught.value) and "what to do:" in str(caught.value)


def test_a_store_of_the_version_before_is_brought_up_to_date(tmp_path: Path) -> None:
    with TrajectoryStore(tmp_path / "s") as store:
        store.add("rl", [simple("old", 1)])
    with sqlite3.connect(tmp_path / "s") as db:
        db.executescript("ALTER TABLE trajectories DROP COLUMN pieces; PRAGMA user_version = 2;")
    db.close()
    (one,) = simple("new", 1).trajectories
    new = replace(one, completion=replace(one.completion, policy_version="p+2", pieces=(("p+1", 2), ("p+2", 1))))
    with TrajectoryStore(tmp_path / "s") as store:
        store.add("rl", [replace(simple("new", 1), trajectories=(new,))])
    with TrajectoryStore(tmp_path / "s") as store:
        assert list(store.groups("rl")) == [simple("old", 1), replace(simple("new", 1), trajectories=(new,))]


def test_a_store_of_the_version_before_that_may_only_be_read_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TrajectoryStore(tmp_path / "s.sqlite") as store:
        store.add("a", [simple("x")])
    with sqlite3.connect(tmp_path / "s.sqlite") as db:
        db.executescript("ALTER TABLE trajectories DROP COLUMN pieces; PRAGMA user_version = 2;")
    db.close()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **how: connect(f"file:{path}?mode=ro", uri=True, **how))
    with TrajectoryStore(tmp_path / "s.sqlite") as store:
        assert list(store.groups("a")) == [simple("x")]
        assert store.count("a") == 2
        with pytest.raises(RunDirectoryError, match="readonly"):
            store.add("a", [simple("y")])


def test_a_full_disk_is_told_and_rolls_back(tmp_path: Path) -> None:
    with TrajectoryStore(tmp_path / "s") as store:
        store.add("rl", [simple("x", 1)])
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RunDirectoryError, match="free some space"):
            store.add("rl", [simple("long " * 20_000)])
        assert texts(store, "rl") == ["x"]


def test_kill_mid_write_keeps_whole_additions_only(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from tests_store_helper import simple
        from clew.data.store import TrajectoryStore
        store = TrajectoryStore(Path(sys.argv[1]))
        for i in range(10_000):
            store.add("rl", [simple(str(i), 8)] * 8)
            print(i, flush=True)
    """
    # The child imports this file under another name, as tests are not a package.
    (tmp_path / "tests_store_helper.py").write_text(Path(__file__).read_text())
    assert clew.__file__ is not None
    python_path = f"{Path(clew.__file__).parents[1]}:{tmp_path}"
    for attempt in range(2):
        path = tmp_path / "store.sqlite"
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(path)],
            env={**os.environ, "PYTHONPATH": python_path},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        with child.stdout as lines:
            told = [int(line) for line in itertools.islice(lines, 20 + 7 * attempt)]
            child.send_signal(signal.SIGKILL)
            told += [int(line) for line in lines]
        assert child.wait(timeout=30) == -signal.SIGKILL
        with TrajectoryStore(path) as store:
            assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            found = texts(store, "rl")
            # Everything told is there, at most one addition more, and each is whole.
            assert len(found) // 64 - (told[-1] + 1) in (0, 1)
            assert found == [str(i) for i in range(len(found) // 64) for _ in range(64)]
            store.replace("rl")
            assert store.count() == 0
