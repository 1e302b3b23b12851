"""Preferences from what a search found: right against wrong solutions, or siblings in its trees."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from clew.core.seeds import derive_seed

if TYPE_CHECKING:
    from clew.data.pairs import Pair
    from clew.recipes.loop_learners import Learning, Learnt, Pupil
    from clew.recipes.loop_search import Found


def prefer(found: Found, pupil: Pupil) -> Learnt:
    """Direct preference optimisation of pairs from D_search (roadmap, equation 5), held to the round's first policy."""
    from clew.learn.guard import Limits
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.learner import reference_copy
    from clew.recipes.loop_learners import Learnt, batches_of
    from clew.recipes.preference_data import examples_of
    from clew.recipes.preference_learning import preference_step
    from clew.recipes.preference_settings import Preference, objective_of

    settings, own = pupil.settings, pupil.own
    rng = random.Random(derive_seed(pupil.seed, "prefer"))
    objective = objective_of(Preference(beta=settings.beta, clone_weight=settings.clone_weight))
    assert objective is not None
    pairs = pairs_of(found, settings, seed=pupil.seed)
    examples = examples_of(pairs, own, reference_copy(own), by_visits=0.0) if pairs else []
    batches = batches_of(examples, settings.rows, settings.epochs, rng)
    optimizer = own.optimizer(**settings.rates("dpo"))
    for step, batch in enumerate(batches):
        rate = warmup_stable_decay(step, total=len(batches), decay=len(batches) // 2)
        how: Limits = {"step": step, "multiplier": rate, "checkpoint": pupil.checkpoint}
        told = preference_step(own, optimizer, batch, objective=objective, **how)
        pupil.record(step, lr=rate, **told)
    positions = sum(pair.length for batch in batches for pair in batch)
    read = sum(pair.length for pair in examples)
    return Learnt(rows=len(pairs), updates=len(batches), positions=positions, read=read)


def pairs_of(found: Found, settings: Learning, *, seed: int) -> list[Pair]:
    """Preference pairs of the level that is asked for, at most `cap` of a problem."""
    from clew.data.distinct import capped
    from clew.data.pairs import pairs_of_solutions, pairs_of_tree
    from clew.data.tree_steps import best_known

    match settings.level:
        case "solution":
            return pairs_of_solutions(found.solutions, cap=settings.cap, seed=seed)
        case "step":
            pairs = [pair for tree in found.trees for pair in pairs_of_tree(tree, measure=best_known)]
            # The widest differences, which the search is surest of.
            return capped(pairs, settings.cap, problem=lambda p: p.problem.id, rank=lambda p: -p.margin).rows
