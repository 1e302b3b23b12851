"""KTO (arXiv 2402.01306): single solutions that are desirable or not, of a run, a file or the policy's own samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, final

from clew.core.errors import InvalidValue
from clew.core.types import Group, Problem
from clew.data.distinct import by_chance, capped, without_duplicates
from clew.data.expert import Solution
from clew.data.pairs import Pair

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from clew.learn.batch import Example
    from clew.learn.guard import Limits
    from clew.learn.judging import JudgedExample, Noted
    from clew.recipes.learner import Learner
    from clew.recipes.preference_settings import Preference


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What goes on from a prompt and a response so far, and whether that is desirable."""

    problem: Problem
    prefix: tuple[int, ...] = ()
    """The response so far; it carries no loss."""
    tokens: tuple[int, ...]
    """The exact ids of what goes on, with the stop token if it ends there."""
    desirable: bool
    learnt: tuple[bool, ...] | None = None
    """Which of `tokens` the policy wrote; None: all of them."""


def judged_of_solutions(solutions: Iterable[Solution], *, cap: int | None, seed: int) -> list[Judged]:
    """Right ones are desirable, wrong ones are not, others are left out; at most `cap` of either kind a problem."""
    found = [
        Judged(problem=one.problem, tokens=one.tokens, desirable=one.right, learnt=one.learnt)
        for one in solutions
        if one.right or one.wrong
    ]
    return capped(
        _different(found),
        cap,
        problem=lambda one: (one.problem.id, one.desirable),
        rank=lambda one: by_chance(seed, one.problem.id, str(one.tokens)),
    ).rows


def judged_of_pairs(pairs: Iterable[Pair]) -> list[Judged]:
    """Both sides of every pair, each for itself."""
    found = []
    for pair in pairs:
        shared = {"problem": pair.problem, "prefix": pair.prefix}
        found.append(Judged(**shared, tokens=pair.chosen, desirable=True))  # type: ignore[arg-type]
        found.append(Judged(**shared, tokens=pair.rejected, desirable=False))  # type: ignore[arg-type]
    return _different(found)


def judged_of_groups(groups: Iterable[Group], *, cap: int | None, seed: int) -> list[Judged]:
    """The judged samples of `groups`, which need not hold right and wrong ones."""
    from clew.data.expert import solutions_of_groups

    return judged_of_solutions(solutions_of_groups(groups), cap=cap, seed=seed)


def judged_of_run(run: Path, settings: Preference, *, seed: int) -> list[Judged]:
    """The judged solutions of a finished run, or both sides of its pairs of steps where those are asked for."""
    from clew.recipes.data_rows import solutions_of
    from clew.recipes.data_sources import Source
    from clew.recipes.preference_data import pairs_of_run

    if settings.level == "step":
        pairs = pairs_of_run(run, level="step", margin=settings.margin, cap=settings.pairs, seed=seed)
        return judged_of_pairs(pairs)
    source = Source(run=run)
    found = judged_of_solutions(solutions_of(source), cap=settings.pairs, seed=seed)
    kinds = {one.desirable for one in found}
    if len(kinds) < 2:
        what = "right" if kinds == {True} else "wrong" if kinds else "judged"
        given = f"only {what} ones" if kinds else f"no {what} one"
        advice = "search wider, or with another policy"
        if source.unjudged:
            advice = f"{source.unjudged} were never judged: clew data --what solutions --judge, then --data FILE"
        raise InvalidValue(f"solutions in {run}", given, "right and wrong ones", advice)
    return found


def judged_of_file(path: Path, learner: Learner) -> list[Judged]:
    """Rows of prompt, completion and label, as TRL's KTO reads them, or of pairs, whose sides stand each for itself.

    Exact tokens are used where a row has them (`completion_tokens`). Raises `InvalidValue` for what cannot be read.
    """
    from clew.data.export import load_rows
    from clew.recipes.preference_data import pair_of_row

    found: list[Judged] = []
    for at, row in enumerate(load_rows(path), 1):
        where = f"{path}, row {at}"
        if isinstance(row, dict) and "chosen" in row:
            found += judged_of_pairs([pair_of_row(row, where, learner)])
        else:
            found.append(_of_row(row, where, learner))
    if not found:
        raise InvalidValue(f"rows in {path}", 0, "at least one", "make some with clew data --what solutions")
    return _different(found)


