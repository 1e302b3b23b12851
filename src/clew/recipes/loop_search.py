"""One round's search: a run of `clew search` inside the run of the loop, and what it found as data to learn from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from clew.core.types import FinishReason, Outcome
from clew.data.expert import Solution

if TYPE_CHECKING:
    from clew.core.protocols import Policy
    from clew.core.types import Problem
    from clew.recipes.progress import Progress
    from clew.recipes.search import SearchConfig
    from clew.recipes.search_batches import Setup
    from clew.scale.curriculum import Tally
    from clew.search.tree import Tree
    from clew.tasks import AnyTask


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """D_search of a round."""

    trees: list[Tree]
    """One a problem whose search grew one."""
    solutions: list[Solution]
    """Whole responses of all trees, judged, those that were cut off too."""
    tokens: int
    """What the search cost: sampled, read and scored."""
    seconds: float
    accuracy: float | None
    """Share of the searches' own answers that are right; None if none was judged."""

    @property
    def by_problem(self) -> list[list[Solution]]:
        """Solutions that were judged, of each problem that has any."""
        of: dict[str, list[Solution]] = {}
        for one in self.solutions:
            if one.outcome in (Outcome.RIGHT, Outcome.WRONG) and one.value is not None:
                of.setdefault(one.problem.id, []).append(one)
        return list(of.values())

    def tallies(self) -> dict[str, Tally]:
        """Right and judged solutions of each problem."""
        from clew.scale.curriculum import Tally

        return {
            alike[0].problem.id: Tally(float(sum(one.right for one in alike)), float(len(alike)))
            for alike in self.by_problem
        }


def search_round(
    config: SearchConfig, task: AnyTask, problems: Sequence[Problem], policy: Policy, progress: Progress, name: str
) -> Found:
    """Search `problems` with `policy` into the run `config.out`, or go on with it there; stage `name` of the bars."""
    from clew.data.run import RunDirectory
    from clew.data.searches import load_tree
    from clew.recipes.search import set_up, settings, summarise
    from clew.recipes.search_batches import search_all, seconds_of
    from clew.report.tree_data import TREES

    setup = set_up(config, task, policy)
    run = RunDirectory.create(config.out, settings(config), resume=config.out.exists())
    rows = search_all(run, setup, problems, progress, name)
    run.write_json("summary.json", summarise(run, setup, rows))
    failed = [row["error"] for row in rows if row["error"]]
    if failed:
        print(f"clew: {len(failed)} of {len(rows)} searches failed. The first: {failed[0]}", file=sys.stderr)
    trees = [load_tree(path) for path in sorted((run.path / TREES).glob("*.json"))]
    solutions = [one for tree in trees for one in judged_solutions(tree, setup, config, run.path)]
    judged = [row["outcome"] == Outcome.RIGHT for row in rows if row["outcome"] in (Outcome.RIGHT, Outcome.WRONG)]
    return Found(
        trees=trees,
        solutions=solutions,
        tokens=sum(row["cost"]["tokens"] for row in rows),
        seconds=seconds_of(run),
        accuracy=sum(judged) / len(judged) if judged else None,
    )


def judged_solutions(tree: Tree, setup: Setup, config: SearchConfig, run: Path) -> list[Solution]:
    """Whole responses of `tree`, each with the task's verdict: the search may have shown it none, or some of them.

    A response that was cut off at the most tokens of an answer is judged like others, as in `clew rl`.
    """
    from clew.data.expert import written_on
    from clew.data.origin import Origin
    from clew.evaluate.memo import numbered

    policy, task = setup.roles.policy, setup.task
    ends = [*tree.finished(), *(node for node in tree.leaves() if _cut_off(tree, node, config.max_tokens))]
    found = []
    for node in sorted(ends):
        state, last, written = tree.states[node], tree.completions[node], written_on(tree, node)
        text = policy.text(state)
        verdict = numbered(tree.verdicts.get(node) or task.verify(tree.problem, text))
        found.append(
            Solution(
                problem=state.problem,
                tokens=state.tokens,
                text=text,
                outcome=verdict.outcome,
                value=verdict.value,
                logprobs=written.logprobs,
                learnt=None if all(written.own) else written.own,
                finished=state.finished,
                policy_version="" if last is None else last.policy_version,
                origin=Origin(run=str(run), stage="search", strategy=setup.strategy.name, node=node),
            )
        )
    return found


def _cut_off(tree: Tree, node: int, max_tokens: int) -> bool:
    last: Any = tree.completions[node]
    ended_at_length = last is not None and last.finish is FinishReason.LENGTH
    return ended_at_length and len(tree.states[node].tokens) >= max_tokens
