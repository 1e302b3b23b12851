"""What a loop poses and how it learns in its next round: a value that follows from the rounds that are done.

Nothing of it is stored: a resumed run folds the results of its finished rounds and is where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, final

from clew.core.seeds import derive_seed
from clew.recipes.loop_learners import LearnerName
from clew.scale.curriculum import Estimates, Tally, chosen, sampled_signal
from clew.scale.frontier import Frontier
from clew.scale.plateau import Measured, Plateau

if TYPE_CHECKING:
    from clew.core.types import Problem
    from clew.tasks import AnyTask

CANDIDATES = 4
"""A curriculum chooses from so many times the problems of a round."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Before a round: what is known of problems and settings, and whether cloning has flattened."""

    learner: LearnerName
    """What learns once cloning has flattened, or all along where there is no warm-up."""
    warm_up: bool = False
    """Whether it begins with cloning."""
    plateau: Plateau = field(default_factory=Plateau)
    curriculum: bool = False
    arms: tuple[str, ...] = ()
    """Tasks with their settings that the generator chooses from; none: the loop's own task alone."""
    frontier: Frontier | None = None
    estimates: Estimates = field(default_factory=Estimates)
    points: tuple[Measured, ...] = ()
    """pass@1 on held-out problems after so many updates of cloning."""
    flattened: bool = False

    @property
    def now(self) -> LearnerName:
        """What learns in the next round."""
        return "distill" if self.warm_up and not self.flattened else self.learner

    @property
    def watching(self) -> Plateau | None:
        """The trigger inside a round; None where the rounds' own pass@1 is what counts, or nothing is to happen."""
        waiting = self.warm_up and not self.flattened and self.plateau.of == "held-out-loss"
        return self.plateau if waiting else None

    def started(self, result: Mapping[str, Any]) -> Schedule:
        """After the first measurement, before any round."""
        return replace(self, points=(Measured(0, result["pass_at_1"]["mean"]),))

    def after(self, result: Mapping[str, Any]) -> Schedule:
        """After the round with this result, as it is kept in the run."""
        seen = {name: Tally(*tally) for name, tally in result["tallies"].items()}
        frontier = self.frontier
        if frontier is not None:
            frontier = frontier.after_round((arm, signal) for arm, signal in result["signals"])
        changed = replace(self, estimates=self.estimates.after_round(seen), frontier=frontier)
        if self.now != "distill" or not self.warm_up:
            return changed
        before = self.points[-1].updates if self.points else 0.0
        cloned = sum(part["updates"] for part in result["learnt"] if part["learner"] == "distill")
        points = self.points
        # A round that cloned nothing says nothing of cloning.
        if cloned:
            points = (*points, Measured(before + cloned, result["pass_at_1"]["mean"]))
        by_rounds = self.plateau.of == "pass-at-1" and self.plateau.fires(points)
        by_loss = any(part["flattened"] for part in result["learnt"])
        return replace(changed, points=points, flattened=by_rounds or by_loss)

    def posed(self, task: AnyTask, n: int, *, seed: int) -> Posed:
        """The `n` training problems of the next round (fewer, where there are no more), of every arm its share."""
        from clew.tasks import make_task

        tasks = [make_task(arm) for arm in self.arms] or [task]
        shares = [n] if self.frontier is None else self.frontier.shares(n, seed=seed)
        problems: dict[str, Problem] = {}
        arm_of: dict[str, int] = {}
        for arm, (source, share) in enumerate(zip(tasks, shares, strict=True)):
            wanted = CANDIDATES * share if self.curriculum else share
            drawn = {p.id: p for p in _training(source, wanted, derive_seed(seed, "posed", arm))}
            new = [name for name in drawn if name not in problems]
            for name in chosen(new, self.estimates, share, seed=seed) if self.curriculum else new:
                problems[name], arm_of[name] = drawn[name], arm
        return Posed(list(problems.values()), arm_of, shares)


@final
@dataclass(frozen=True, slots=True)
class Posed:
    """Problems of a round, and the place of the arm that posed each, by id."""

    problems: list[Problem]
    arm_of: dict[str, int]
    shares: list[int]

    def signals(self, tallies: Mapping[str, Tally]) -> list[tuple[int, float]]:
        """(arm, learning signal) of every problem that has two judged solutions or more."""
        found = [
            (self.arm_of[name], sampled_signal(round(tally.right), round(tally.judged)))
            for name, tally in tallies.items()
        ]
        return [(arm, signal) for arm, signal in found if signal is not None]


def mean_signal(signals: Sequence[tuple[int, float]]) -> float | None:
    """Over all problems; None if there is none."""
    return sum(signal for _, signal in signals) / len(signals) if signals else None


def _training(task: AnyTask, n: int, seed: int) -> list[Problem]:
    from clew.recipes.stage import count_problems

    most = count_problems(task, "train")
    return task.problems("train", n if most is None else min(n, most), seed)
