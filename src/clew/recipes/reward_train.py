"""Train a reward of any kind on solutions that a policy samples, or on labels of steps, and measure it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.recipes.process_reward import NAME, ProcessRewardConfig, ProcessRewardSettings
from clew.recipes.reward_kinds import GenerativeSettings, ImplicitSettings, PreferenceSettings, Source

if TYPE_CHECKING:
    from clew.core.protocols import Policy
    from clew.data.run import RunDirectory
    from clew.data.step_labels import StepLabels
    from clew.recipes.reward_fit import Learner
    from clew.recipes.stage import Stage
    from clew.tasks import AnyTask

EXAMPLES = """
clew reward train --checkpoint runs/first --out runs/prm
clew reward train --checkpoint runs/first --out runs/prm --settings.problems 4000 --json
clew reward train --kind process --labels labels.jsonl --checkpoint runs/first --out runs/prm
clew reward train --kind outcome --checkpoint runs/first --out runs/orm
clew reward train --kind implicit --implicit.beta 0.1 --checkpoint runs/first --out runs/prime
"""
HELD_OUT_SHARE = 10
"""One in so many problems of a file of labels is held out."""


@dataclass(frozen=True, kw_only=True)
class RewardTrainConfig:
    """Train a reward model on judged solutions that a policy samples, or on labels of steps, and measure it."""

    kind: Literal["process", "outcome", "preference", "implicit", "generative"] = "process"
    """process: how likely the end is right, after every token. outcome: whether a finished answer is right. preference:
    the same from pairs. implicit: rewards of tokens, from outcomes. generative: a judge that says yes or no."""
    checkpoint: Path
    """Checkpoint or run directory of the policy, or a Hugging Face directory."""
    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings."""
    labels: Path | None = None
    """process: learn from step labels instead of from outcomes: a run of clew reward label, or a file like its own."""
    settings: ProcessRewardSettings = field(default_factory=ProcessRewardSettings)
    preference: PreferenceSettings = field(default_factory=PreferenceSettings)
    implicit: ImplicitSettings = field(default_factory=ImplicitSettings)
    generative: GenerativeSettings = field(default_factory=GenerativeSettings)
    seed: int = 0
    """Every random draw derives from it."""
    overwrite: bool = False
    """Delete the run that is at --out."""
    json: bool = False
    """Print the measures as one JSON object instead of where the checkpoint is."""


CONFIG = RewardTrainConfig


def main(config: RewardTrainConfig) -> int:
    from clew.recipes.stage import check_teaches
    from clew.tasks import make_task

    _check(config)
    if config.labels is None:
        check_teaches(make_task(config.task))
    if config.kind == "process" and config.labels is None:
        return _process_from_outcomes(config)
    from clew.models.allocator import keep_freed_memory
    from clew.recipes.process_reward import sampled, validation
    from clew.recipes.reward_run import measured_run
    from clew.recipes.search import load_any_policy

    started = time.perf_counter()
    keep_freed_memory()
    task = make_task(config.task)
    policy: Any = load_any_policy(str(config.checkpoint))

    def work(run: RunDirectory, stage: Stage) -> dict[str, Any]:
        fitted, learner = train(config, policy, task, stage)
        save(learner, source_tokenizer(policy), run)
        learnt_in = stage.seconds
        problems = validation(config.settings, task, config.seed)[1]
        groups = sampled(config.settings, policy, task, problems, config.settings.measured_samples, config.seed, stage)
        measured = measure(run, groups, policy, config)
        return {"kind": config.kind, "learning_seconds": learnt_in, **fitted, **measured}

    return measured_run(config, NAME, work, started=started)


def train(config: RewardTrainConfig, policy: Any, task: AnyTask, stage: Stage) -> tuple[dict[str, float], Learner]:
    """A trained reward of the kind that `config` asks for, and its losses."""
    from clew.recipes import reward_kinds
    from clew.recipes.reward_fit import fit

    source = source_of(config, policy, task, stage)
    match config.kind:
        case "process":
            assert config.labels is not None
            learner = reward_kinds.process(source, *read_labels(config.labels, config.seed))
        case "outcome":
            learner = reward_kinds.outcome(source)
        case "preference":
            learner = reward_kinds.preference(source, config.preference)
        case "implicit":
            learner = reward_kinds.implicit(source, config.implicit)
        case "generative":
            learner = reward_kinds.generative(source, config.generative)
    rng = random.Random(derive_seed(config.seed, "reward order"))
    return fit(learner, config.settings, rng=rng, stage=stage), learner


def source_of(config: RewardTrainConfig, policy: Any, task: AnyTask, stage: Stage) -> Source:
    """The policy, and what it wrote for training problems and held-out ones; nothing where labels are given."""
    from clew.recipes.process_reward import sampled, say_if_equal, validation
    from clew.recipes.stage import training_problems
    from clew.reward.load import prompts

    settings, seed = config.settings, config.seed
    tokenizer = source_tokenizer(policy)
    groups: dict[str, Any] = {}
    if config.labels is None:
        problems = training_problems(task, seed)[: settings.problems]
        held_out = validation(settings, task, seed)[0]
        groups["train"] = sampled(settings, policy, task, problems, settings.samples, seed, stage)
        say_if_equal([t.reward.value for group in groups["train"] for t in group.scored], stage)
        groups["held_out"] = sampled(settings, policy, task, held_out, settings.samples, seed, stage)
    return Source(
        model=policy.model,
        tokenizer=tokenizer,
        prompt_ids=prompts(tokenizer, settings.mode),
        mode=settings.mode,
        seed=seed,
        **groups,
    )


