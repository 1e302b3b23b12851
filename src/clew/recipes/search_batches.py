"""Searches of a run directory, a batch of problems at a time: searched together, kept whole, gone on with after a stop.

searches/NNNN.jsonl   what the searches of a batch go on from     trees/NAME.json   the tree of a problem
stages/search-NNNN    its rows, once the batch is at its end      notes/NAME.json   texts and verdict, for the tree page
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from clew.core.cost import Budget, Cost
from clew.recipes.progress import Bar
from clew.recipes.progress import Progress as Bars
from clew.search import Progress, SearchInterrupted, SearchOutcome, SearchRecord, continue_searches
from clew.search.serve import Roles

if TYPE_CHECKING:
    from clew.core.protocols import Search
    from clew.core.types import Problem, Trajectory
    from clew.data.run import RunDirectory
    from clew.evaluate.memo import MemoJudge
    from clew.tasks import AnyTask

STAGE = "search"
SAVE_SECONDS = 30.0
"""Searches that are under way are saved this often, so that a kill loses no more."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every search of a run has in common."""

    strategy: Search
    guidance: str | None
    roles: Roles
    task: AnyTask
    budget: Budget
    seed: int
    together: int
    about: Mapping[str, Any]
    """Kept with the searches."""


def search_all(
    run: RunDirectory,
    setup: Setup,
    problems: Sequence[Problem],
    bars: Bars | None = None,
    name: str = STAGE,
) -> list[dict[str, Any]]:
    """Search all `problems`, `together` of them at once; one row a problem. `bars` shows it as its stage `name`.

    Batches that `run` has are not searched again, unless one of their searches failed.
    """
    batches = [problems[at : at + setup.together] for at in range(0, len(problems), setup.together)]
    done = {index: rows for index in range(len(batches)) if (rows := _finished(run, index)) is not None}
    _forget_unfinished(run, done, setup.together)
    left = sum(len(batch) for index, batch in enumerate(batches) if index not in done)
    if left:
        with (bars or Bars({name: 1.0})).stage(name, total=left) as bar:
            for index, batch in enumerate(batches):
                if index not in done:
                    done[index] = search_batch(run, setup, index, batch, bar)
    return [row for index in range(len(batches)) for row in done[index]]


def search_batch(
    run: RunDirectory, setup: Setup, index: int, problems: Sequence[Problem], bar: Bar
) -> list[dict[str, Any]]:
    """Search `problems` at once, put all that is known of them into `run`; goes on from what it has of them."""
    from clew.core.types import Group
    from clew.data.searches import load_records, save_searches
    from clew.data.store import TrajectoryStore
    from clew.evaluate.memo import MemoJudge

    path = run.path / "searches" / f"{index:04}.jsonl"
    path.parent.mkdir(exist_ok=True)
    records = load_records(path) if path.exists() else [SearchRecord(problem, setup.seed) for problem in problems]
    watch = Watch(setup, bar, path, records)
    judge = MemoJudge(setup.task)
    roles = Roles(setup.roles.policy, judge, setup.roles.scorer)
    try:
        outcomes = continue_searches(setup.strategy, records, roles, budget=setup.budget, on_round=watch)
    except SearchInterrupted as stop:
        save_searches(path, stop.outcomes, about=setup.about)
        raise
    save_searches(path, outcomes, about=setup.about)
    first = index * setup.together
    kept = [keep(run, setup, first + at, outcome, judge) for at, outcome in enumerate(outcomes)]
    with TrajectoryStore(run.store_path) as store:
        store.add(STAGE, [Group(answer.state.problem, (answer,)) for _, answer in kept if answer is not None])
    rows = [row for row, _ in kept]
    _log(run, first, rows)
    run.mark_done(_marker(index), {"rows": rows, "seconds": watch.seconds})
    watch.end()
    return rows


class Kept(NamedTuple):
    row: dict[str, Any]
    answer: Trajectory | None


