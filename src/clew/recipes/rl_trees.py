"""Lessons from search trees: a step's advantage is what its value differs by from where it was taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clew.recipes.rl_algorithms import Method
from clew.recipes.rl_credit import Lesson
from clew.recipes.rl_learner import RLLearner, logprobs_under
from clew.recipes.rl_lessons import Lessons
from clew.recipes.rl_rollouts import Rollouts
from clew.reward.tree_labels import tree_values

if TYPE_CHECKING:
    from torch import Tensor

    from clew.learn.batch import Example
    from clew.search.tree import Tree


def tree_lessons(learner: RLLearner, rollouts: Rollouts) -> Lessons:
    """One lesson a leaf of each tree, in which every step is learnt once, or in every leaf's with tree-root."""
    from dataclasses import replace

    lessons: list[Lesson] = []
    account = dict.fromkeys(("unscored", "masked", "without_advantage", "learnt"), 0)
    tokens = 0
    for place, (outcome, mode) in enumerate(zip(rollouts.trees, rollouts.modes, strict=True)):
        tree = outcome.result.tree
        if tree is None or len(tree) == 1:
            account["unscored"] += 1
            continue
        for lesson in lessons_of_tree(learner, tree, mode, group=place):
            if lesson is None:
                account["unscored"] += 1
                continue
            tokens += lesson.example.num_learnt
            account["learnt" if lesson.teaches else "without_advantage"] += 1
            if lesson.teaches:
                lessons.append(lesson)
    sequences = account["learnt"] + account["without_advantage"]
    if learner.method.kl != "none" and lessons:
        examples = [lesson.example for lesson in lessons]
        reference = logprobs_under(learner.reference, examples, learner.own.precision)
        lessons = [replace(lesson, reference=own) for lesson, own in zip(lessons, reference, strict=True)]
    return Lessons(lessons=lessons, tokens=tokens, sequences=sequences, account=account)


def lessons_of_tree(
    learner: RLLearner, tree: Tree, mode: str, *, group: int, values: Sequence[float | None] | None = None
) -> list[Lesson | None]:
    """A lesson for every leaf, None for a line that cannot be learnt from; `values` of nodes, left out the search's."""
    worth = node_advantages(learner.method, tree, tree_values(tree) if values is None else values)
    shown: set[int] = set()
    lessons: list[Lesson | None] = []
    for leaf in tree.leaves():
        found = _path_lesson(learner, tree, leaf, worth, shown, mode)
        lessons.append(None if found is None else Lesson(example=found[0], advantages=found[1], group=group))
    return lessons


def outcome_values(tree: Tree, rewards: Mapping[int, float]) -> list[float | None]:
    """Mean reward of the responses that end below each node, for a tree that a search grew without values."""
    import torch

    from clew.learn.tree_advantages import leaf_means

    given = torch.tensor([rewards.get(node, math.nan) for node in range(len(tree))], dtype=torch.float64)
    means = leaf_means(given, torch.tensor(list(tree.parent)))
    return [None if math.isnan(mean) else mean for mean in means.tolist()]


def node_advantages(method: Method, tree: Tree, known: Sequence[float | None]) -> Tensor:
    """[N] of the step that led to each node, from values [N]; zero for the root and where a value is not known."""
    import torch

    from clew.learn.tree_advantages import above_parent, above_siblings, global_and_local

    values = torch.tensor([math.nan if value is None else value for value in known])
    parents = torch.tensor(list(tree.parent))
    match method.advantage:
        case "tree-parent":
            return above_parent(values, parents)
        case "tree-siblings":
            return above_siblings(values, parents)
        case "tree-root":
            return global_and_local(values, parents)
        case _:
            raise AssertionError(method.advantage)


def _path_lesson(
    learner: RLLearner, tree: Tree, leaf: int, worth: Tensor, shown: set[int], mode: str
) -> tuple[Example, Tensor] | None:
    """The response that ends at `leaf`; its steps that are new, or all of them, carry loss. Told text never does.

    None for a line that does not go on from step to step, but was written anew on the way.
    """
    import torch

    from clew.learn.batch import Example

    again = learner.method.advantage == "tree-root"
    ids: list[int] = []
    logprobs: list[float] = []
    learnt: list[bool] = []
    advantages: list[float] = []
    for node in tree.path(leaf)[1:]:
        completion, start = tree.completions[node], len(ids)
        if tree.states[node].tokens[:start] != tuple(ids):
            return None
        own = tree.states[node].tokens[start:]
        sampled = completion is not None and completion.tokens == own and completion.logprobs is not None
        flag = sampled and (again or node not in shown)
        ids += own
        logprobs += completion.logprobs if sampled and completion and completion.logprobs else [0.0] * len(own)
        learnt += [flag] * len(own)
        advantages += [float(worth[node])] * (len(own) if flag else 0)
        shown.add(node)
    prompt = learner.policy.prompt_ids(tree.problem, mode)
    example = Example(prompt_ids=prompt, response_ids=ids, logprobs=logprobs, learnt=learnt)
    return example, torch.tensor(advantages)
