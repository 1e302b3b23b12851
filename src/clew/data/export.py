"""Training data as rows that other trainers read, in the column formats of TRL, with tokens and provenance beside.

| From | Columns | TRL |
|---|---|---|
| `Solution` | `prompt`, `completion` | SFT |
| `Solution` judged | `prompt`, `completion`, `label` | KTO |
| `Pair` | `prompt`, `chosen`, `rejected` | DPO |
| `StepLabels` | `prompt`, `completions`, `labels` | stepwise supervision |
| `Action`, `Target` | `prompt`, `completion` or `completions`, and their numbers | none |

The further columns of a row are the exact tokens, the numbers behind it, and where it comes from: `run`, `stage`,
`strategy`, `tree`, `node`, `sample`, `problem`, `task`. All rows of a file have the same columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clew.core.errors import InvalidValue, UnknownName
from clew.core.types import Problem
from clew.data.expert import Solution
from clew.data.files import write_text_atomically
from clew.data.origin import Origin
from clew.data.pairs import Pair
from clew.data.parquet import arrow, read_parquet, write_parquet
from clew.data.search_data import Action
from clew.data.step_labels import StepLabels
from clew.data.targets import Target

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".parquet")


class Shown(NamedTuple):
    """A prompt and a completion in one of the two forms: both text, or both lists of messages."""

    prompt: Any
    completion: Any


Form = Callable[[Problem, str, str], Shown]
"""From a problem, the response so far and what is added to it."""


def conversation(problem: Problem, prefix: str, text: str) -> Shown:
    """Messages. A response so far is part of the completion: a chat template would end a message after it."""
    prompt = [{"role": message.role, "content": message.content} for message in problem.prompt]
    return Shown(prompt, [{"role": "assistant", "content": prefix + text}])


def plain(problem: Problem) -> str:
    """The prompt's messages as they are, each in lines of its own."""
    return "".join(f"{message.content}\n" for message in problem.prompt)


def as_text(render: Callable[[Problem], str] = plain) -> Form:
    """Text, with prompts as `render` gives them (a chat template, say) and the response so far after them."""

    def shown(problem: Problem, prefix: str, text: str) -> Shown:
        return Shown(render(problem) + prefix, text)

    return shown


def sft_rows(solutions: Iterable[Solution], form: Form = conversation) -> list[Row]:
    """`prompt`, `completion`."""
    return [{**_shown(form(one.problem, "", one.text)), **_of_solution(one)} for one in solutions]


def kto_rows(solutions: Iterable[Solution], form: Form = conversation) -> list[Row]:
    """`prompt`, `completion`, `label`: right or wrong; what could not be judged is left out."""
    return [
        {**_shown(form(one.problem, "", one.text)), "label": one.right, **_of_solution(one)}
        for one in solutions
        if one.right or one.wrong
    ]


def _of_solution(one: Solution) -> Row:
    return {
        "outcome": None if one.outcome is None else one.outcome.value,
        "value": one.value,
        "finished": one.finished,
        "completion_tokens": list(one.tokens),
        "completion_logprobs": _numbers(one.logprobs),
        "completion_sampled": None if one.learnt is None else list(one.learnt),
        "policy_version": one.policy_version,
        **_origin(one.origin, one.problem),
    }


def dpo_rows(pairs: Iterable[Pair], form: Form = conversation) -> list[Row]:
    """`prompt`, `chosen`, `rejected`."""
    rows = []
    for pair in pairs:
        prompt, chosen = form(pair.problem, pair.prefix_text, pair.chosen_text)
        rejected = form(pair.problem, pair.prefix_text, pair.rejected_text).completion
        rows.append(
            {
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "margin": pair.margin,
                "chosen_value": pair.chosen_value,
                "rejected_value": pair.rejected_value,
                "chosen_visits": pair.chosen_visits,
                "rejected_visits": pair.rejected_visits,
                "prefix_tokens": list(pair.prefix),
                "chosen_tokens": list(pair.chosen),
                "rejected_tokens": list(pair.rejected),
                **_origin(pair.chosen_origin, pair.problem),
                "rejected_stage": pair.rejected_origin.stage,
                "rejected_tree": pair.rejected_origin.tree,
                "rejected_node": pair.rejected_origin.node,
                "rejected_sample": pair.rejected_origin.sample,
            }
        )
    return rows


