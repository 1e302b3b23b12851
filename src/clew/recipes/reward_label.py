"""Label the steps of solutions: by roll-outs of a policy, from the trees of a search, or as people rated them.

Roadmap section 4.1. Roll-outs are searches like any other, so they are batched, metered, saved and gone on with.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from clew.core.errors import InvalidValue

if TYPE_CHECKING:
    from clew.core.protocols import Policy, Prompt, Search
    from clew.core.types import Completion, Sampling, State
    from clew.data.run import RunDirectory
    from clew.data.step_labels import StepLabels
    from clew.recipes.search_batches import Setup
    from clew.search.tree import Tree
    from clew.tasks import AnyTask

EXAMPLES = """
clew reward label --checkpoint runs/first --method omega-prm --problems 100 --out runs/labels
clew reward label --checkpoint runs/first --method monte-carlo --k 8 --labels hard --out runs/labels --json
clew reward label --method tree --source runs/mcts --labels rest --out runs/labels
clew reward label --method human --source phase2_train.jsonl --skip-bad --out runs/labels
"""
LABELS, STEPWISE = "labels", "stepwise"
Method = Literal["monte-carlo", "omega-prm", "tree", "human"]
Labels = Literal["soft", "hard", "interpolated", "implied", "rest"]


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Label the steps of solutions, for a process reward model to learn from."""

    out: Path
    """Run directory to write: labels, and the same as prompt, completions and labels for other trainers."""
    method: Method = "omega-prm"
    """omega-prm: binary search of the first wrong step. monte-carlo: roll-outs from every step. tree: from the trees of
    a run of clew search, --source. human: a file in PRM800K format, --source."""
    checkpoint: str | None = None
    """For roll-outs: run directory or checkpoint of clew's, Hugging Face directory, GGUF file, or URL#MODEL."""
    source: Path | None = None
    """For tree: run directory of clew search. For human: a file in PRM800K format."""
    labels: Labels | None = None
    """soft: the value, from 0 to 1. hard: 1 where it is above 0. interpolated, implied: also for steps that were not
    measured, on the line between two that were, or as follows from them. rest: values of ReST-MCTS*. Left out: implied
    for omega-prm, else soft."""
    task: str = "countdown"
    """Task and its settings: NAME or NAME:setting=value,..."""
    split: Literal["train", "validation", "test"] = "train"
    """Which problems."""
    problems: int = 50
    """How many problems."""
    solutions: int = 4
    """Solutions sampled for each of them."""
    k: int = 8
    """Roll-outs from a prefix."""
    searches: int = 16
    """omega-prm: most roll-outs of a problem that are searched for their first wrong step."""
    step_ends: tuple[str, ...] | None = None
    r"""What ends a step; \n is a new line. Left out: a new line, or = in sums of clew's small models."""
    temperature: float = 1.0
    """Sampling temperature."""
    max_tokens: int = 288
    """Most tokens of a solution; a roll-out has what its prefix leaves of them."""
    mode: Literal["think", "direct"] = "think"
    """Whether the model may try, check and retry, or answers with one derivation."""
    budget_tokens: int | None = None
    """Most tokens a problem, sampled and read."""
    together: int = 8
    """How many problems are labelled at once; what is kept after a stop is that of so many."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    """Kind of file that the labels are written to."""
    skip_bad: bool = False
    """human: skip rows that cannot be read, and count them."""
    seed: int = 0
    """Every random draw derives from it; the problems too."""
    resume: bool = False
    """Go on with the roll-outs in --out."""
    overwrite: bool = False
    """Delete the run that is in --out first."""
    json: bool = False
    """Print the summary as one JSON object instead of a table."""


CONFIG = LabelConfig


def label(config: LabelConfig) -> int:
    """`clew reward label`: write labels.jsonl, stepwise.jsonl and summary.json; exit status."""
    _check(config)
    match config.method:
        case "human":
            labels, told = human_labels(config)
            return _finish(config, _open(config), labels, told)
        case "tree":
            labels = source_labels(config)
            return _finish(config, _open(config), labels, {})
        case "monte-carlo" | "omega-prm":
            return _roll_out(config)


main = label


def _roll_out(config: LabelConfig) -> int:
    from clew.core.seeds import derive_seed
    from clew.recipes.search_batches import search_all, seconds_of
    from clew.tasks import make_task

    task = make_task(config.task)
    problems = task.problems(config.split, config.problems, derive_seed(config.seed, "labels"))
    run = _open(config) if config.out.exists() or config.resume else None
    setup = set_up(config, task)
    run = _open(config) if run is None else run
    try:
        rows = search_all(run, setup, problems)
    except KeyboardInterrupt:
        kept = labels_of_run(run.path, config, setup.roles.policy.text)
        _write(run, config, kept)
        print(f"\nclew: interrupted\n  kept in {run.path}: labels of {len(kept)} solutions", file=sys.stderr)
        print("  what to do: give the same command with --resume to go on from there", file=sys.stderr)
        return 128 + signal.SIGINT
    # Every roll-out is in these; the labels need no more than the trees.
    for file in (run.path / "searches").glob("*.jsonl"):
        file.unlink()
    failed = [row["error"] for row in rows if row["error"]]
    if failed:
        print(f"clew: {len(failed)} of {len(rows)} problems failed. The first: {failed[0]}", file=sys.stderr)
    labels = labels_of_run(run.path, config, setup.roles.policy.text)
    return max(int(len(failed) == len(rows)), _finish(config, run, labels, {"total_seconds": seconds_of(run)}))


def set_up(config: LabelConfig, task: AnyTask) -> Setup:
    """The policy and the search that measures, ready to run."""
    from clew.core.cost import Budget
    from clew.core.seeds import derive_seed
    from clew.core.types import Sampling
    from clew.recipes.search import EQUALS, NEWLINE, load_any_policy
    from clew.recipes.search_batches import Setup
    from clew.recipes.stage import resolved
    from clew.search.serve import Roles

    assert config.checkpoint is not None
    policy = load_any_policy(config.checkpoint)
    ends = config.step_ends
    if ends is None:
        from clew.models.policy import LocalPolicy

        small = isinstance(policy, LocalPolicy) and task.name in ("countdown", "arithmetic")
        ends = (EQUALS,) if small else (NEWLINE,)
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens, mode=config.mode)
    return Setup(
        strategy=strategy_of(config, sampling, tuple(end.replace("\\n", NEWLINE) for end in ends if end)),
        guidance=None,
        roles=Roles(WithoutLogProbs(policy), task),
        task=task,
        budget=Budget(tokens=config.budget_tokens),
        seed=derive_seed(config.seed, "labels"),
        together=config.together,
        about=resolved(config),
    )


def strategy_of(config: LabelConfig, sampling: Sampling, ends: tuple[str, ...]) -> Search:
    """The search that measures."""
    from clew.reward.label_tree import Solutions
    from clew.reward.monte_carlo import MonteCarlo
    from clew.reward.omega_prm import OmegaPrm

    solutions = Solutions(n=config.solutions, sampling=sampling, step_ends=ends)
    if config.method == "omega-prm":
        return OmegaPrm(k=config.k, searches=config.searches, solutions=solutions)
    return MonteCarlo(k=config.k, solutions=solutions)


@final
@dataclass(frozen=True, slots=True)
class WithoutLogProbs:
    """A policy whose completions are kept without log-probs: labels need none, and they are most of what is saved."""

    policy: Policy

    @property
    def version(self) -> str:
        return self.policy.version

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [replace(completion, logprobs=None) for completion in self.policy.sample(prompts, sampling)]

    def text(self, state: State) -> str:
        return self.policy.text(state)

    def encode(self, text: str) -> tuple[int, ...]:
        return self.policy.encode(text)


def labels_of_run(path: Path, config: LabelConfig, text: Callable[[State], str] | None = None) -> list[StepLabels]:
    """Labels of every tree in the run directory `path`; without `text`, that of the notes beside the trees."""
    from clew.data.searches import load_tree
    from clew.report.tree_data import NOTES, TREES, load_notes

    found = []
    for file in sorted((path / TREES).glob("[!.]*.json")):
        tree = load_tree(file)
        found += labels_of(tree, text or noted_text(tree, load_notes(path / NOTES / file.name).texts, file), config)
    return found


def labels_of(tree: Tree, text: Callable[[State], str], config: LabelConfig) -> list[StepLabels]:
    """Labels of one tree, as `config.labels` says."""
    from clew.reward.tree_labels import RULES, labels_of_tree, rest_labels_of_tree

    name = config.labels or ("implied" if config.method == "omega-prm" else "soft")
    made = f"{config.method} {name}" + ("" if config.method == "tree" else f" k={config.k}")
    if name == "rest":
        return rest_labels_of_tree(tree, text, made=made)
    return labels_of_tree(tree, text, RULES[name], made=made)


def noted_text(tree: Tree, texts: Sequence[str], file: Path) -> Callable[[State], str]:
    """The text of a tree's states, from what each node adds. Raises `InvalidValue` if that was not kept."""
    if len(texts) != len(tree):
        accepted = "a tree with its notes, as clew search writes them"
        raise InvalidValue(f"texts beside {file}", len(texts), accepted, "search again with clew search")
    whole: dict[int, str] = {}
    for node, (state, parent) in enumerate(zip(tree.states, tree.parent, strict=True)):
        whole[id(state)] = (whole[id(tree.states[parent])] if parent >= 0 else "") + texts[node]
    return lambda state: whole[id(state)]