def keep(run: RunDirectory, setup: Setup, index: int, outcome: SearchOutcome, judge: MemoJudge) -> Kept:
    """Judge what the search of problem `index` chose, which is not in its cost, and save its tree."""
    from clew.data.searches import save_tree
    from clew.evaluate.searched import judge_answer, node_of, row_of, trajectory_of
    from clew.report.tree_data import NOTES, TREES, TreeNotes, save_notes, step_texts

    policy, tree = setup.roles.policy, outcome.result.tree
    verdict = judge_answer(outcome, judge, policy)
    row = row_of(outcome, verdict)
    row |= {"name": name_of(index, outcome.problem), "difficulty": setup.task.difficulty(outcome.problem)}
    if tree is not None:
        notes = TreeNotes(
            texts=step_texts(tree, policy.text),
            chosen=node_of(tree, outcome.result.chosen),
            strategy=setup.strategy.name,
            guidance=setup.guidance,
            **{name: row[name] for name in ("outcome", "answer", "reason", "stop", "error", "cost")},
        )
        for room in (TREES, NOTES):
            (run.path / room).mkdir(exist_ok=True)
        save_tree(run.path / TREES / f"{row['name']}.json", tree)
        save_notes(run.path / NOTES / f"{row['name']}.json", notes)
    return Kept(row, trajectory_of(outcome, verdict, policy, strategy=setup.strategy.name, stage=STAGE))


def name_of(index: int, problem: Problem) -> str:
    """What the files of a problem are called.

    >>> from clew.core.types import Problem
    >>> name_of(7, Problem("countdown:3-5-7-11=24", "countdown", ()))
    '0007-countdown_3-5-7-11=24'
    """
    return f"{index:04}-{re.sub(r'[^A-Za-z0-9=+.-]+', '_', problem.id)[:60]}"


def seconds_of(run: RunDirectory) -> float:
    """What the batches of `run` took together, each in the call that brought it to its end."""
    return sum(run.stage_result(file.stem)["seconds"] for file in (run.path / "stages").glob(f"{STAGE}-*.json"))


@final
class Watch:
    """After every round of a batch: move the bar, and from time to time save what the searches go on from."""

    def __init__(self, setup: Setup, bar: Bar, path: Path, records: Sequence[SearchRecord]) -> None:
        self.setup, self.bar, self.path = setup, bar, path
        self.size, self.before = len(records), bar.done
        self.tokens = sum(record.cost.tokens_sampled for record in records)
        self.started = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def __call__(self, progress: Progress) -> None:
        cost = progress.cost
        spent = max(_shares_spent(self.setup.budget, cost), default=0.0)
        self._advance(max(self.size - progress.num_live, min(spent, 0.99 * self.size)), cost.tokens_sampled)
        if time.monotonic() - self.saved > SAVE_SECONDS:
            from clew.data.searches import save_records

            save_records(self.path, progress.records(), about=self.setup.about)
            self.saved = time.monotonic()

    def end(self) -> None:
        self._advance(self.size, self.tokens)

    def _advance(self, done: float, tokens: int) -> None:
        bar, new = self.bar, tokens - self.tokens
        self.tokens = tokens
        done = max(bar.done, self.before + done)
        # Nobody knows beforehand how long a search takes: as the pace so far has it, and before that as long again.
        bar.expected_seconds = bar.seconds * bar.total / done if done else 2.0 * bar.seconds
        bar.advance(done - bar.done, tokens=new)


def _shares_spent(budget: Budget, cost: Cost) -> Iterator[float]:
    """In problems: how many budgets `cost` would have used up, by each quantity that has a ceiling."""
    for most, spent in ((budget.tokens, cost.tokens), (budget.calls, cost.model_calls), (budget.seconds, cost.seconds)):
        if most is not None:
            yield spent / most


def _marker(index: int) -> str:
    return f"{STAGE}-{index:04}"


def _finished(run: RunDirectory, index: int) -> list[dict[str, Any]] | None:
    """The rows of a batch in which nothing is left to do."""
    if not run.stage_done(_marker(index)):
        return None
    rows: list[dict[str, Any]] = run.stage_result(_marker(index))["rows"]
    return None if any(row["error"] for row in rows) else rows


def _forget_unfinished(run: RunDirectory, done: Mapping[int, Sequence[Mapping[str, Any]]], together: int) -> None:
    """Metrics and answers of the batches that are done, and of no other, stay in `run`."""
    run.begin_stage(STAGE)
    for index in sorted(done):
        _log(run, index * together, done[index])
    if run.store_path.exists():
        from clew.data.store import TrajectoryStore

        ids = {row["problem"] for rows in done.values() for row in rows}
        with TrajectoryStore(run.store_path) as store:
            store.replace(STAGE, [group for group in store.groups(STAGE) if group.problem.id in ids])


def _log(run: RunDirectory, first: int, rows: Sequence[Mapping[str, Any]]) -> None:
    for step, row in enumerate(rows, first):
        told = {name: row[name] for name in ("problem", "outcome", "stop", "nodes")}
        run.log(STAGE, step=step, **told, **row["cost"])