def source_tokenizer(policy: Any) -> Any:
    """The tokenizer of a policy whose weights are here. Raises `InvalidValue` for one that is far away."""
    from clew.models.policy import LocalPolicy
    from clew.models.transformers_policy import TransformersPolicy

    if isinstance(policy, LocalPolicy):
        return policy.codec.tokenizer
    if isinstance(policy, TransformersPolicy):
        return policy.tokenizer
    accepted = "a model whose weights are here: a run directory, a checkpoint or a Hugging Face directory"
    raise InvalidValue("--checkpoint", type(policy).__name__, accepted, "download the model's weights first")


def read_labels(path: Path, seed: int) -> tuple[list[StepLabels], list[StepLabels]]:
    """Labels to learn from, and those of about a tenth of the problems, which are held out."""
    from clew.data.step_labels import load_labels

    train: list[StepLabels] = []
    held_out: list[StepLabels] = []
    for labels in load_labels(_file_of(path)).rows:
        chosen = derive_seed(seed, "held out", labels.problem.id) % HELD_OUT_SHARE == 0
        (held_out if chosen else train).append(labels)
    return train, held_out


def _file_of(path: Path) -> Path:
    """`path`, or the file of labels in the run directory `path`."""
    if path.is_dir():
        return next((file for suffix in ("jsonl", "parquet") if (file := path / f"labels.{suffix}").is_file()), path)
    return path


def save(learner: Learner, tokenizer: Any, run: RunDirectory) -> None:
    """Commit the checkpoint: weights, tokenizer, what kind of reward it is, and for an implicit one its reference."""
    from clew.models.checkpoint import save_checkpoint
    from clew.reward.load import REFERENCE, write_card

    with run.writing_checkpoint(NAME) as directory:
        save_checkpoint(learner.model, tokenizer, directory)
        write_card(directory, learner.card)
        if learner.reference is not None:
            save_checkpoint(learner.reference, tokenizer, directory / REFERENCE)


def measure(run: RunDirectory, groups: Sequence[Any], policy: Policy, config: RewardTrainConfig) -> dict[str, Any]:
    """What the checkpoint in `run`, loaded as a guide loads it, makes of `groups`; draws `reliability.svg`."""
    from clew.recipes.reward_measures import measure_scorer
    from clew.reward.load import load_reward

    measured = measure_scorer(load_reward(run.checkpoint_path(NAME)), groups, policy, seed=config.seed)
    draw_reliability(run.path, measured)
    return measured


def draw_reliability(directory: Path, measured: dict[str, Any]) -> None:
    """`reliability.svg`: predicted against observed shares of right solutions."""
    from clew.data.files import write_text_atomically
    from clew.report.reliability import reliability
    from clew.stats.calibration import CalibrationBin

    bins = [CalibrationBin(**b) for b in measured["calibration"]]
    write_text_atomically(directory / "reliability.svg", reliability("Right against predicted", bins))


def _process_from_outcomes(config: RewardTrainConfig) -> int:
    from clew.recipes import process_reward

    shared = {f.name: getattr(config, f.name) for f in fields(ProcessRewardConfig)}
    status = process_reward.main(ProcessRewardConfig(**shared))
    told = json.loads((config.out / "summary.json").read_text(encoding="utf-8"))
    draw_reliability(config.out, told["stages"][-1])
    return status


def _check(config: RewardTrainConfig) -> None:
    """Refuse what no stage can work with, and settings that the kind does not use."""
    from clew.recipes.stage import check_settings

    check_settings(config.settings, config.preference, config.implicit, config.generative)
    if config.implicit.beta <= 0.0:
        raise InvalidValue("--implicit.beta", config.implicit.beta, "a number above 0", "use 0.05, as PRIME does")
    plain = ProcessRewardSettings()
    unused = {
        "preference": config.preference != PreferenceSettings(),
        "implicit": config.implicit != ImplicitSettings(),
        "generative": config.generative != GenerativeSettings(),
    }
    for kind, given in unused.items():
        if given and kind != config.kind:
            raise InvalidValue(f"--{kind}.*", "given", f"only with --kind {kind}", "leave it out, or change the kind")
    if config.kind != "process":
        for name in ("end_weight", "kept"):
            if getattr(config.settings, name) != getattr(plain, name):
                option = f"--settings.{name.replace('_', '-')}"
                raise InvalidValue(option, getattr(config.settings, name), "only with --kind process", "leave it out")
    if config.labels is not None:
        if config.kind != "process":
            raise InvalidValue("--labels", str(config.labels), "only with --kind process", "leave it out")
        if not _file_of(config.labels).is_file():
            accepted = "a run of clew reward label, or a file of step labels (.jsonl or .parquet)"
            raise InvalidValue("--labels", str(config.labels), accepted, "make one with clew reward label")
