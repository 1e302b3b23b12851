"""Export what a run found as training data: D_search, D_expert, preference pairs, step labels, targets of search.

Roadmap section 6. Files have the columns that TRL reads; `clew.data.export` lists them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.core.errors import InvalidValue, RunDirectoryError

if TYPE_CHECKING:
    from rich.table import Table

    from clew.recipes.data_rows import Made
    from clew.recipes.data_sources import Source

EXAMPLES = """
clew data --run runs/mcts --what pairs --margin 0.2 --min-visits 4 --out pairs.parquet
clew data --run runs/beam --what expert --judge --out expert.jsonl
clew data --run runs/rl --what solutions --cap 8 --out kto.parquet --json
clew data --run runs/loop --what search --judge --out d_search.parquet
clew data --run runs/mcts --what targets --form text --checkpoint runs/first --out targets.jsonl
"""
What = Literal["search", "expert", "solutions", "pairs", "steps", "targets"]
FROM_TREES = ("steps", "targets")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Write what a run found to one file that clew, TRL and others can learn from."""

    run: Path
    """Run directory of clew search or loop (trees), or of rl, distill or speedrun (trajectories)."""
    what: What
    """search: every state-action. expert: the best right solutions (SFT). solutions: all judged ones with their label
    (KTO). pairs: chosen and rejected (DPO). steps: steps with labels. targets: visit shares and value of a state."""
    out: Path
    """File to write: .jsonl or .parquet."""
    cap: int | None = None
    """Most rows a problem; left out, 1 for expert and no bound for others."""
    margin: float = 0.0
    """pairs: least difference in value."""
    level: Literal["step", "solution"] | None = None
    """pairs: siblings in a tree by their value, or right against wrong solutions. Left out: step if there are trees."""
    every: bool = False
    """pairs of steps: all siblings that differ enough; else the best against the worst of each node."""
    min_visits: int = 1
    """pairs of steps, targets: least visits of a step, or of all steps of a state."""
    values: Literal["backed-up", "guide", "outcome"] | None = None
    """search, pairs of steps: worth of a step as the search backed it up, as the guide scored it, or as the judged
    solutions below it ended. Left out: the first of these that the tree has."""
    rule: Literal["shortest", "rewarded", "likeliest"] = "shortest"
    """expert: which right solutions are the best."""
    labels: Literal["soft", "hard", "interpolated", "implied"] = "soft"
    """steps: a step is right if its value is above 0.5 (soft) or above 0 (hard); interpolated, implied: also steps that
    were not measured, as in clew reward label."""
    temperature: float = 1.0
    """targets: T of the shares N^(1/T); 0 is the most visited step alone."""
    form: Literal["conversation", "text"] | None = None
    """Messages, or plain text. Left out: conversation for solutions and pairs, text for others."""
    checkpoint: Path | None = None
    """text: render prompts with this checkpoint's chat template. Left out: the messages as they are."""
    mode: Literal["think", "direct"] = "think"
    """text with --checkpoint: the mode that its chat template is given."""
    split: Literal["train", "validation", "test", "any"] | None = None
    """Which problems. Left out: all that a search was given; of other runs, which also measure themselves, train."""
    stage: str | None = None
    """Which stage of a run without trees; left out, all."""
    judge: bool = False
    """Let the task judge finished solutions that the search did not show to it."""
    seed: int = 0
    """What a cap chooses among equals derives from it."""
    overwrite: bool = False
    """Replace the file that is at --out."""
    json: bool = False
    """Print the summary as one JSON object instead of a table."""


CONFIG = DataConfig
USED_BY: dict[str, tuple[What, ...]] = {
    "margin": ("pairs",),
    "level": ("pairs",),
    "every": ("pairs",),
    "min_visits": ("pairs", "targets"),
    "values": ("search", "pairs"),
    "rule": ("expert",),
    "labels": ("steps",),
    "temperature": ("targets",),
}
"""Options that only some kinds of rows have a use for."""


def main(config: DataConfig) -> int:
    from clew.data.export import save_rows
    from clew.data.files import jsonable
    from clew.recipes.data_rows import MAKERS
    from clew.recipes.data_sources import Source

    _check(config)
    source = Source(run=config.run, split=config.split, stage=config.stage, judge=config.judge)
    if not source.has_trees and (config.what in FROM_TREES or config.level == "step"):
        what = config.what if config.what in FROM_TREES else "pairs of steps"
        accepted = "search, expert, solutions or pairs of solutions: this run kept trajectories, but no trees"
        raise InvalidValue("--what", what, accepted, "search with a strategy that grows trees: clew search")
    for name, useless in (("stage", source.has_trees), ("judge", not source.has_trees)):
        if useless and getattr(config, name):
            kept = "trees" if source.has_trees else "trajectories, which were judged"
            raise InvalidValue(f"--{name}", getattr(config, name), f"nothing: this run has {kept}", "leave it out")
    made = MAKERS[config.what](source, config)
    if not made.rows:
        raise _nothing(source, config)
    save_rows(config.out, made.rows)
    summary = summarise(source, config, made)
    _warn(summary)
    if config.json:
        print(json.dumps(jsonable(summary), allow_nan=False))
    else:
        from rich.console import Console

        Console(highlight=False).print(table(summary))
    return 0


