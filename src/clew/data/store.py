"""All trajectories of a run in one SQLite file: whole transactions or nothing, also after a kill."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, final

from clew.core.errors import InvalidValue, RunDirectoryError
from clew.core.types import Group, Problem
from clew.data.rows import (
    ProblemRow,
    TrajectoryRow,
    decode_problem,
    decode_trajectory,
    encode_problem,
    encode_trajectory,
)

SCHEMA_VERSION = 3
_SINCE = {2: "ALTER TABLE trajectories ADD COLUMN pieces"}
"""What brings a store of an earlier version to the next one."""
_AS_IF = {2: "CREATE TEMP VIEW trajectories AS SELECT *, NULL AS pieces FROM main.trajectories"}
"""What makes one that may only be read look like the newest."""
_ADVICE = {
    sqlite3.SQLITE_FULL: "free some space on that disk, then resume the run",
    sqlite3.SQLITE_READONLY: "change its permissions, or choose another place",
    sqlite3.SQLITE_CANTOPEN: "check that its directory exists and may be written to",
    sqlite3.SQLITE_NOTADB: "the file is not a store: remove it, or choose another run directory",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore it from a copy, or start a new run",
    sqlite3.SQLITE_BUSY: "another process is writing to it: wait until that has ended",
}
_SCHEMA = f"""
CREATE TABLE problems (
    key INTEGER PRIMARY KEY, {", ".join(f"{c} TEXT NOT NULL" for c in ProblemRow._fields)},
    UNIQUE ({", ".join(ProblemRow._fields)})
);
CREATE TABLE groups (key INTEGER PRIMARY KEY, stage TEXT NOT NULL, problem INTEGER NOT NULL REFERENCES problems);
CREATE INDEX groups_by_stage ON groups (stage, key);
CREATE TABLE trajectories (
    key INTEGER PRIMARY KEY, "group" INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    {", ".join(TrajectoryRow._fields)}
);
CREATE INDEX trajectories_by_group ON trajectories ("group", key);
PRAGMA user_version = {SCHEMA_VERSION};
"""
_INSERT_TRAJECTORY = (
    f'INSERT INTO trajectories ("group", {", ".join(TrajectoryRow._fields)}) '
    f"VALUES (?{', ?' * len(TrajectoryRow._fields)})"
)
_SELECT_TRAJECTORIES = f'SELECT {", ".join(TrajectoryRow._fields)} FROM trajectories WHERE "group" = ? ORDER BY key'


@final
class TrajectoryStore:
    """Groups of trajectories by stage, in the order they were added. Use as a context manager, in one thread."""

    def __init__(self, path: Path) -> None:
        """Open the store at `path`, or make it. Raises `RunDirectoryError` if the file cannot be used."""
        self.path = path
        with self._friendly_errors():
            self._db = sqlite3.connect(path, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def add(self, stage: str, groups: Iterable[Group]) -> None:
        """Append `groups` to `stage`: all of them, or none if it is killed or fails on the way."""
        with self._transaction():
            for group in groups:
                self._insert(stage, group)

    def replace(self, stage: str, groups: Iterable[Group] = ()) -> None:
        """Make `groups` all that `stage` has, in one transaction: what a stage that starts again calls first."""
        with self._transaction():
            self._db.execute("DELETE FROM groups WHERE stage = ?", (stage,))
            for group in groups:
                self._insert(stage, group)

    def groups(self, stage: str) -> Iterator[Group]:
        """The groups of `stage` as they were added; states come without their parents."""
        query = f"""SELECT groups.key, {", ".join("problems." + c for c in ProblemRow._fields)}
            FROM groups JOIN problems ON problems.key = groups.problem WHERE stage = ? ORDER BY groups.key"""
        for key, *columns in self._db.execute(query, (stage,)):
            problem = decode_problem(ProblemRow(*columns))
            rows = self._db.execute(_SELECT_TRAJECTORIES, (key,))
            yield Group(problem, tuple(decode_trajectory(problem, TrajectoryRow(*row)) for row in rows))

    def stages(self) -> list[str]:
        """Stages that have groups, in the order of their first."""
        return [s for (s,) in self._db.execute("SELECT stage FROM groups GROUP BY stage ORDER BY min(key)")]

    def count(self, stage: str | None = None) -> int:
        """Number of trajectories of `stage`, or of all."""
        query = 'SELECT count(*) FROM trajectories JOIN groups ON groups.key = "group" WHERE ? IS NULL OR stage = ?'
        (count,) = self._db.execute(query, (stage, stage)).fetchone()
        return int(count)

    def _open(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, *_SINCE, SCHEMA_VERSION):
            raise RunDirectoryError(
                f"{self.path} has store version {version}",
                f"version {SCHEMA_VERSION}",
                "open it with the clew that wrote it, or start a new run",
            )
        # With WAL, NORMAL keeps the file sound through kills and power cuts; a power cut may lose the last commits.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        elif version in _SINCE:
            try:
                self._bring_up_to_date()
            except RunDirectoryError as error:
                if getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_READONLY:
                    raise
                self._db.execute(_AS_IF[version])

    def _bring_up_to_date(self) -> None:
        with self._transaction():
            # Another process may have been quicker.
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            for earlier in range(version, SCHEMA_VERSION):
                self._db.execute(_SINCE[earlier])
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _insert(self, stage: str, group: Group) -> None:
        problem_key = self._problem_key(group.problem)
        group_key = self._db.execute(
            "INSERT INTO groups (stage, problem) VALUES (?, ?)", (stage, problem_key)
        ).lastrowid
        for trajectory in group.trajectories:
            if trajectory.state.problem != group.problem:
                given = f"{trajectory.state.problem.id} in a group of {group.problem.id}"
                raise InvalidValue("problem of a trajectory", given, "that of its group", "group by problem")
            self._db.execute(_INSERT_TRAJECTORY, (group_key, *encode_trajectory(trajectory)))

    def _problem_key(self, problem: Problem) -> int:
        row = encode_problem(problem)
        self._db.execute("INSERT OR IGNORE INTO problems (id, task, prompt, metadata) VALUES (?, ?, ?, ?)", row)
        where = "id = ? AND task = ? AND prompt = ? AND metadata = ?"
        (key,) = self._db.execute(f"SELECT key FROM problems WHERE {where}", row).fetchone()
        return int(key)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._friendly_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                # A full disk makes SQLite roll back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _friendly_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
            if advice is None:
                raise
            accepted = "a trajectory store of clew on a disk with free space that this user may write to"
            raise RunDirectoryError(f"cannot use {self.path}: {error}", accepted, advice) from error
