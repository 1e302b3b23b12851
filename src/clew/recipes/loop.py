"""The loop of the paper: search with the present policy, learn from what was found, measure, and search again.

    search -> D_search (every solution), D_expert (its best), pairs -> learn -> measure on held-out problems -> ...

Any strategy and guide searches, within a budget of tokens; the learner clones D_expert, takes the policy gradient on
D_search, or learns from pairs. With --schedule it clones until that flattens (roadmap section 6.1.3). What search and
learning cost is told in one unit. A round is a stage: a stopped loop goes on with --resume to the same end.

    searches/round-NN   a run of clew search      checkpoints/round-NN   the policy after it      loop.svg   the figure
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.core.seeds import derive_seed
from clew.recipes.loop_settings import (
    START,
    LoopConfig,
    expected_seconds,
    first_schedule,
    names,
    search_config,
    search_name,
)

if TYPE_CHECKING:
    from clew.core.types import Problem
    from clew.data.run import RunDirectory
    from clew.models.trainable import Trainable
    from clew.recipes.learner import Learner
    from clew.recipes.loop_learners import Learnt
    from clew.recipes.loop_schedule import Schedule
    from clew.recipes.loop_search import Found
    from clew.recipes.progress import Progress
    from clew.recipes.stage import Stage
    from clew.tasks import AnyTask

EXAMPLES = """
clew loop --checkpoint runs/sft --rounds 3 --out runs/loop
clew loop --checkpoint runs/sft --strategy mcts --budget-tokens 2048 --learner dpo --settings.level step --out runs/loop
clew loop --checkpoint runs/sft --strategy mcts --learner rl --settings.advantage tree-parent --out runs/loop
clew loop --checkpoint runs/sft --learner rl --schedule --plateau.threshold 1e-3 --out runs/scheduled
clew loop --checkpoint runs/sft --generate 'count=3|4|5,high=9|13' --out runs/frontier
clew loop --checkpoint runs/sft --rounds 3 --out runs/loop --resume
"""


CONFIG = LoopConfig


def main(config: LoopConfig) -> int:
    from clew.data.files import jsonable
    from clew.recipes.progress import Progress

    summary = loop(config, Progress(expected_seconds(config)))
    if config.json:
        print(json.dumps(jsonable(summary), allow_nan=False))
    else:
        from rich.console import Console

        from clew.recipes.loop_table import print_rounds

        print_rounds(summary, Console(highlight=False))
        print(f"report: {config.out / 'report.html'}")
    return 0


def loop(config: LoopConfig, progress: Progress) -> dict[str, Any]:
    """All rounds, those that are done skipped; `summary.json`."""
    from clew.data.checkpoint_files import resolve_checkpoint
    from clew.data.run import RunDirectory
    from clew.models.allocator import keep_freed_memory
    from clew.recipes.stage import Evaluation, count_problems, resolved, with_room
    from clew.tasks import make_task

    keep_freed_memory()
    task = make_task(config.task)
    schedule = first_schedule(config, task)
    most = min(config.measure_problems, count_problems(task, "test") or config.measure_problems)
    held_out = task.problems("test", most, derive_seed(config.seed, "held out"))
    checkpoint = resolve_checkpoint(config.checkpoint)
    own = loaded(config, checkpoint)
    room = with_room(Evaluation(max_tokens=config.max_tokens), own.policy, held_out, config.mode).max_tokens
    # Last, so that whatever can be refused leaves no directory behind.
    run = RunDirectory.create(config.out, resolved(config), resume=config.resume, overwrite=config.overwrite)
    config = replace(config, max_tokens=room)
    for number, name in enumerate((START, *names(config))):
        if run.stage_done(name):
            if name != START:
                progress.skip(search_name(name))
            progress.skip(name)
        elif name == START:
            measure_start(config, run, progress, own.policy, task, held_out)
        else:
            own = own if number == 1 else loaded(config, checkpoint)
            one_round(config, run, progress, number, schedule, checkpoint, own, task, held_out)
        result = run.stage_result(name)
        schedule = schedule.started(result) if name == START else schedule.after(result)
        checkpoint = checkpoint if name == START else run.checkpoint_path(name)
    return finish(config, run)


def loaded(config: LoopConfig, checkpoint: Path) -> Learner:
    """The policy at `checkpoint` and how it learns; adapters begin anew on what the one before left."""
    from clew.recipes.learner import load_learner

    return load_learner(checkpoint, config.tuning, mode=config.mode, seed=config.seed)


def one_round(  # noqa: PLR0913  a round of what, as the loop has them
    config: LoopConfig,
    run: RunDirectory,
    progress: Progress,
    number: int,
    schedule: Schedule,
    checkpoint: Path,
    own: Learner,
    task: AnyTask,
    held_out: list[Problem],
) -> None:
    """Pose, search, learn, measure; the checkpoint, the result and the marker of the round."""
    from clew.recipes.learner import fitting
    from clew.recipes.loop_schedule import mean_signal
    from clew.recipes.loop_search import search_round
    from clew.recipes.search import CACHE_BYTES
    from clew.recipes.stage import running, save_policy

    name, seed = f"round-{number:02}", derive_seed(config.seed, "round", number)
    own.policy.remember(CACHE_BYTES)
    posed = schedule.posed(task, config.problems, seed=seed)
    asked = fitting(posed.problems, own.policy, max_tokens=config.max_tokens, mode=config.mode)
    judge, made = with_mutants(config, run, own.policy, task, asked, number)
    problems = [*asked, *made["problems"]]
    searching = search_config(config, checkpoint, number)
    found = search_round(searching, judge, problems, own.policy, progress, search_name(name))
    own.policy.remember(0)
    with running(name, run, progress, total=1.0) as stage:
        learnt = learn_round(config, schedule, found, own, task, stage, seed=seed)
        own.finish()
        seconds_learning = stage.seconds
        save_policy(own.policy, run, name, own.save_beside)
        tallies = {key: value for key, value in found.tallies().items() if key in posed.arm_of}
        signals = posed.signals(tallies)
        spent = found.tokens + made["tokens"] + sum(part["tokens"] for part in learnt)
        before = sum(run.stage_result(earlier)["compute_round"] for earlier in names(config)[: number - 1])
        result = {
            "name": name,
            "learnt": learnt,
            "search": {"tokens": found.tokens, "seconds": found.seconds, "accuracy": found.accuracy},
            "learning": {"tokens": sum(part["tokens"] for part in learnt), "seconds": seconds_learning},
            "compute_round": spent,
            "compute": before + spent,
            "problems": len(problems),
            "d_search": len(found.solutions),
            "right": sum(one.right for one in found.solutions),
            "mutants": {key: made[key] for key in ("tried", "accepted", "tokens", "seconds")},
            "arms": dict(zip(schedule.arms, posed.shares, strict=False)),
            "signal": mean_signal(signals),
            "signals": signals,
            "tallies": tallies,
            **measured(config, own.policy, task, held_out, stage),
        }
        result |= {"seconds": stage.seconds + found.seconds + made["seconds"], "tokens": spent}
        tell(stage, number, result, schedule)
    run.mark_done(name, result)


def learn_round(  # noqa: PLR0913  who learns what, by name
    config: LoopConfig,
    schedule: Schedule,
    found: Found,
    own: Learner,
    task: AnyTask,
    stage: Stage,
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Learn from the round's data: by what the schedule says, and by the next thing if cloning flattens on the way."""
    from clew.recipes.loop_learners import Pupil, learn

    done = 0

    def record(step: int, **numbers: float | None) -> None:
        stage.record(done + step, increment=0.0, learner=learner, **numbers)  # type: ignore[arg-type]

    pupil = Pupil(
        own=own,
        task=task,
        settings=config.settings,
        seed=seed,
        record=record,
        checkpoint=stage.last_checkpoint,
    )
    learner = schedule.now
    learnt = learn(learner, found, pupil, plateau=schedule.watching)
    parts = [_part(learner, learnt)]
    if learnt.flattened:
        print(
            f"{stage.name}: cloning has flattened after {learnt.updates} updates; on with {schedule.learner}",
            file=sys.stderr,
        )
        done, learner = learnt.updates, schedule.learner
        parts.append(_part(learner, learn(learner, found, pupil)))
    for part in parts:
        if not part["updates"] and not part["flattened"]:
            what = {"distill": "no right solution", "rl": "no problem with right and wrong ones", "dpo": "no pair"}
            print(f"{stage.name}: {what[part['learner']]} was found, so nothing was learnt", file=sys.stderr)
    return parts