def source_labels(config: LabelConfig) -> list[StepLabels]:
    """Labels of the trees of a run of clew search."""
    from clew.report.tree_data import TREES

    assert config.source is not None
    if not (config.source / TREES).is_dir():
        accepted = "a run directory of clew search"
        raise InvalidValue("--source", str(config.source), accepted, "search first: clew search ... --out RUN")
    return labels_of_run(config.source, config)


def human_labels(config: LabelConfig) -> tuple[list[StepLabels], dict[str, Any]]:
    """Labels that people gave, and how many rows were skipped."""
    from clew.data.prm800k import read_prm800k

    assert config.source is not None
    read = read_prm800k(config.source, skip_bad=config.skip_bad)
    return read.rows, {"skipped": len(read.bad)}


def _check(config: LabelConfig) -> None:
    for name in ("problems", "solutions", "k", "searches", "max_tokens", "together"):
        if getattr(config, name) < 1:
            raise InvalidValue(name, getattr(config, name), "an integer of at least 1", "raise it")
    needed = "source" if config.method in ("tree", "human") else "checkpoint"
    if getattr(config, needed) is None:
        accepted = f"what {config.method} labels are made from"
        raise InvalidValue(f"--{needed}", None, accepted, f"give --{needed}, or choose another --method")
    if not 0.0 <= config.temperature < math.inf:
        raise InvalidValue("temperature", config.temperature, "a finite number of at least 0", "use 1")


def _open(config: LabelConfig) -> RunDirectory:
    from clew.data.run import RunDirectory
    from clew.recipes.stage import resolved

    return RunDirectory.create(config.out, resolved(config), resume=config.resume, overwrite=config.overwrite)


def _write(run: RunDirectory, config: LabelConfig, labels: Sequence[StepLabels]) -> Path:
    from clew.data.step_labels import save_labels, save_rows, stepwise_rows

    path = run.path / f"{LABELS}.{config.format}"
    save_labels(path, labels)
    save_rows(run.path / f"{STEPWISE}.{config.format}", stepwise_rows(labels))
    return path


def _finish(config: LabelConfig, run: RunDirectory, labels: Sequence[StepLabels], told: dict[str, Any]) -> int:
    from clew.data.files import jsonable
    from clew.recipes.label_summary import summarise, table
    from clew.report.html import write_report

    path = _write(run, config, labels)
    summary = {**summarise(config, labels), **told}
    run.write_json("summary.json", summary)
    report = write_report(run.path)
    if config.json:
        print(json.dumps(jsonable({**summary, "file": str(path)}), allow_nan=False))
    else:
        from rich.console import Console

        Console(highlight=False).print(table(summary, path))
        print(f"report: {report}")
    return 0
