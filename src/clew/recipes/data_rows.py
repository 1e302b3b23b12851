"""How each kind of training data is made from a run: rows without duplicates, at most so many a problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from clew.core.errors import InvalidValue
from clew.data import export
from clew.data.checkpoint_files import resolve_checkpoint
from clew.data.distinct import by_chance, capped, without_duplicates
from clew.data.expert import RULES, Solution, expert, solutions_of_groups, solutions_of_tree
from clew.data.export import Form, Row
from clew.data.origin import Origin
from clew.data.pairs import Pair, pair_key, pairs_of_solutions, pairs_of_tree
from clew.data.search_data import Action, action_key, actions_of_groups, actions_of_tree
from clew.data.step_labels import StepLabels
from clew.data.targets import Target, visit_targets
from clew.data.tree_steps import MeasureOf, backed_up, best_known, guide_scores, outcomes
from clew.reward.tree_labels import RULES as LABEL_RULES
from clew.reward.tree_labels import labels_of_tree
from clew.search.tree import ROOT

if TYPE_CHECKING:
    from clew.core.types import Problem
    from clew.recipes.data import DataConfig, What
    from clew.recipes.data_sources import Source


class Made(NamedTuple):
    """Rows ready to be written, and what was dropped on the way to them."""

    rows: list[Row]
    duplicates: int = 0
    capped: int = 0


def search_rows(source: Source, config: DataConfig) -> Made:
    """D_search."""
    actions: list[Action] = []
    if source.has_trees:
        for one in source.trees():
            actions += actions_of_tree(one.tree, text=one.text, origin=one.origin, measure=measure_of(config))
    else:
        actions = actions_of_groups(source.groups(), run=str(source.run))
    different = without_duplicates(actions, action_key)
    kept = capped(
        different.rows,
        config.cap,
        problem=lambda one: one.problem.id,
        rank=lambda one: by_chance(config.seed, one.problem.id, str(one.prefix), str(one.tokens)),
    )
    return Made(export.action_rows(kept.rows, form_of(config, steps=True)), different.dropped, kept.dropped)


def solutions_of(source: Source) -> list[Solution]:
    """Every finished response of the run that was judged."""
    found: list[Solution] = []
    if source.has_trees:
        for one in source.trees():
            found += solutions_of_tree(one.tree, text=one.text, verdicts=one.verdicts, origin=one.origin)
    else:
        found = solutions_of_groups(source.groups(), run=str(source.run))
    return [one for one in found if one.right or one.wrong]


def expert_rows(source: Source, config: DataConfig) -> Made:
    """D_expert."""
    right = without_duplicates((one for one in solutions_of(source) if one.right), _solution_key)
    kept = expert(right.rows, rule=RULES[config.rule], cap=1 if config.cap is None else config.cap)
    return Made(export.sft_rows(kept.rows, form_of(config)), right.dropped, kept.dropped)


def solution_rows(source: Source, config: DataConfig) -> Made:
    """Judged solutions with their label."""
    different = without_duplicates(solutions_of(source), _solution_key)
    kept = capped(
        different.rows,
        config.cap,
        problem=lambda one: one.problem.id,
        rank=lambda one: by_chance(config.seed, one.problem.id, str(one.tokens)),
    )
    return Made(export.kto_rows(kept.rows, form_of(config)), different.dropped, kept.dropped)


def pair_rows(source: Source, config: DataConfig) -> Made:
    """Preference pairs."""
    steps = config.level != "solution" and source.has_trees
    if not steps:
        different = without_duplicates(solutions_of(source), _solution_key)
        every = pairs_of_solutions(different.rows, margin=config.margin)
        pairs = every
        if config.cap is not None:
            pairs = pairs_of_solutions(different.rows, margin=config.margin, cap=config.cap, seed=config.seed)
        return Made(export.dpo_rows(pairs, form_of(config)), different.dropped, len(every) - len(pairs))
    found: list[Pair] = []
    for one in source.trees():
        found += pairs_of_tree(
            one.tree,
            measure=measure_of(config),
            margin=config.margin,
            min_visits=config.min_visits,
            every=config.every,
            text=one.text,
            origin=one.origin,
        )
    distinct = without_duplicates(found, pair_key)
    kept = capped(
        distinct.rows,
        config.cap,
        problem=lambda pair: pair.problem.id,
        rank=lambda pair: (-pair.margin, by_chance(config.seed, pair.problem.id, str(pair.prefix), str(pair.chosen))),
    )
    return Made(export.dpo_rows(kept.rows, form_of(config)), distinct.dropped, kept.dropped)


def step_label_rows(source: Source, config: DataConfig) -> Made:
    """Solutions whose steps are labelled."""
    found: list[tuple[StepLabels, Origin]] = []
    for one in source.trees():
        labels = labels_of_tree(one.tree, one.text, LABEL_RULES[config.labels], made=f"tree {config.labels}")
        leaves = [leaf for leaf in one.tree.leaves() if leaf != ROOT]
        found += [(each, replace(one.origin, node=leaf)) for each, leaf in zip(labels, leaves, strict=True)]
    # As rows, because what differs after the last label is not in them.
    different = without_duplicates(
        export.step_rows(found, prompt_renderer(config)), lambda row: (row["problem"], *row["completions"])
    )
    kept = capped(
        different.rows,
        config.cap,
        problem=lambda row: row["problem"],
        rank=lambda row: by_chance(config.seed, row["problem"], *row["completions"]),
    )
    return Made(kept.rows, different.dropped, kept.dropped)


def target_rows(source: Source, config: DataConfig) -> Made:
    """Targets of policy and value."""
    found: list[Target] = []
    for one in source.trees():
        found += visit_targets(
            one.tree,
            temperature=config.temperature,
            min_visits=config.min_visits,
            text=one.text,
            origin=one.origin,
        )
    kept = capped(
        found,
        config.cap,
        problem=lambda target: target.problem.id,
        # The states that the search knows best.
        rank=lambda target: (-sum(target.visits), by_chance(config.seed, target.problem.id, str(target.prefix))),
    )
    return Made(export.target_rows(kept.rows, form_of(config, steps=True)), 0, kept.dropped)


MAKERS: dict[What, Callable[[Source, DataConfig], Made]] = {
    "search": search_rows,
    "expert": expert_rows,
    "solutions": solution_rows,
    "pairs": pair_rows,
    "steps": step_label_rows,
    "targets": target_rows,
}


def measure_of(config: DataConfig) -> MeasureOf:
    """What the values of steps are."""
    match config.values:
        case "backed-up":
            return backed_up
        case "guide":
            return guide_scores
        case "outcome":
            return outcomes
        case None:
            return best_known


def form_of(config: DataConfig, *, steps: bool = False) -> Form:
    """How prompts and completions are written."""
    form = config.form or ("text" if steps else "conversation")
    return export.conversation if form == "conversation" else export.as_text(prompt_renderer(config))


def prompt_renderer(config: DataConfig) -> Callable[[Problem], str]:
    """How the prompt of a problem is written as text."""
    if config.checkpoint is None:
        return export.plain
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_checkpoint(config.checkpoint))
    if not tokenizer.chat_template:
        accepted = "a checkpoint with a chat template"
        raise InvalidValue("--checkpoint", str(config.checkpoint), accepted, "leave it out for the prompts as they are")

    def rendered(problem: Problem) -> str:
        messages = [{"role": message.role, "content": message.content} for message in problem.prompt]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, mode=config.mode)
        return str(text)

    return rendered


def _solution_key(one: Solution) -> tuple[object, ...]:
    return (one.problem.id, one.problem.prompt, one.tokens)
