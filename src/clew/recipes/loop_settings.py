"""What a loop is told: its settings, what is refused before anything is written, and the search of each round."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.models.tuning import Tuning
from clew.recipes.loop_learners import Learning
from clew.scale.plateau import Plateau
from clew.tasks.generator import Agreement

if TYPE_CHECKING:
    from clew.recipes.loop_schedule import Schedule
    from clew.recipes.search import SearchConfig
    from clew.tasks import AnyTask

START = "start"
"""The stage that measures the policy before the first round."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Search, learn from what was found, measure, and again: a row a round, with what each part cost."""

    checkpoint: Path
    """Checkpoint or run directory to start from, a Hugging Face directory, or a GGUF file."""
    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings: what is measured, and what is posed unless --generate says otherwise."""
    strategy: str = "best-of-n:n=8"
    """Strategy and its settings, as clew search takes them."""
    guidance: str | None = None
    """What rates candidates; left out, it is the strategy's own."""
    guide: Path | None = None
    """Run directory or checkpoint of a reward model, for process-reward and learned-reward."""
    budget_tokens: int | None = None
    """Most tokens of a search, sampled, read and scored, a problem."""
    learner: Literal["distill", "rl", "dpo"] = "distill"
    """distill: clone the best solutions. rl: policy gradient on all of them. dpo: pairs of better and worse."""
    rounds: int = 3
    """How often to search and learn."""
    problems: int = 512
    """Training problems searched a round."""
    settings: Learning = field(default_factory=Learning)
    tuning: Tuning = field(default_factory=Tuning)
    schedule: bool = False
    """Clone first, and go over to --learner (rl or dpo) once cloning has flattened."""
    plateau: Plateau = field(default_factory=Plateau)
    curriculum: bool = False
    """Search the problems whose pass rate is likely to be near one half, as far as earlier rounds tell."""
    generate: str | None = None
    """Settings of the task to choose from, name=a|b|c,name=a|b: more is posed of those where the policy learns most."""
    mutate: int = 0
    """For a file of problems: so many questions a round are posed again with other numbers, if solutions agree."""
    agreement: Agreement = field(default_factory=Agreement)
    measure_problems: int = 300
    """Held-out problems to measure on."""
    measure_samples: int = 4
    """Samples of each: pass@1 and pass@k up to this k."""
    max_tokens: int = 240
    """Most tokens of an answer."""
    mode: Literal["think", "direct"] = "think"
    """Whether the model may try, check and retry, or answers with one derivation."""
    together: int = 64
    """How many problems are searched at once."""
    seed: int = 0
    """Every random draw derives from it."""
    resume: bool = False
    """Go on with the loop at --out, in the round where it stopped."""
    overwrite: bool = False
    """Delete the run that is at --out."""
    json: bool = False
    """Print summary.json on standard output."""


def names(config: LoopConfig) -> list[str]:
    """Of the stages that are rounds."""
    return [f"round-{number:02}" for number in range(1, config.rounds + 1)]


def search_name(name: str) -> str:
    """What the search of round `name` is called where progress is shown."""
    return f"{name} search"


def expected_seconds(config: LoopConfig) -> dict[str, float]:
    """Of every stage in order, for `Progress`, which needs only their ratios."""
    rounds = [stage for name in names(config) for stage in (search_name(name), name)]
    return {START: 1.0, **dict.fromkeys(rounds, 4.0)}


def first_schedule(config: LoopConfig, task: AnyTask) -> Schedule:
    """The schedule before anything is known. Raises `InvalidValue` for settings that no loop can work with."""
    from clew.recipes.loop_schedule import Schedule
    from clew.recipes.loop_texts import mutable
    from clew.recipes.search import NEWLINE, choose
    from clew.recipes.stage import check_settings, check_teaches
    from clew.scale.frontier import Frontier
    from clew.tasks import make_task
    from clew.tasks.generator import settings_grid

    check_settings(config.settings)
    choose(search_config(config, config.checkpoint, 1), (NEWLINE,))
    for name in ("rounds", "problems", "measure_problems", "measure_samples", "max_tokens", "together"):
        if getattr(config, name) < 1:
            raise InvalidValue(name, getattr(config, name), "an integer of at least 1", "raise it")
    if config.mutate < 0:
        raise InvalidValue("mutate", config.mutate, "an integer of at least 0", "raise it, or leave it out")
    if config.schedule and config.learner == "distill":
        advice = "add --learner rl or --learner dpo, or leave --schedule out"
        raise InvalidValue("--schedule with --learner", "distill", "what to go over to from cloning: rl or dpo", advice)
    if config.settings.advantage != "solution" and config.learner != "rl":
        advice = "add --learner rl, or leave it out"
        raise InvalidValue("--settings.advantage", config.settings.advantage, "only with --learner rl", advice)
    check_teaches(task)
    if config.mutate:
        mutable(task)
    arms = tuple(settings_grid(config.task, config.generate)) if config.generate is not None else ()
    for arm in arms:
        make_task(arm)
    return Schedule(
        learner=config.learner,
        warm_up=config.schedule,
        plateau=config.plateau,
        curriculum=config.curriculum,
        arms=arms,
        frontier=Frontier.over(len(arms)) if arms else None,
    )


def search_config(config: LoopConfig, checkpoint: Path, number: int) -> SearchConfig:
    """The search of a round, as `clew search` has it."""
    from clew.recipes.search import SearchConfig

    return SearchConfig(
        checkpoint=str(checkpoint),
        task=config.task,
        strategy=config.strategy,
        guidance=config.guidance,
        guide=config.guide,
        budget_tokens=config.budget_tokens,
        problems=config.problems,
        split="train",
        max_tokens=config.max_tokens,
        mode=config.mode,
        together=config.together,
        seed=derive_seed(config.seed, "search", number),
        out=config.out / "searches" / f"round-{number:02}",
    )
