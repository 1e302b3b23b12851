"""STaR (arXiv 2203.14465): clone what came out right; where nothing did, ask again with the answer in the prompt.

A response that comes out right with the hint is cloned without it: a rationalisation. Each round starts from the
weights before the first, and learns from what the present policy wrote.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import Message, Problem, Trajectory

if TYPE_CHECKING:
    from clew.core.types import Group
    from clew.recipes.cloning import Lesson
    from clew.recipes.expert_iteration import ExpertIteration


@dataclass(frozen=True, slots=True, kw_only=True)
class Star:
    """Settings of --method star."""

    hint: str = " answer {answer}"
    """Put after the question of a problem that was not solved; {answer} is a right answer."""
    rationalise: bool = True
    """Whether to ask again with the hint."""

    def __post_init__(self) -> None:
        if "{answer}" not in self.hint:
            raise InvalidValue("hint", self.hint, "text that contains {answer}", "say where the answer stands")


def star(settings: ExpertIteration, own: Star, lesson: Lesson) -> None:
    """Train `lesson.learner` in place. Raises `InvalidValue` if the first round yields nothing to clone."""
    from clew.recipes.cloning import clone_solutions, drawn, ends_here, right_solutions, searched

    rng = random.Random(derive_seed(lesson.seed, "star"))
    start = lesson.learner.weights()
    updates = 0
    for number in range(settings.rounds):
        seed = derive_seed(lesson.seed, "star", number)
        groups = searched(settings, drawn(settings, lesson, rng), lesson, seed=seed)
        kept = right_solutions(groups, cap=1)
        solved = len(kept)
        if own.rationalise:
            kept += rationalised(settings, own, groups, lesson, seed=derive_seed(seed, "hint"))
        if ends_here(kept, lesson, number):
            break
        lesson.learner.restore(start)
        shown = {"solved": solved / len(groups), "rationalised": (len(kept) - solved) / len(groups)}
        updates += clone_solutions(settings, kept, lesson, rng, updates=updates, **shown)


def rationalised(
    settings: ExpertIteration, own: Star, groups: Sequence[Group], lesson: Lesson, *, seed: int
) -> list[Trajectory]:
    """The shortest right solution with a hint of each problem of which no sample was right, posed without it."""
    from clew.recipes.cloning import right_solutions, searched

    unsolved = [group.problem for group in groups if not any(t.verdict.right for t in group.trajectories)]
    if not unsolved:
        return []
    asked = [hinted(problem, own.hint, lesson.task.gold(problem)) for problem in unsolved]
    told = searched(settings, asked, lesson, seed=seed, keep=False)
    return [
        replace(found, state=replace(found.state, problem=problem))
        for problem, group in zip(unsolved, told, strict=True)
        for found in right_solutions([group], cap=1)
    ]


def hinted(problem: Problem, hint: str, answer: str) -> Problem:
    """`problem` with a right answer after its question.

    >>> p = Problem("p", "t", (Message("user", "make 24 from 3 8"),))
    >>> hinted(p, " answer {answer}", "3 * 8").prompt[-1].content
    'make 24 from 3 8 answer 3 * 8'
    """
    *before, last = problem.prompt
    told = Message(last.role, last.content + hint.replace("{answer}", answer))
    return replace(problem, prompt=(*before, told))