def _of_row(row: Any, where: str, learner: Learner) -> Judged:
    from clew.recipes.preference_data import messages_of, tokens_of

    try:
        prompt, said, label = row["prompt"], row["completion"], row["label"]
    except (KeyError, TypeError):
        accepted = "rows with the columns prompt, completion and label"
        advice = "write the file with clew data --what solutions, or rename the columns"
        raise InvalidValue(where, sorted(row) if isinstance(row, dict) else row, accepted, advice) from None
    if not isinstance(label, bool):
        raise InvalidValue(f"label of {where}", label, "true (desirable) or false", "change the row")
    sampled = row.get("completion_sampled")
    exact = row.get("completion_tokens")
    return Judged(
        problem=Problem(str(row.get("problem") or where), str(row.get("task") or ""), messages_of(prompt, where)),
        tokens=tokens_of(exact, said, where, learner),
        desirable=label,
        learnt=tuple(map(bool, sampled)) if exact and sampled else None,
    )


def judged_examples(
    settings: Preference, judged: Sequence[Judged], learner: Learner, reference: PreTrainedModel
) -> list[JudgedExample]:
    """`judged` as the model reads them, with log-probs of the reference, computed here once.

    After each prompt is also put the response to another one. Raises `InvalidValue` for what is longer than the
    model's context.
    """
    from clew.learn.batch import Example
    from clew.learn.judging import JudgedExample, balanced_weights, check_judged
    from clew.recipes.learner import check_fits
    from clew.reward.implicit import reference_logprobs

    prompts = [(*learner.prompt_ids(one.problem), *one.prefix) for one in judged]
    own = [
        Example(prompt_ids=prompt, response_ids=one.tokens, learnt=one.learnt)
        for prompt, one in zip(prompts, judged, strict=True)
    ]
    check_fits(own, learner.context)
    problems = [one.problem.id for one in judged]
    strays = [_fitting(prompt, own[next_of_another(problems, at)], learner) for at, prompt in enumerate(prompts)]
    known = reference_logprobs(reference, [*own, *strays])
    every = [replace(one, logprobs=_with_told(one, said)) for one, said in zip([*own, *strays], known, strict=True)]
    good, bad = balanced_weights([one.desirable for one in judged])
    good = good if settings.desirable is None else settings.desirable
    bad = bad if settings.undesirable is None else settings.undesirable
    found = [
        JudgedExample(response=response, desirable=one.desirable, weight=good if one.desirable else bad, stray=stray)
        for one, response, stray in zip(judged, every[: len(own)], every[len(own) :], strict=True)
    ]
    check_judged(found)
    return found


def next_of_another(problems: Sequence[str], at: int) -> int:
    """The next place with another problem, or the next one if all are the same.

    >>> next_of_another(["a", "a", "b"], 0), next_of_another(["a", "a"], 1)
    (2, 0)
    """
    count = len(problems)
    after = ((at + step) % count for step in range(1, count))
    return next((place for place in after if problems[place] != problems[at]), (at + 1) % count)


def _fitting(prompt: Sequence[int], other: Example, learner: Learner) -> Example:
    """The response of `other` after `prompt`, cut off where the context ends."""
    room = max(1, learner.context - len(prompt))
    learnt = None if other.learnt is None else other.learnt[:room]
    return replace(other, prompt_ids=prompt, response_ids=other.response_ids[:room], learnt=learnt)


def _with_told(example: Example, known: Sequence[float]) -> tuple[float, ...]:
    """`known` of the tokens that are learnt, and 0 for those that were told."""
    if example.learnt is None:
        return tuple(known)
    left = iter(known)
    return tuple(next(left) if own else 0.0 for own in example.learnt)


def kto_step(
    learner: Learner,
    optimizer: Any,
    rows: Sequence[JudgedExample],
    *,
    beta: float,
    **limits: Unpack[Limits],
) -> dict[str, float | None]:
    """One update; what to log of it."""
    from clew.learn.judging import loss_and_notes
    from clew.recipes.preference_learning import described

    point = reference_point(learner, rows)

    def loss_of(places: list[int]) -> tuple[Tensor, Noted]:
        part = [rows[place] for place in places]
        return loss_and_notes(learner.logprobs, part, point=point, beta=beta, responses_in_all=len(rows))

    update = learner.update(
        optimizer,
        [row.length for row in rows],
        loss_of,
        lambda noted: sum(one.loss for one in noted),
        **limits,
    )
    good = sum(row.desirable for row in rows)
    told = described(update, good=good, bad=len(rows) - good, rows=len(rows))
    return {**told, "desirable": good / len(rows), "reference_point": point}


def reference_point(learner: Learner, rows: Sequence[JudgedExample]) -> float:
    """max(0, mean log-ratio of responses put after other prompts), of the whole update."""
    import torch

    from clew.learn.preference import kto_reference_point
    from clew.recipes.cloning import logprob_sums

    strays = [row.stray for row in rows]
    reference = torch.tensor([sum(one.logprobs or ()) for one in strays])
    return kto_reference_point(logprob_sums(learner, strays) - reference).item()


def _different(judged: Sequence[Judged]) -> list[Judged]:
    return without_duplicates(judged, lambda one: (one.problem.id, one.prefix, one.tokens, one.desirable)).rows
