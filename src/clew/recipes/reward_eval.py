"""Measure a learned reward of any kind on solutions of held-out problems: order, calibration, V*, choice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.core.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

EXAMPLES = """
clew reward eval --guide runs/prm --checkpoint runs/first
clew reward eval --guide runs/orm --checkpoint runs/first --task countdown:count=5 --problems 400 --json
"""
RULES = {
    "first": "the first solution",
    "mean-logprob": "the likeliest under the policy",
    "majority-vote": "the most frequent answer",
    "best-of-n": "the highest reward",
    "weighted-vote": "the answer of the highest sum of rewards",
    "any": "a perfect choice",
}


@dataclass(frozen=True, kw_only=True)
class RewardEvalConfig:
    """Measure a reward model of any kind on what a policy writes for held-out problems."""

    guide: Path
    """Run directory or checkpoint of the reward model; it says itself what kind it is."""
    checkpoint: str
    """The policy whose solutions are scored: run directory, checkpoint or Hugging Face directory."""
    task: str = "countdown"
    """Task and its settings."""
    problems: int = 200
    """How many problems."""
    samples: int = 16
    """Solutions a problem, of which the reward chooses one."""
    split: Literal["train", "validation", "test"] = "test"
    """Which problems; those of test are never trained on."""
    mode: Literal["think", "direct"] = "think"
    """Whether solutions may try, check and retry, or are one derivation."""
    temperature: float = 1.0
    """Sampling temperature."""
    max_tokens: int = 288
    """Most tokens of a solution."""
    seed: int = 0
    """Every random draw derives from it."""
    out: Path | None = None
    """New directory for measures.json and reliability.svg."""
    json: bool = False
    """Print the measures as one JSON object instead of a table."""


CONFIG = RewardEvalConfig


def main(config: RewardEvalConfig) -> int:
    from clew.data.files import jsonable, write_json_atomically
    from clew.recipes.reward_train import draw_reliability

    _check(config)
    measured = {**_told(config), **evaluate(config)}
    if config.out is not None:
        config.out.mkdir(parents=True)
        write_json_atomically(config.out / "measures.json", jsonable(measured))
        draw_reliability(config.out, measured)
    if config.json:
        print(json.dumps(jsonable(measured), allow_nan=False))
    else:
        from rich.console import Console

        Console(highlight=False).print(table(measured))
    return 0


def evaluate(config: RewardEvalConfig) -> dict[str, Any]:
    """What the reward at `config.guide` makes of held-out solutions, and what scoring them took."""
    import time

    from clew.core.seeds import derive_seed
    from clew.core.types import Sampling
    from clew.data.checkpoint_files import resolve_checkpoint
    from clew.evaluate import sample_groups
    from clew.recipes.reward_measures import measure_scorer
    from clew.recipes.search import load_any_policy
    from clew.reward.load import load_reward
    from clew.tasks import make_task

    task = make_task(config.task)
    problems = task.problems(config.split, config.problems, derive_seed(config.seed, "held out"))
    scorer = load_reward(resolve_checkpoint(config.guide), mode=config.mode)
    policy = load_any_policy(config.checkpoint)
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens, mode=config.mode)
    groups = sample_groups(
        policy, task, problems, n=config.samples, sampling=sampling, seed=derive_seed(config.seed, "evaluation")
    )
    started = time.perf_counter()
    return {**measure_scorer(scorer, groups, policy, seed=config.seed), "seconds": time.perf_counter() - started}


def table(measured: Mapping[str, Any]) -> Table:
    """One screen: how the reward orders, whether it is calibrated, and what choosing by it is worth."""
    from rich import box
    from rich.table import Table

    from clew.report.data import rate
    from clew.report.words import with_interval

    title = f"{measured['scorer']} on {measured['solutions']:,} solutions of {measured['problems']} problems"
    shown = Table(title=title, width=80, box=box.SIMPLE, title_justify="left", pad_edge=False)
    shown.add_column("", ratio=1)
    shown.add_column("", justify="right", no_wrap=True)
    shown.add_row("solutions that are right", f"{measured['base_rate']:.3f}")
    for depth, value in measured["auc"].items():
        shown.add_row(f"AUC after {float(depth):.0%} of a solution", f"{value:.3f}")
    shown.add_row("calibration error at the end", f"{measured['calibration_error']:.3f}")
    if exact := measured["exact_value"]:
        limit = f"(at most {exact['spearman_limit']:.3f})"
        shown.add_row("agreement with V*: Spearman", f"{exact['spearman']:.3f} {limit}")
        shown.add_row("agreement with V*: AUC", f"{exact['auc']:.3f}")
    shown.add_section()
    shown.add_row("[dim]right answers, 95 % interval, choosing[/dim]", "")
    for rule, label in RULES.items():
        known = rate(measured["choosing"].get(rule))
        shown.add_row(label, "-" if known is None else with_interval(known))
    return shown


def _told(config: RewardEvalConfig) -> dict[str, Any]:
    told = asdict(config)
    for elsewhere in ("out", "json", "problems"):
        del told[elsewhere]
    return {**told, "guide": str(config.guide)}


def _check(config: RewardEvalConfig) -> None:
    for name in ("problems", "samples"):
        if getattr(config, name) < 1:
            raise InvalidValue(f"--{name}", getattr(config, name), "an integer of at least 1", "raise it")
    if config.out is not None and config.out.exists():
        raise InvalidValue("--out", str(config.out), "a directory that does not exist yet", "choose another name")
