"""Strategies against each other on the same problems: accuracy for the tokens that each consumes, from small to large.

A strategy is given with `*` where its size goes (`majority-vote:n=*`), and with `@GUIDE` if it is guided. The first is
the baseline: of the others it is told how many tokens reach its best accuracy, and what they reach for as many tokens.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clew.core.errors import InvalidValue, RunDirectoryError

if TYPE_CHECKING:
    from rich.table import Table

    from clew.core.protocols import Policy, Scorer
    from clew.core.types import Problem
    from clew.recipes.progress import Bar
    from clew.recipes.search import SearchConfig
    from clew.search.specs import Chosen
    from clew.tasks import AnyTask

EXAMPLES = """
clew compare --checkpoint runs/first --strategies majority-vote:n=* best-of-n:n=*@mean-logprob
clew compare --checkpoint runs/first --guide runs/prm --strategies majority-vote:n=* best-of-n:n=*@process-reward
"""
STAGE = "compare"
CACHE_BYTES = 1 << 30
SIZE = "*"


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare search strategies on the same problems: accuracy against tokens, with intervals."""

    checkpoint: str
    """Run directory or checkpoint of the model."""
    guide: Path | None = None
    """Run directory of the reward model, for process-reward and learned-reward (of any kind)."""
    task: str = "countdown"
    """Task and its settings: NAME or NAME:setting=value,..."""
    strategies: tuple[str, ...] = ("majority-vote:n=*", "best-of-n:n=*@mean-logprob")
    """NAME:setting=value,...@GUIDE with * for the size; the first is the baseline."""
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """What * stands for, in turn."""
    problems: int = 300
    """How many problems."""
    split: Literal["train", "validation", "test"] = "test"
    """Which problems; those of test are never trained on."""
    max_tokens: int = 288
    """Most tokens of an answer."""
    max_step_tokens: int = 48
    """Most tokens of a step."""
    mode: Literal["think", "direct"] = "think"
    """Whether the model may try, check and retry, or answers with one derivation."""
    together: int = 64
    """How many problems are searched at once."""
    seed: int = 0
    """Every random draw derives from it; the problems too."""
    out: Path | None = None
    """JSON file to write the results to; it must not exist yet."""
    json: bool = False
    """Print the results as one JSON object instead of a table."""


CONFIG = CompareConfig


def main(config: CompareConfig) -> int:
    from clew.core.seeds import derive_seed
    from clew.data.environment import describe_environment
    from clew.data.files import jsonable, write_json_atomically
    from clew.recipes.progress import Progress
    from clew.recipes.search import load_any_policy
    from clew.tasks import make_task

    _check(config)
    task = make_task(config.task)
    problems = task.problems(config.split, config.problems, derive_seed(config.seed, "held out"))
    policy = load_any_policy(config.checkpoint)
    contests = list(contests_of(config))
    for name, size in contests:
        # Whatever can be refused is refused before the first of the searches.
        strategy_of(config, name, size, policy, task)
    rows: list[dict[str, Any]] = []
    with Progress({STAGE: 1.0}).stage(STAGE, total=len(contests) * len(problems)) as bar:
        for name, size in contests:
            rows.append(measure(config, name, size, policy, task, problems, bar))
    results = {
        "rows": rows,
        "against_baseline": against_baseline(rows),
        "settings": jsonable(asdict(config)),
        "machine": describe_environment(),
    }
    if config.out is not None:
        write_json_atomically(config.out, results)
    if config.json:
        print(json.dumps(jsonable(results), allow_nan=False))
    else:
        from rich.console import Console

        Console(highlight=False).print(table(rows, results["against_baseline"]))
    return 0


def contests_of(config: CompareConfig) -> Iterator[tuple[str, int]]:
    """Every strategy with every size; one without a size once."""
    for name in config.strategies:
        yield from ((name, size) for size in (config.sizes if SIZE in name else (0,)))


def measure(  # noqa: PLR0913  what to run on what
    config: CompareConfig,
    name: str,
    size: int,
    policy: Policy,
    task: AnyTask,
    problems: Sequence[Problem],
    bar: Bar,
) -> dict[str, Any]:
    """Accuracy and mean cost a problem of strategy `name` with `size`. The check of the answer is in nobody's cost."""
    from clew.core.cost import Cost
    from clew.core.seeds import derive_seed
    from clew.evaluate.memo import MemoJudge
    from clew.evaluate.searched import judge_answer
    from clew.models.policy import LocalPolicy
    from clew.search import StopReason, run_searches
    from clew.stats.intervals import wilson

    judge = MemoJudge(task)
    total, right, failed = Cost(), 0, 0
    for start in range(0, len(problems), config.together):
        batch = problems[start : start + config.together]
        if isinstance(policy, LocalPolicy):
            policy.remember(CACHE_BYTES)
        chosen, scorer = chosen_of(config, name, size, policy, task)
        seed = derive_seed(config.seed, "evaluation")
        outcomes = run_searches(chosen.strategy, batch, policy, task=judge, scorer=scorer, seed=seed)
        for outcome in outcomes:
            verdict = judge_answer(outcome, judge, policy)
            right += verdict is not None and verdict.right
            failed += outcome.stop is StopReason.FAILED
            total += outcome.cost
        bar.advance(len(batch), tokens=sum(outcome.cost.tokens_sampled for outcome in outcomes))
    means = {key: value / len(problems) for key, value in {**asdict(total), "tokens": total.tokens}.items()}
    print(f"{name} {size}: {right / len(problems):.3f} for {means['tokens']:.0f} tokens", file=sys.stderr)
    accuracy = wilson(right, len(problems)).as_dict()
    return {"strategy": name, "size": size, "accuracy": accuracy, "cost": means, "num_failed": failed}


