"""What a finished run holds that can be learnt from: its trees with their texts and verdicts, or its trajectories."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from clew.core.errors import InvalidValue, RunDirectoryError, UnknownName
from clew.core.task import Split, split_of
from clew.core.types import Group, Outcome, Problem, State, Verdict

if TYPE_CHECKING:
    from clew.data.origin import Origin
    from clew.evaluate.memo import MemoJudge
    from clew.search.tree import Tree

AnySplit = Literal["train", "validation", "test", "any"]
STORE = "trajectories.sqlite"
SEARCH_STAGE = "search"
ROUNDS = "searches"
"""Where a run of clew loop has its searches, each a run of clew search."""


@final
@dataclass(frozen=True, slots=True)
class SourceTree:
    """One tree of a run."""

    tree: Tree
    text: Callable[[State], str]
    verdicts: dict[int, Verdict]
    """Judgements beside those that the search was given."""
    origin: Origin


@final
@dataclass(kw_only=True)
class Source:
    """A run directory, read as training data; `seen` counts the problems of each split that were read."""

    run: Path
    split: AnySplit | None = None
    """Which problems; None: all that a search was given, or those for training of a run that also measured itself."""
    stage: str | None = None
    judge: bool = False
    """Whether the task judges finished responses that nobody has judged."""
    seen: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    """Problems of another split."""
    judged: int = 0
    """Responses that were judged now."""
    unjudged: int = 0
    """Finished responses without a judgement."""

    def __post_init__(self) -> None:
        if not self.run.is_dir() or not (self.has_trees or (self.run / STORE).exists()):
            what = "has neither trees nor trajectories" if self.run.is_dir() else "is no directory"
            accepted = "a run directory of clew search, loop, rl, distill or speedrun"
            advice = "search first: clew search --checkpoint RUN --split train --out RUN"
            raise RunDirectoryError(f"--run {self.run} {what}", accepted, advice)

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the run was started with; empty where it does not say."""
        path = self.run / "config.json"
        if not path.exists():
            return {}
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            accepted = "the configuration that the run wrote"
            raise RunDirectoryError(f"{path} is damaged: {error}", accepted, "restore it from a copy") from None
        return dict(value)

    @property
    def has_trees(self) -> bool:
        from clew.report.tree_data import TREES

        return any((self.run / TREES).glob("[!.]*.json")) or bool(self._rounds())

    def trees(self) -> Iterator[SourceTree]:
        """The trees of the run, one at a time, of the problems that are wanted; of a loop, those of all its rounds."""
        for run in self._rounds():
            found = Source(run=run, split=self.split, judge=self.judge, seen=self.seen)
            yield from found.trees()
            self.left_out += found.left_out
            self.judged += found.judged
            self.unjudged += found.unjudged
        yield from self._own_trees()

    def _rounds(self) -> list[Path]:
        """Runs of clew search in a run of clew loop."""
        from clew.report.tree_data import TREES

        return sorted(trees.parent for trees in self.run.glob(f"{ROUNDS}/[!.]*/{TREES}"))

    def _own_trees(self) -> Iterator[SourceTree]:
        from clew.data.origin import Origin
        from clew.data.searches import load_tree
        from clew.recipes.reward_label import noted_text
        from clew.report.tree_data import NOTES, TREES, load_notes

        known, judge = self._chosen_verdicts(), self._judge() if self.judge else None
        for file in sorted((self.run / TREES).glob("[!.]*.json")):
            tree = load_tree(file)
            if not self._wanted(tree.problem):
                continue
            notes = load_notes(self.run / NOTES / file.name)
            text = noted_text(tree, notes.texts, file)
            verdicts = self._verdicts(tree, text, known.get(tree.problem.id, {}), judge)
            # An answer that could not be judged now was still counted by a search that was guided by something else.
            tree.verdicts.update({at: one for at, one in verdicts.items() if one.outcome is not Outcome.UNSCORED})
            origin = Origin(run=str(self.run), stage=SEARCH_STAGE, strategy=notes.strategy, tree=file.stem)
            yield SourceTree(tree, text, verdicts, origin)

    def groups(self) -> Iterator[Group]:
        """The groups of the trajectory store, of the stage and the problems that are wanted."""
        from clew.data.store import TrajectoryStore

        if not (self.run / STORE).exists():
            return
        with TrajectoryStore(self.run / STORE) as store:
            stages = store.stages()
            if self.stage is not None and self.stage not in stages:
                raise UnknownName(f"stage of {self.run}", self.stage, stages)
            for stage in stages if self.stage is None else [self.stage]:
                for group in store.groups(stage):
                    if self._wanted(group.problem):
                        yield group

    def split_of(self, problem: Problem) -> Split:
        """The split of a problem: the one that the search was given, else what its id says."""
        given = self.config.get("split")
        if given in ("train", "validation", "test"):
            return given  # type: ignore[no-any-return]
        return "test" if problem.task == "humaneval" else split_of(problem.id)

    def _wanted(self, problem: Problem) -> bool:
        split = self.split_of(problem)
        wanted = self.split or ("any" if self.has_trees else "train")
        if wanted not in ("any", split):
            self.left_out += 1
            return False
        self.seen[split] += 1
        return True

    def _chosen_verdicts(self) -> dict[str, dict[int, Verdict]]:
        """Of each problem's answer, which is judged after the search: node and verdict."""
        from clew.data.store import TrajectoryStore

        found: dict[str, dict[int, Verdict]] = {}
        if (self.run / STORE).exists():
            with TrajectoryStore(self.run / STORE) as store:
                for group in store.groups(SEARCH_STAGE):
                    for one in group.trajectories:
                        if one.provenance.node is not None:
                            found.setdefault(group.problem.id, {})[one.provenance.node] = one.verdict
        return found

    def _judge(self) -> MemoJudge:
        from clew.evaluate.memo import MemoJudge
        from clew.tasks import make_task

        task = self.config.get("task")
        if not isinstance(task, str):
            accepted = "a run whose config.json names its task"
            raise InvalidValue(f"task of {self.run}", task, accepted, "leave --judge out")
        return MemoJudge(make_task(task))

    def _verdicts(
        self, tree: Tree, text: Callable[[State], str], known: dict[int, Verdict], judge: MemoJudge | None
    ) -> dict[int, Verdict]:
        found = {node: verdict for node, verdict in known.items() if node < len(tree) and node not in tree.verdicts}
        for node in tree.finished():
            if node in tree.verdicts or node in found:
                continue
            if judge is None:
                self.unjudged += 1
            else:
                found[node] = judge.verify(tree.problem, text(tree.states[node]))
                self.judged += 1
        return found
