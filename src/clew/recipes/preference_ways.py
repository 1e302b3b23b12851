"""What a loss of preference learning learns from, and how: pairs, or single solutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clew.recipes.preference_settings import Preference, beta_of, objective_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from clew.core.types import Group
    from clew.learn.preferring import Objective
    from clew.recipes.learner import Learner


class Way(NamedTuple):
    """From data to updates; rows are pairs, or judged solutions."""

    rows: str
    """What they are called."""
    accepted: str
    """What a round must hold."""
    takes_reference: bool
    of_run: Callable[[Path, int], Sequence[Any]]
    """Of a run, with a seed."""
    of_file: Callable[[Path, Learner], Sequence[Any]]
    of_groups: Callable[[Sequence[Group], int], Sequence[Any]]
    """Of sampled groups, with a seed; empty where there is nothing to learn."""
    examples: Callable[[Sequence[Any], Learner, PreTrainedModel | None], Sequence[Any]]
    """With log-probs of the reference, which is not needed after this."""
    step: Callable[..., dict[str, float | None]]
    """One update on examples; what to log of it."""


def way_of(settings: Preference) -> Way:
    """The way of the loss that `settings` name."""
    objective = objective_of(settings)
    return kto_way(settings) if objective is None else pairs_way(settings, objective)


def pairs_way(settings: Preference, objective: Objective) -> Way:
    """All losses that compare."""
    from clew.data.pairs import pairs_of_groups
    from clew.recipes.preference_data import examples_of, pairs_of_file, pairs_of_run
    from clew.recipes.preference_learning import preference_step

    margin, cap = settings.margin, settings.pairs
    by_visits = None if settings.flipped == "visits" else settings.flipped
    return Way(
        rows="pairs",
        accepted="at least one pair: a problem of which some samples are right and some wrong",
        takes_reference=objective.takes_reference,
        of_run=lambda run, seed: pairs_of_run(run, level=settings.level, margin=margin, cap=cap, seed=seed),
        of_file=pairs_of_file,
        of_groups=lambda groups, seed: pairs_of_groups(groups, margin=margin, cap=cap, seed=seed),
        examples=partial(examples_of, by_visits=by_visits),
        step=partial(preference_step, objective=objective),
    )


def kto_way(settings: Preference) -> Way:
    """The loss that takes single solutions."""
    from clew.recipes.preference_kto import judged_examples, judged_of_file, judged_of_groups, judged_of_run, kto_step

    def of_groups(groups: Sequence[Group], seed: int) -> Sequence[Any]:
        found = judged_of_groups(groups, cap=settings.pairs, seed=seed)
        return found if len({one.desirable for one in found}) == 2 else []

    return Way(
        rows="solutions",
        accepted="at least one right and one wrong solution, of whichever problems",
        takes_reference=True,
        of_run=lambda run, seed: judged_of_run(run, settings, seed=seed),
        of_file=judged_of_file,
        of_groups=of_groups,
        examples=partial(judged_examples, settings),
        step=partial(kto_step, beta=beta_of(settings)),
    )