def _part(learner: str, learnt: Learnt) -> dict[str, Any]:
    told = {name: getattr(learnt, name) for name in ("rows", "updates", "tokens", "flattened")}
    return {"learner": learner, **told}


def measured(
    config: LoopConfig, policy: Trainable, task: AnyTask, problems: list[Problem], stage: Stage
) -> dict[str, Any]:
    """Rates on held-out problems, from the same random streams after every round; in nobody's cost."""
    from clew.core.types import Sampling
    from clew.evaluate import sample_groups
    from clew.recipes.stage import rates

    groups = sample_groups(
        policy,
        task,
        problems,
        n=config.measure_samples,
        sampling=Sampling(max_tokens=config.max_tokens, mode=config.mode),
        seed=derive_seed(config.seed, "evaluation"),
        stage=stage.name,
        on_batch=lambda tokens, done, total: stage.progress(0, evaluated=done / total),
    )
    stage.keep(groups)
    stage.show(groups)
    return rates(groups, task, [k for k in (1, 2, 4, 8, 16, 32) if k <= config.measure_samples])


def measure_start(
    config: LoopConfig, run: RunDirectory, progress: Progress, policy: Trainable, task: AnyTask, held_out: list[Problem]
) -> None:
    """What the policy can do before the first round."""
    from clew.recipes.stage import running

    with running(START, run, progress, total=1.0) as stage:
        rates = measured(config, policy, task, held_out, stage)
        result = {"name": START, "seconds": stage.seconds, "tokens": 0, "compute": 0, **rates}
        tell(stage, 0, result, None)
    run.mark_done(START, result)