def chosen_of(
    config: CompareConfig, name: str, size: int, policy: Policy, task: AnyTask
) -> tuple[Chosen, Scorer | None]:
    """The strategy of `name` and the guide behind its `@`."""
    from clew.recipes.search import load_scorer, sampling_of

    chosen, settings, ends = strategy_of(config, name, size, policy, task)
    return chosen, load_scorer(chosen, policy, task, sampling_of(settings, ends), guide=config.guide)


def strategy_of(
    config: CompareConfig, name: str, size: int, policy: Policy, task: AnyTask
) -> tuple[Chosen, SearchConfig, tuple[str, ...]]:
    """The strategy of `name`, the settings of its search, and what ends a step. Raises for what is no strategy."""
    from clew.recipes.search import choose, step_ends

    spec, _, guidance = name.replace(SIZE, str(size)).partition("@")
    settings = _search_config(config, spec, guidance or None)
    ends = step_ends(settings, task, policy)
    return choose(settings, ends), settings, ends


def _search_config(config: CompareConfig, spec: str, guidance: str | None) -> SearchConfig:
    from clew.recipes.search import SearchConfig

    return SearchConfig(
        checkpoint=config.checkpoint,
        task=config.task,
        strategy=spec,
        guidance=guidance,
        guide=config.guide,
        max_tokens=config.max_tokens,
        max_step_tokens=config.max_step_tokens,
        mode=config.mode,
        seed=config.seed,
        out=Path("nowhere"),
    )


def against_baseline(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each strategy but the first: the tokens that reach the first's best accuracy, and what as many tokens reach.

    `token_share` is None where no size reached it. `better` says whether the best accuracy for at most as many tokens
    as the baseline's best took is above it with intervals that do not overlap.
    """
    baseline = rows[0]["strategy"]
    best = max((r for r in rows if r["strategy"] == baseline), key=lambda r: (r["accuracy"]["mean"], -_tokens(r)))
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["strategy"] for row in rows):
        own = [row for row in rows if row["strategy"] == name]
        reached = [_tokens(row) for row in own if row["accuracy"]["mean"] >= best["accuracy"]["mean"]]
        affordable = [row for row in own if _tokens(row) <= _tokens(best)]
        top = max(affordable, key=lambda row: row["accuracy"]["mean"], default=None)
        if name != baseline:
            found[name] = {
                "token_share": min(reached) / _tokens(best) if reached else None,
                "at_equal_tokens": None if top is None else top["accuracy"],
                "better": top is not None and top["accuracy"]["low"] > best["accuracy"]["high"],
            }
    return found


def _tokens(row: Mapping[str, Any]) -> float:
    return float(row["cost"]["tokens"])


def table(rows: Sequence[Mapping[str, Any]], against: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row a strategy and size; what it takes to reach the baseline's best stands behind its last."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE, title="accuracy against tokens a problem", title_justify="left")
    shown.add_column("strategy", overflow="fold")
    shown.add_column("size", justify="right")
    shown.add_column("tokens", justify="right")
    shown.add_column("accuracy, 95 % interval", justify="right")
    for row in rows:
        rate = row["accuracy"]
        interval = f"{rate['mean']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})"
        shown.add_row(row["strategy"], str(row["size"] or ""), f"{row['cost']['tokens']:,.0f}", interval)
    shown.caption = "\n".join(
        f"{name}: the baseline's best accuracy for "
        + (f"{told['token_share']:.0%} of its tokens" if told["token_share"] is not None else "no size tried")
        + ("; better at equal tokens, intervals apart" if told["better"] else "")
        for name, told in against.items()
    )
    return shown


def _check(config: CompareConfig) -> None:
    if not config.strategies or min(config.sizes, default=0) < 1:
        given = (config.strategies, config.sizes)
        raise InvalidValue(
            "(strategies, sizes)", given, "at least one of each, sizes from 1", "see clew compare --help"
        )
    if config.out is not None and config.out.exists():
        accepted, advice = "a new file", "choose another name, or move the old file away"
        raise RunDirectoryError(f"--out {config.out} exists", accepted, advice)
