"""V-STaR (arXiv 2402.06457): the right solutions of all rounds teach the policy, right and wrong ones a verifier.

The verifier is the last policy trained by DPO on pairs of a right and a wrong solution. It is saved beside the policy
as a reward of kind implicit, whose score is the log-ratio to the policy; the paper's own score is the verifier's
likelihood alone, which prefers short solutions.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clew.core.seeds import derive_seed

if TYPE_CHECKING:
    from clew.core.types import Group
    from clew.recipes.cloning import Lesson
    from clew.recipes.expert_iteration import ExpertIteration
    from clew.recipes.learner import Learner

VERIFIER = "verifier"
"""Name of the verifier's checkpoint in the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VStar:
    """Settings of --method v-star."""

    beta: float = 0.1
    """DPO's beta, and what the verifier's log-ratios are multiplied by."""
    pairs: int = 4
    """Most pairs of a problem that the verifier learns from, of all rounds together."""
    verifier_epochs: int = 1
    """Passes over the pairs."""


def v_star(settings: ExpertIteration, own: VStar, lesson: Lesson) -> None:
    """Train `lesson.learner` in place and save its verifier. Raises `InvalidValue` if the first round solves nothing.

    Without a problem that has right and wrong samples there is no verifier, and that is said; the policy is kept.
    """
    from clew.recipes.cloning import clone_solutions, drawn, right_solutions, searched

    rng = random.Random(derive_seed(lesson.seed, "v-star"))
    start = lesson.learner.weights()
    groups: list[Group] = []
    updates = 0
    for number in range(settings.rounds):
        seed = derive_seed(lesson.seed, "v-star", number)
        found = searched(settings, drawn(settings, lesson, rng), lesson, seed=seed)
        groups += found
        kept = list({(t.state.problem.id, t.completion.tokens): t for t in right_solutions(groups, cap=None)}.values())
        lesson.learner.restore(start)
        solved = len(right_solutions(found, cap=1)) / len(found)
        updates += clone_solutions(settings, kept, lesson, rng, updates=updates, solved=solved)
    lesson.learner.finish()
    verifier = verifier_of(settings, own, groups, lesson, rng, updates=updates)
    if verifier is not None:
        save_verifier(verifier, own, lesson)


def verifier_of(
    settings: ExpertIteration, own: VStar, groups: list[Group], lesson: Lesson, rng: random.Random, *, updates: int
) -> Learner | None:
    """A copy of the policy that learnt by DPO which solutions are right; the policy is its reference."""
    from clew.data.pairs import pairs_of_groups
    from clew.recipes.learner import copied
    from clew.recipes.preference_learning import learn
    from clew.recipes.preference_settings import Preference
    from clew.recipes.preference_ways import way_of

    pairs = pairs_of_groups(groups, cap=own.pairs, seed=lesson.seed)
    if not pairs:
        why = "no problem has right and wrong samples"
        print(f"{lesson.stage.name}: {why}, so there is no verifier; raise --settings.samples", file=sys.stderr)
        return None
    how = Preference(
        beta=own.beta,
        rows=settings.rows,
        epochs=own.verifier_epochs,
        lr_matrix=settings.lr_matrix / 5,
        lr_other=settings.lr_other / 5,
        mode=settings.mode,
    )
    verifier = copied(lesson.learner)
    way = way_of(how)
    examples = way.examples(pairs, verifier, lesson.learner.policy.model)
    learn(how, way, examples, verifier, rng, stage=lesson.stage, updates=updates)
    verifier.finish()
    return verifier


def save_verifier(verifier: Learner, own: VStar, lesson: Lesson) -> None:
    """Commit the checkpoint `verifier`, which any search takes as a guide."""
    from clew.models.checkpoint import save_checkpoint
    from clew.reward.load import REFERENCE, RewardCard, write_card

    with lesson.stage.run.writing_checkpoint(VERIFIER) as directory:
        save_checkpoint(verifier.policy.model, verifier.tokenizer, directory)
        write_card(directory, RewardCard(kind="implicit", mode=verifier.mode, beta=own.beta))
        save_checkpoint(lesson.learner.policy.model, verifier.tokenizer, directory / REFERENCE)