def tell(stage: Stage, number: int, result: Mapping[str, Any], schedule: Schedule | None) -> None:
    """The line of metrics that ends a round; where cloning is watched, its gain an update and whether it flattened."""
    k, at_k = max((int(k), rate) for k, rate in result["pass_at_k"].items())
    line: dict[str, Any] = {"round": number, "compute": result["compute"], "pass_at_1": result["pass_at_1"]}
    line |= {"pass_at_k": at_k, "k": k, "signal": result.get("signal")}
    if schedule is not None and schedule.warm_up and not schedule.flattened:
        after = schedule.after(result)
        line |= {"gain_per_update": after.plateau.gain(after.points), "flattened": after.flattened}
    stage.run.log(stage.name, step=number, **{name: value for name, value in line.items() if value is not None})
    stage.progress(1.0, solved=result["pass_at_1"]["mean"])


def with_mutants(
    config: LoopConfig, run: RunDirectory, policy: Trainable, task: AnyTask, problems: list[Problem], number: int
) -> tuple[AnyTask, dict[str, Any]]:
    """The task that judges the round, and its accepted mutants with what they cost."""
    from clew.core.types import Sampling
    from clew.recipes.loop_texts import WithMutants, mutants, problems_of

    if not config.mutate:
        return task, {"problems": [], "tried": 0, "accepted": 0, "tokens": 0, "seconds": 0.0}
    started = time.perf_counter()
    found = mutants(
        policy,
        task,
        problems[: config.mutate],
        run.path / "mutants" / f"round-{number:02}.jsonl",
        agreement=config.agreement,
        sampling=Sampling(max_tokens=config.max_tokens, mode=config.mode),
        seed=derive_seed(config.seed, "mutants", number),
    )
    new = problems_of(found.file)
    known = {} if found.file is None else {problem.id: found.file for problem in new}
    seconds = time.perf_counter() - started
    told = {"tried": found.tried, "accepted": found.accepted, "tokens": found.tokens, "seconds": seconds}
    return WithMutants(task, known), {"problems": new, **told}


def finish(config: LoopConfig, run: RunDirectory) -> dict[str, Any]:
    """`summary.json`, `loop.svg` and the report."""
    from clew.data.environment import peak_rss_mib
    from clew.data.files import write_text_atomically
    from clew.report.html import write_report
    from clew.report.loop_plot import pass_rate_over_compute, round_points

    results = [run.stage_result(name) for name in (START, *names(config))]
    kept_apart = ("tallies", "signals")
    rows = [{key: value for key, value in result.items() if key not in kept_apart} for result in results]
    summary = {
        "total_seconds": sum(row["seconds"] for row in rows),
        "peak_rss_mib": peak_rss_mib(),
        "device": "cpu",
        "seed": config.seed,
        "stages": [{key: value for key, value in row.items() if key not in ("search", "learning")} for row in rows],
        "search": [],
        "rounds": [_row(row) for row in rows[1:]],
    }
    run.write_json("summary.json", summary)
    write_text_atomically(run.path / "loop.svg", pass_rate_over_compute(round_points(run.metrics())))
    write_report(run.path)
    return summary


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    """A round in `summary.json`: costs in tokens forward through the policy, and seconds."""
    told = ("search", "learning", "compute", "problems", "d_search", "right", "mutants", "arms", "signal", "pass_at_1")
    learners = [part["learner"] for part in result["learnt"]]
    return {
        "round": result["name"],
        "learner": " then ".join(learners),
        "updates": sum(part["updates"] for part in result["learnt"]),
        "rows": sum(part["rows"] for part in result["learnt"]),
        **{name: result[name] for name in told},
        "pass_at_k": result["pass_at_k"],
    }
