"""Preference pairs of a run or of a file, and as examples that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.core.errors import InvalidValue
from clew.core.types import Message, Problem
from clew.data.pairs import Pair, ids_of, pair_key, pairs_of_groups, pairs_of_solutions, pairs_of_tree

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from clew.learn.preferring import PairExample
    from clew.recipes.learner import Learner

Level = Literal["step", "solution"]


def pairs_of_run(run: Path, *, level: Level | None, margin: float, cap: int | None, seed: int) -> list[Pair]:
    """Pairs of a finished run: of siblings in its trees, or of whole solutions; no two alike.

    Without `level`, of siblings if the run kept trees. Raises `InvalidValue` if there is no pair.
    """
    from clew.data.expert import solutions_of_tree
    from clew.data.tree_steps import best_known
    from clew.recipes.data_sources import Source

    source = Source(run=run)
    if level == "step" and not source.has_trees:
        accepted = "solution: this run kept trajectories, but no trees"
        raise InvalidValue("--settings.level", level, accepted, "search with a strategy that grows trees: clew search")
    found: list[Pair] = []
    if source.has_trees and level != "solution":
        for one in source.trees():
            of_tree = pairs_of_tree(one.tree, measure=best_known, margin=margin, text=one.text, origin=one.origin)
            found += sorted(of_tree, key=lambda pair: -pair.margin)[:cap]
    elif source.has_trees:
        for one in source.trees():
            solutions = solutions_of_tree(one.tree, text=one.text, verdicts=one.verdicts, origin=one.origin)
            found += pairs_of_solutions(solutions, margin=margin, cap=cap, seed=seed)
    else:
        found = pairs_of_groups(source.groups(), margin=margin, cap=cap, seed=seed, run=str(run))
    different = list({pair_key(pair): pair for pair in found}.values())
    if not different:
        accepted = "a run in which steps or solutions of one problem differ in value"
        raise InvalidValue(f"pairs in {run}", 0, accepted, "search wider, lower --settings.margin, or let it sample")
    return different


def pairs_of_file(path: Path, learner: Learner) -> list[Pair]:
    """Pairs of a file with the columns prompt, chosen and rejected, as clew data writes and TRL reads them.

    Exact tokens are used where a row has them (`chosen_tokens`), else its texts are read by the tokenizer and the
    stop token is put after them. Raises `InvalidValue` for a file without pairs, or with one that cannot be read.
    """
    from clew.data.export import load_rows

    pairs = [pair_of_row(row, f"{path}, row {at}", learner) for at, row in enumerate(load_rows(path), 1)]
    if not pairs:
        raise InvalidValue(f"pairs in {path}", 0, "at least one row", "make some with clew data --what pairs")
    return pairs


def pair_of_row(row: Any, where: str, learner: Learner) -> Pair:
    """The pair of one row; `where` names it in errors."""
    try:
        given = row["prompt"], row["chosen"], row["rejected"]
    except (KeyError, TypeError):
        accepted = "rows with the columns prompt, chosen and rejected"
        advice = "make pairs with clew data --what pairs, or rename the columns"
        if isinstance(row, dict) and "label" in row:
            advice = "single solutions with a label are what --settings.loss kto takes"
        raise InvalidValue(where, sorted(row) if isinstance(row, dict) else row, accepted, advice) from None
    prefix = tuple(row.get("prefix_tokens") or ())
    if prefix and isinstance(given[0], str):
        advice = "write the file again with --form conversation"
        raise InvalidValue(where, "a prompt as text that ends within a response", "a prompt of messages", advice)
    problem = Problem(str(row.get("problem") or where), str(row.get("task") or ""), messages_of(given[0], where))
    values = row.get("chosen_value"), row.get("rejected_value")
    known = all(isinstance(value, int | float) for value in values)
    return Pair(
        problem=problem,
        prefix=prefix,
        chosen=tokens_of(row.get("chosen_tokens"), given[1], where, learner),
        rejected=tokens_of(row.get("rejected_tokens"), given[2], where, learner),
        chosen_value=values[0] if known else 1.0,
        rejected_value=values[1] if known else 0.0,
        chosen_visits=int(row.get("chosen_visits") or 0),
        rejected_visits=int(row.get("rejected_visits") or 0),
    )


def messages_of(prompt: Any, where: str) -> tuple[Message, ...]:
    """A prompt as messages: a text is what the user says."""
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    try:
        return tuple(Message(turn["role"], turn["content"]) for turn in prompt)
    except (KeyError, TypeError):
        accepted = "text, or a list of messages with role and content"
        raise InvalidValue(f"prompt of {where}", prompt, accepted, "change the row") from None


def tokens_of(tokens: Any, said: Any, where: str, learner: Learner) -> tuple[int, ...]:
    """The exact tokens if there are any, else those of the text and the stop token."""
    size = learner.model.config.vocab_size
    if tokens:
        if any(not isinstance(token, int) or not 0 <= token < size for token in tokens):
            accepted = f"token ids below {size}, of the policy's own tokenizer"
            raise InvalidValue(
                f"tokens of {where}", "of another vocabulary", accepted, "leave the columns of tokens out"
            )
        return tuple(tokens)
    text = said if isinstance(said, str) else (messages_of(said, where)[-1].content if said else "")
    return (*learner.policy.encode(text), learner.end_id)


def examples_of(
    pairs: Sequence[Pair], learner: Learner, reference: PreTrainedModel | None, *, by_visits: float | None
) -> list[PairExample]:
    """`pairs` as the model reads them, with log-probs of the reference, computed here once.

    `by_visits` is the probability that a label is wrong; None takes that of each pair from its visits. Raises
    `InvalidValue` for a pair that is longer than the model's context.
    """
    from clew.learn.batch import Example
    from clew.learn.preferring import PairExample, check_pairs
    from clew.recipes.learner import check_fits
    from clew.reward.implicit import reference_logprobs

    ids = [ids_of(pair, learner.prompt_ids(pair.problem)) for pair in pairs]
    chosen = [Example(prompt_ids=one.prompt, response_ids=one.chosen) for one in ids]
    rejected = [Example(prompt_ids=one.prompt, response_ids=one.rejected) for one in ids]
    every = [*chosen, *rejected]
    check_fits(every, learner.context)
    if reference is not None:
        known = reference_logprobs(reference, every)
        every = [replace(example, logprobs=logprobs) for example, logprobs in zip(every, known, strict=True)]
    count = len(pairs)
    found = [
        PairExample(
            chosen=every[at],
            rejected=every[count + at],
            flipped=_uncertainty(pair) if by_visits is None else by_visits,
        )
        for at, pair in enumerate(pairs)
    ]
    check_pairs(found)
    return found


def _uncertainty(pair: Pair) -> float:
    """Share of the visits that the rejected step has of both's (arXiv 2405.00451); 0 for what was judged."""
    total = pair.chosen_visits + pair.rejected_visits
    return pair.rejected_visits / total if total else 0.0