def action_rows(actions: Iterable[Action], form: Form) -> list[Row]:
    """`prompt` (with the response so far), `completion` (the step), and what the search knew of it."""
    numbers = ("rollout", "prior", "visits", "value", "score", "returned", "best", "solutions", "finished", "depth")
    return [
        {
            **_shown(form(one.problem, one.prefix_text, one.text)),
            **{name: getattr(one, name) for name in numbers},
            "outcome": None if one.outcome is None else one.outcome.value,
            "prefix_tokens": list(one.prefix),
            "completion_tokens": list(one.tokens),
            "completion_logprobs": _numbers(one.logprobs),
            "policy_version": one.policy_version,
            **_origin(one.origin, one.problem),
        }
        for one in actions
    ]


def target_rows(targets: Iterable[Target], form: Form) -> list[Row]:
    """`prompt` (with the response so far), `completions` [A] and `probabilities` [A] of them, `value` of the state."""
    rows = []
    for one in targets:
        shown = [form(one.problem, one.prefix_text, text) for text in one.texts]
        rows.append(
            {
                "prompt": shown[0].prompt,
                "completions": [each.completion for each in shown],
                "probabilities": list(one.probabilities),
                "visits": list(one.visits),
                "value": one.value,
                "returned": one.returned,
                "prefix_tokens": list(one.prefix),
                "completions_tokens": [list(tokens) for tokens in one.actions],
                **_origin(one.origin, one.problem),
            }
        )
    return rows


def step_rows(
    labelled: Iterable[tuple[StepLabels, Origin]],
    render: Callable[[Problem], str] = plain,
    *,
    threshold: float = 0.5,
) -> list[Row]:
    """`prompt`, `completions` [S], `labels` [S]: true above `threshold`. Text in either form, as TRL has it.

    A solution ends before its first step without a label, because that format has no word for it; one that begins so
    gives no row.
    """
    rows = []
    for one, origin in labelled:
        known = next((at for at, label in enumerate(one.labels) if label is None), len(one.steps))
        values = [float(label) for label in one.labels[:known] if label is not None]
        if values:
            ids = None if one.tokens is None or one.spans is None else (one.tokens, one.spans[:known])
            rows.append(
                {
                    "prompt": render(one.problem),
                    "completions": list(one.steps[:known]),
                    "labels": [value > threshold for value in values],
                    "values": values,
                    "weights": list(one.weights[:known]),
                    "visits": list(one.visits[:known]),
                    "outcome": one.outcome,
                    "made": one.made,
                    "completions_tokens": None if ids is None else [list(ids[0][a:b]) for a, b in ids[1]],
                    **_origin(origin, one.problem),
                }
            )
    return rows


def _shown(shown: Shown) -> Row:
    return {"prompt": shown.prompt, "completion": shown.completion}


def _numbers(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def _origin(origin: Origin, problem: Problem) -> Row:
    names = ("run", "stage", "strategy", "tree", "node", "sample")
    return {**{name: getattr(origin, name) for name in names}, "problem": problem.id, "task": problem.task}


def check_suffix(path: Path) -> None:
    """Raises `UnknownName` for a file of another kind than JSON lines and Parquet, `MissingExtra` without pyarrow."""
    if path.suffix not in SUFFIXES:
        raise UnknownName(f"kind of file, {path}, with the ending", path.suffix, SUFFIXES)
    if path.suffix == ".parquet":
        arrow()


def save_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write `rows` to a .jsonl or .parquet file, replacing it as a whole. Messages stay lists of objects in both.

    Numbers that are not finite become null; halves of surrogate pairs, which are no text, become `?`.
    """
    check_suffix(path)
    rows = [_storable(row) for row in rows]
    if path.suffix == ".jsonl":
        write_text_atomically(path, "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows))
        return
    write_parquet(path, rows)


def _storable(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case list():
            return [_storable(one) for one in value]
        case dict():
            return {name: _storable(one) for name, one in value.items()}
        case _:
            return value


def load_rows(path: Path) -> list[Row]:
    """The rows that `save_rows` was given. Raises `InvalidValue` for a file that cannot be read as such."""
    check_suffix(path)
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return read_parquet(path)
    except (OSError, ValueError) as error:
        accepted = f"rows that clew wrote ({error})"
        raise InvalidValue("file of rows", str(path), accepted, "check the path, or write it again") from None
