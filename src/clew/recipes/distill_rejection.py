"""Cloning of all different right solutions: rejection-sampling fine-tuning once, or ReST-EM round after round.

RFT (arXiv 2308.01825): sample each problem many times, keep every distinct right solution, fine-tune once. ReST-EM
(arXiv 2312.06585): the same again with the policy that learnt, each time from the weights before the first, at most
so many solutions a problem, so that easy problems do not outvote hard ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clew.core.seeds import derive_seed

if TYPE_CHECKING:
    from clew.recipes.cloning import Lesson
    from clew.recipes.expert_iteration import ExpertIteration


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Settings of --method rft and rest-em."""

    cap: int | None = None
    """Most solutions of a problem, the shortest; left out: all for rft, 10 for rest-em as in its paper."""


def rest_em(settings: ExpertIteration, own: Rejection, lesson: Lesson) -> None:
    """Train `lesson.learner` in place. Raises `InvalidValue` if the first round yields nothing to clone."""
    from clew.recipes.cloning import clone_solutions, drawn, ends_here, right_solutions, searched

    rng = random.Random(derive_seed(lesson.seed, "rest-em"))
    start = lesson.learner.weights()
    updates = 0
    for number in range(settings.rounds):
        seed = derive_seed(lesson.seed, "rest-em", number)
        groups = searched(settings, drawn(settings, lesson, rng), lesson, seed=seed)
        kept = right_solutions(groups, cap=own.cap or 10)
        if ends_here(kept, lesson, number):
            break
        lesson.learner.restore(start)
        solved = len({t.state.problem.id for t in kept}) / len(groups)
        updates += clone_solutions(settings, kept, lesson, rng, updates=updates, solved=solved)


def rejection_sampling(settings: ExpertIteration, own: Rejection, lesson: Lesson) -> None:
    """Train `lesson.learner` in place, once. Raises `InvalidValue` if there is nothing to clone."""
    from clew.recipes.cloning import clone_solutions, drawn, right_solutions, searched

    rng = random.Random(derive_seed(lesson.seed, "rft"))
    groups = searched(settings, drawn(settings, lesson, rng), lesson, seed=derive_seed(lesson.seed, "rft", 0))
    kept = right_solutions(groups, cap=own.cap)
    solved = len({t.state.problem.id for t in kept}) / len(groups)
    clone_solutions(settings, kept, lesson, rng, updates=0, solved=solved)