def summarise(source: Source, config: DataConfig, made: Made) -> dict[str, Any]:
    """What was written, and what was not."""
    return {
        "file": str(config.out),
        "run": str(config.run),
        "what": config.what,
        "from": "trees" if source.has_trees else "trajectories",
        "rows": len(made.rows),
        "problems": len({row["problem"] for row in made.rows}),
        "duplicates_dropped": made.duplicates,
        "dropped_by_cap": made.capped,
        "problems_of_other_splits": source.left_out,
        "judged_now": source.judged,
        "finished_without_judgement": source.unjudged,
        "problems_read": dict(source.seen),
        "columns": list(made.rows[0]),
    }


LABELS = {
    "rows": "rows",
    "problems": "problems that they are of",
    "duplicates_dropped": "duplicates dropped",
    "dropped_by_cap": "dropped by the cap",
    "problems_of_other_splits": "groups of other splits left out",
    "judged_now": "solutions judged now",
    "finished_without_judgement": "finished solutions that nobody judged",
}


def table(summary: dict[str, Any]) -> Table:
    """One screen: how many rows there are, and what was left out."""
    from rich import box
    from rich.table import Table

    title = f"{summary['what']} from the {summary['from']} of {summary['run']}: {summary['file']}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=False)
    for name, label in LABELS.items():
        if summary[name] or name in ("rows", "problems", "duplicates_dropped", "dropped_by_cap"):
            shown.add_row(label, f"{summary[name]:,}")
    if summary["finished_without_judgement"]:
        shown.add_row("", "to let the task judge them: --judge")
    shown.add_row("columns", ", ".join(summary["columns"]))
    return shown


def _check(config: DataConfig) -> None:
    from clew.data.export import check_suffix

    check_suffix(config.out)
    _check_uses(config)
    if not config.out.absolute().parent.is_dir():
        accepted = "a file in a directory that exists"
        raise RunDirectoryError(f"--out {config.out}: its directory does not exist", accepted, "make it first")
    if config.out.exists() and not config.overwrite:
        accepted = "a file that is not there yet"
        raise RunDirectoryError(f"--out {config.out} exists", accepted, "choose another, or give --overwrite")
    for name in ("cap", "min_visits"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise InvalidValue(name, value, "an integer of at least 1", "raise it")
    for name in ("margin", "temperature"):
        if not 0.0 <= getattr(config, name) < float("inf"):
            raise InvalidValue(name, getattr(config, name), "a finite number of at least 0", "change it")
    if config.what == "steps" and config.form == "conversation":
        accepted = "text, the only form that stepwise supervision has"
        raise InvalidValue("--form", config.form, accepted, "leave --form out")


def _check_uses(config: DataConfig) -> None:
    """No option is given that would change nothing."""
    for field in fields(config):
        users = USED_BY.get(field.name)
        value = getattr(config, field.name)
        if users is not None and config.what not in users and value != field.default:
            name = f"--{field.name.replace('_', '-')} for --what {config.what}"
            raise InvalidValue(name, value, f"this option for {' and '.join(users)}", "leave it out")


def _nothing(source: Source, config: DataConfig) -> InvalidValue:
    """Why there is no row, as an error."""
    name = f"rows of {config.what} in {config.run}"
    if not source.seen and source.left_out:
        accepted = f"problems of the split: {source.left_out} groups are of other splits"
        return InvalidValue(name, 0, accepted, "search or learn with --split train, or give --split any")
    outcomes = config.what in ("expert", "solutions") or config.level == "solution" or config.values == "outcome"
    if source.unjudged and outcomes:
        accepted = f"judged solutions: nobody judged {source.unjudged} finished ones"
        return InvalidValue(name, 0, accepted, "give --judge")
    match config.what:
        case "expert":
            accepted, advice = "a run with at least one right solution", "search longer, or with a better policy"
        case "solutions":
            accepted, advice = "a run with judged solutions", "search longer, so that some are finished"
        case "pairs":
            accepted = "steps or solutions of one problem that differ in value by the margin"
            advice = "lower --margin or --min-visits, give --level or --values, or search wider"
        case "steps":
            accepted = "trees in which the search backed up values"
            advice = "search by MCTS, or measure the steps of solutions: clew reward label"
        case "search" | "targets":
            accepted, advice = "trees with steps that were visited", "search by MCTS"
            advice = f"lower --min-visits, or {advice}" if config.min_visits > 1 else advice
    return InvalidValue(name, 0, accepted, advice)


def _warn(summary: dict[str, Any]) -> None:
    held_out: Sequence[str] = [split for split in summary["problems_read"] if split != "train"]
    if held_out:
        counts = ", ".join(f"{summary['problems_read'][split]} {split}" for split in sorted(held_out))
        print(f"clew: among these are problems to measure with, not to learn from: {counts}", file=sys.stderr)
        print("  what to do: search the training problems with --split train, or give --split train", file=sys.stderr)
