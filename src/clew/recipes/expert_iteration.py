"""Expert iteration: search, keep the verified solutions, clone them, search with the better policy, and so on.

Roadmap section 6.1.2, equation 7; arXiv 1705.08439. Of a problem's solutions the shortest is kept: thinking that
wastes the least.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clew.core.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clew.core.types import Group, Problem
    from clew.models.trainable import Trainable
    from clew.recipes.learner import Learner
    from clew.recipes.stage import Stage
    from clew.tasks import AnyTask


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertIteration:
    """Settings of expert iteration."""

    rounds: int = 5
    """Each searches with the policy that the one before taught."""
    problems: int = 1024
    """Training problems searched a round."""
    samples: int = 4
    """Best-of-N with the verifier: N."""
    rows: int = 32
    """Solutions an update."""
    epochs: int = 2
    """Passes over the solutions kept."""
    lr_matrix: float = 0.005
    """Learning rate of hidden matrices (Muon)."""
    lr_other: float = 1e-3
    """Learning rate of embeddings and norms (AdamW)."""
    max_tokens: int = 176
    """Most tokens of a solution: the shorter, the more concise are the solutions that count."""
    mode: Literal["think", "direct"] = "think"
    """Whether solutions may try, check and retry, or are one derivation."""


def expert_iteration(  # noqa: PLR0913  who learns from what, by name
    settings: ExpertIteration,
    *,
    policy: Trainable,
    task: AnyTask,
    problems: Sequence[Problem],
    seed: int,
    stage: Stage,
    learner: Learner | None = None,
) -> None:
    """Train `policy`'s model in place on the shortest verified solution of each problem that the search solved.

    `learner` says how, if not by plain fine-tuning. A round that solves nothing changes nothing, and says so.
    """
    from clew.recipes.cloning import Lesson, drawn, searched
    from clew.recipes.learner import Learner

    learner = learner or Learner(policy, mode=settings.mode)
    lesson = Lesson(learner=learner, task=task, problems=problems, seed=seed, stage=stage)
    rng = random.Random(derive_seed(seed, "expert_iteration"))
    updates = 0
    for number in range(settings.rounds):
        own = derive_seed(seed, "expert_iteration", number)
        groups = searched(settings, drawn(settings, lesson, rng), lesson, seed=own)
        done = clone_shortest(settings, groups, learner, rng, stage=stage, updates=updates)
        if not done:
            print(f"{stage.name}: round {number + 1} has no right solution, so nothing was learnt", file=sys.stderr)
        updates += done
        learner.refresh()


def clone_shortest(
    settings: ExpertIteration,
    groups: Sequence[Group],
    learner: Learner,
    rng: random.Random,
    *,
    stage: Stage,
    updates: int,
) -> int:
    """Clone the shortest verified solution of each group that has one; how many updates that took after `updates`."""
    from clew.recipes.cloning import clone_examples, right_solutions, solution

    expert = right_solutions(groups, cap=1)
    examples = [solution(learner, trajectory) for trajectory in expert]
    return clone_examples(
        settings, examples, learner, rng, stage=stage, updates=updates, solved=len(expert) / len(groups)
    )
