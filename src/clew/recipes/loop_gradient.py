"""Policy gradient on what a search found: whole solutions, or the steps of its trees."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clew.core.seeds import derive_seed

if TYPE_CHECKING:
    from clew.data.expert import Solution
    from clew.recipes.loop_learners import Learnt, Pupil
    from clew.recipes.loop_search import Found
    from clew.recipes.rl_credit import Lesson
    from clew.recipes.rl_learner import RLLearner


def reinforce(found: Found, pupil: Pupil) -> Learnt:
    """Policy gradient on D_search (roadmap, equation 4): a solution's reward above the mean of its problem's, or what a
    step is worth in the search's tree.

    The ratio of the clipped loss is to the log-probs under which the search sampled, so later updates of the round know
    how far the policy has moved. That a search did not draw its solutions independently is not corrected for.
    """
    from clew.learn.schedule import warmup_stable_decay
    from clew.recipes.loop_learners import Learnt, batches_of
    from clew.recipes.rl_algorithms import method_of
    from clew.recipes.rl_learner import make_learner
    from clew.recipes.rl_lessons import Lessons, Moment
    from clew.recipes.rl_settings import PolicyGradient
    from clew.recipes.rl_update import update

    settings, own = pupil.settings, pupil.own
    rng = random.Random(derive_seed(pupil.seed, "reinforce"))
    of_trees = None if settings.advantage == "solution" else settings.advantage
    gradient = PolicyGradient(**settings.rates("rl"), advantage=of_trees)
    learner = make_learner(gradient, method_of(gradient), own.policy, pupil.task, own=own)
    if of_trees is None:
        made = [_lessons(alike, place, pupil) for place, alike in enumerate(found.by_problem)]
    else:
        made = _tree_lessons(found, learner)
    groups = [lessons for lessons in made if lessons]
    batches = batches_of(groups, settings.rows, settings.epochs, rng)
    positions = 0
    for step, batch in enumerate(batches):
        lessons = [lesson for group in batch for lesson in group]
        tokens = sum(lesson.example.num_learnt for lesson in lessons)
        rate = warmup_stable_decay(step, total=len(batches), decay=len(batches) // 2)
        moment = Moment(step, pupil.seed, rate, pupil.checkpoint)
        done = update(learner, Lessons(lessons=lessons, tokens=tokens, sequences=len(lessons), account={}), moment)
        positions += sum(lesson.example.length for lesson in lessons)
        pupil.record(step, lr=rate, **done.metrics)
    return Learnt(rows=sum(map(len, groups)), updates=len(batches), positions=positions)


def _lessons(alike: Sequence[Solution], group: int, pupil: Pupil) -> list[Lesson]:
    """The solutions of one problem that teach something: none, if all their rewards are equal."""
    import torch

    from clew.learn.advantages import group_centred
    from clew.recipes.rl_credit import Lesson
    from clew.recipes.training_data import solution_example

    values = [one.value for one in alike if one.value is not None]
    advantages = group_centred(torch.tensor([values])).tolist()[0]
    lessons = []
    for one, advantage in zip(alike, advantages, strict=True):
        if one.logprobs is not None and advantage != 0.0:
            example = solution_example(one, pupil.own.prompt_ids)
            worth = torch.full((example.num_learnt,), advantage)
            lessons.append(Lesson(example=example, advantages=worth, group=group))
    return lessons


def _tree_lessons(found: Found, learner: RLLearner) -> list[list[Lesson]]:
    """What the steps of each tree teach, by its own values or by how the solutions below each node were judged."""
    from clew.recipes.rl_trees import lessons_of_tree, outcome_values
    from clew.reward.tree_labels import tree_values

    judged: dict[str, dict[int, float]] = {}
    for one in (one for alike in found.by_problem for one in alike):
        if one.origin.node is not None and one.value is not None:
            judged.setdefault(one.problem.id, {})[one.origin.node] = one.value
    made = []
    for place, tree in enumerate(found.trees):
        values = tree_values(tree)
        if len({value for value in values[1:] if value is not None}) < 2:
            values = outcome_values(tree, judged.get(tree.problem.id, {}))
        lessons = lessons_of_tree(learner, tree, learner.own.mode, group=place, values=values)
        made.append([lesson for lesson in lessons if lesson is not None and lesson.teaches])
    return made
