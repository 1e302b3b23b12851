"""What every stage of a recipe shares: its place in the run directory, its metrics and bar, its evaluation."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import Group, Problem, Sampling
from clew.recipes.progress import Bar, Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clew.core.protocols import Policy
    from clew.core.task import Split, Task
    from clew.data.run import RunDirectory
    from clew.models.policy import LocalPolicy
    from clew.models.trainable import Trainable

MISTAKE_WORDS = frozenset({"no", "back"})
"""A response without them answers with its first attempt."""
ANSWER_WORD = "answer"
"""A response that begins with it was given at once, without a thought."""
SAMPLES, SAMPLES_SHOWN = "samples.json", 60
"""Where samples of the last stage are kept as text for the report, and how many."""


@final
class Stage:
    """One stage under way: `record` writes a line of metrics and moves the bar."""

    def __init__(self, name: str, run: RunDirectory, bar: Bar) -> None:
        self.name, self.run, self.bar = name, run, bar
        self.started = time.perf_counter()
        self.tokens = 0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint of this run: what is kept if this stage fails."""
        from clew.data.checkpoint_files import CHECKPOINTS

        found = (self.run.path / CHECKPOINTS).glob("[!.]*/config.json")
        return max((file.parent for file in found), key=lambda p: p.stat().st_mtime_ns, default=None)

    def record(self, step: int, *, increment: float = 1.0, tokens: int = 0, **metrics: float | None) -> None:
        """Log the numbers of one update (None: not measured in this one) and show them."""
        known = {name: value for name, value in metrics.items() if value is not None}
        self.tokens += tokens
        self.run.log(self.name, step=step, seconds=self.seconds, tokens=self.tokens, **known)
        shown = {name: known[name] for name in ("loss", "accuracy", "length", "solved") if name in known}
        self.bar.advance(increment, tokens=tokens, **shown)

    def progress(self, increment: float, *, tokens: int = 0, **shown: float) -> None:
        """Move the bar without logging."""
        self.tokens += tokens
        self.bar.advance(increment, tokens=tokens, **shown)

    def keep(self, groups: Sequence[Group]) -> None:
        """Put what was judged of `groups` into the run's trajectory store; unscored samples have no reward to store."""
        from clew.data.store import TrajectoryStore

        judged = [replace(group, trajectories=group.scored) for group in groups if group.scored]
        with TrajectoryStore(self.run.store_path) as store:
            store.add(self.name, judged)

    def show(self, groups: Sequence[Group], stage: str | None = None) -> None:
        """Keep a sample of each of the first problems as text, said to be of `stage` (None: of this one)."""
        self.run.write_json(SAMPLES, shown_samples(groups, stage or self.name))


@contextmanager
def running(name: str, run: RunDirectory, progress: Progress, *, total: float) -> Iterator[Stage]:
    """Run stage `name` afresh: what an earlier attempt at it left unfinished is forgotten."""
    from clew.data.store import TrajectoryStore

    run.begin_stage(name)
    if run.store_path.exists():
        with TrajectoryStore(run.store_path) as store:
            store.replace(name)
    with progress.stage(name, total=total) as bar:
        yield Stage(name, run, bar)


def load_policy(path: Path) -> LocalPolicy:
    """The policy at `path`, a checkpoint or a run directory (its last stage)."""
    from clew.data.checkpoint_files import resolve_checkpoint
    from clew.models.checkpoint import load_checkpoint
    from clew.models.policy import LocalPolicy

    directory = resolve_checkpoint(path)
    loaded = load_checkpoint(directory)
    return LocalPolicy(loaded.model, loaded.tokenizer, name=directory.name)


def save_policy(
    policy: Trainable,
    run: RunDirectory,
    name: str,
    beside: Callable[[Path], None] | None = None,
) -> None:
    """Commit the policy's model as the checkpoint of stage `name`, with what `beside` writes into its directory.

    Raises `TrainingDiverged` for one that no longer says numbers.
    """
    from clew.models.checkpoint import save_checkpoint
    from clew.models.sound import check_sound

    check_sound(policy.model)
    with run.writing_checkpoint(name) as directory:
        save_checkpoint(policy.model, policy.tokenizer, directory)
        if beside is not None:
            beside(directory)


def training_problems(task: Task, seed: int, most: int = 20_000) -> list[Problem]:
    """All training problems of `task` if it can list them, else `most`. Raises `InvalidValue` if there is none."""
    check_teaches(task)
    count = count_problems(task, "train")
    return task.problems("train", most if count is None else count, derive_seed(seed, "training problems"))


def check_teaches(task: Task) -> None:
    """Raise `InvalidValue` for a task that has no problem to learn from."""
    if count_problems(task, "train") == 0:
        advice = "choose another task; a file needs more lines, or split=all, which puts each problem into every split"
        raise InvalidValue(f"training problems of {task.name}", 0, "at least one", advice)


def count_problems(task: Task, split: Split) -> int | None:
    """How many problems `split` of `task` has; None where the task cannot list them."""
    count: int | None = getattr(task, "count_problems", lambda split: None)(split)
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How a stage is measured."""

    problems: int = 500
    """Held-out problems."""
    samples: int = 2
    """Samples a problem after each stage."""
    search_samples: int = 32
    """Samples a problem for the test-time search at the end."""
    temperature: float = 1.0
    """Sampling temperature."""
    max_tokens: int = 288
    """Most tokens of a response."""


def evaluate_stage(
    policy: Policy, task: Task, problems: Sequence[Problem], settings: Evaluation, *, seed: int, stage: Stage
) -> dict[str, Any]:
    """Rates of `policy` on held-out `problems`: sampled, greedy, direct (no retries), and its first attempts."""
    from clew.evaluate import sample_groups, summarise

    def sampled(n: int, **changes: Any) -> list[Group]:
        sampling = Sampling(**{"temperature": settings.temperature, "max_tokens": settings.max_tokens, **changes})
        return sample_groups(
            policy,
            task,
            problems,
            n=n,
            sampling=sampling,
            seed=derive_seed(seed, "evaluation"),
            stage=stage.name,
            on_batch=lambda tokens, done, total: stage.progress(0, tokens=tokens, evaluated=done / total),
        )

    groups = sampled(settings.samples)
    stage.keep(groups)
    stage.show(groups)
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= settings.samples]
    return {
        **rates(groups, task, ks),
        "greedy": summarise(sampled(1, temperature=0.0), task).pass_at_1.as_dict(),
        "direct": summarise(sampled(settings.samples, mode="direct"), task).pass_at_1.as_dict(),
        "first_attempt": first_attempt_rate(groups),
        "thinks": thinking_share(groups),
    }


def rates(groups: Sequence[Group], task: Task, ks: Sequence[int]) -> dict[str, Any]:
    """The summary of `groups` under the names of `summary.json`; behaviours are counts a response."""
    from clew.evaluate import summarise

    # Where samples could not be judged, no problem may have so many.
    most = max((len(group.scored) for group in groups), default=0)
    found = summarise(groups, task, [k for k in ks if k <= most]).as_dict()
    responses = max(1, found["num_samples"] - found["num_unscored"])
    transitions: dict[str, dict[str, int]] = {}
    for pair, times in found.pop("transitions").items():
        first, _, second = pair.partition(" > ")
        transitions.setdefault(first, {})[second] = times
    reasons, behaviours = found.pop("reasons"), found.pop("behaviours")
    return {
        **found,
        "verdict_reasons": reasons,
        "behaviours": {name: times / responses for name, times in behaviours.items()},
        "transitions": transitions,
    }


def first_attempt_rate(groups: Sequence[Group]) -> dict[str, Any]:
    """How often a response is right without having corrected itself."""
    from clew.stats.intervals import clustered

    values = [
        sum(t.verdict.right and MISTAKE_WORDS.isdisjoint(t.text.split()) for t in group.scored) / len(group.scored)
        for group in groups
        if group.scored
    ]
    return clustered(values, draws_per_problem=min(len(group.scored) for group in groups if group.scored)).as_dict()


def thinking_share(groups: Sequence[Group]) -> dict[str, float | None]:
    """The share of responses that think before they answer, and how many of those are right (None: there is none).

    It divides what learning gains into thinking more often and thinking better.
    """
    responses = [t for group in groups for t in group.scored]
    thought = [t for t in responses if not t.text.lstrip().startswith(ANSWER_WORD)]
    right = sum(t.verdict.right for t in thought) / len(thought) if thought else None
    return {"share": len(thought) / max(1, len(responses)), "right_when_thinking": right}


def shown_samples(groups: Sequence[Group], stage: str, most: int = SAMPLES_SHOWN) -> list[dict[str, Any]]:
    """One sample of each of the first problems, as `samples.json` has them."""
    return [
        {
            "stage": stage,
            "problem_id": group.problem.id,
            "prompt": group.problem.prompt[-1].content if group.problem.prompt else "",
            "text": group.trajectories[0].text,
            "outcome": group.trajectories[0].verdict.outcome.value,
            "reason": group.trajectories[0].verdict.reason,
            "tokens": len(group.trajectories[0].completion.tokens),
        }
        for group in groups[:most]
    ]


def check_settings(*groups: Any) -> None:
    """Raise `InvalidValue` for the first setting that no stage can work with, before anything is written.

    Counts are at least 1 (steps 0: the stage learns nothing); other numbers are finite and at least 0.
    """
    for settings in groups:
        for field in fields(settings):
            value = getattr(settings, field.name)
            name = f"{type(settings).__name__} {field.name}"
            if type(value) is int and value < (field.name != "steps"):
                raise InvalidValue(name, value, f"an integer of at least {int(field.name != 'steps')}", "raise it")
            if type(value) is float and not 0.0 <= value < math.inf:
                raise InvalidValue(name, value, "a finite number of at least 0", "change it")


def resolved(config: Any) -> dict[str, Any]:
    """The configuration as it is saved and compared on resume: without where it goes and how it was started."""
    settings: Mapping[str, Any] = asdict(config)
    return {key: value for key, value in settings.items() if key not in ("out", "resume", "overwrite", "json")}


def run_alone(  # noqa: PLR0913  a stage and how it is run, by name
    name: str,
    train: Callable[[Stage], None],
    *,
    config: Any,
    policy: Trainable,
    steps: float,
    evaluation: Evaluation | None = None,
    beside: Callable[[Path], None] | None = None,
) -> int:
    """Run one training stage as a run of its own: train, save, evaluate, report; print where the results are."""
    from clew.data.run import RunDirectory
    from clew.models.allocator import keep_freed_memory
    from clew.report.html import write_report
    from clew.report.table import print_stages
    from clew.tasks import make_task

    started = time.perf_counter()
    keep_freed_memory()
    settings = evaluation or Evaluation()
    check_settings(config.settings, settings)
    task = make_task(config.task)
    most = min(settings.problems, count_problems(task, "test") or settings.problems)
    held_out = task.problems("test", most, derive_seed(config.seed, "held out"))
    settings = with_room(settings, policy, held_out)
    # Last, so that whatever can be refused leaves no directory behind.
    run = RunDirectory.create(config.out, resolved(config), overwrite=config.overwrite)
    progress = Progress({name: 1.0})
    with running(name, run, progress, total=steps) as stage:
        train(stage)
        save_policy(policy, run, name, beside)
        result = {
            "name": name,
            "seconds": stage.seconds,
            "tokens": stage.tokens,
            **evaluate_stage(policy, task, held_out, settings, seed=config.seed, stage=stage),
        }
    run.mark_done(name, result)
    summary = write_summary(run, [result], [], seed=config.seed, seconds=time.perf_counter() - started)
    report = write_report(run.path)
    print_stages(summary, _console())
    print(report)
    return 0


def with_room(settings: Evaluation, policy: Trainable, problems: Sequence[Problem], mode: str = "think") -> Evaluation:
    """`settings` with as many tokens of a response as the policy's context has room for after every prompt; if these
    are fewer, says so.

    Raises `InvalidValue` where it has none.
    """
    longest = max((len(policy.prompt_ids(problem, mode)) for problem in problems), default=0)
    if longest >= policy.context:
        accepted = f"fewer than {policy.context}, the model's context"
        raise InvalidValue("tokens of a prompt", longest, accepted, "choose a task or model with room for a response")
    room = policy.context - longest
    if room < settings.max_tokens:
        why = f"the model's context has {policy.context}, and the longest held-out prompt leaves no more"
        print(f"clew: held-out answers have at most {room} tokens, not {settings.max_tokens}: {why}", file=sys.stderr)
    return replace(settings, max_tokens=min(settings.max_tokens, room))


def write_summary(
    run: RunDirectory, stages: list[dict[str, Any]], search: list[dict[str, Any]], *, seed: int, seconds: float
) -> dict[str, Any]:
    """Write `summary.json`; `claims` says of the paper's propositions that this run tests whether they held."""
    from clew.data.environment import peak_rss_mib

    summary = {
        "total_seconds": seconds,
        "peak_rss_mib": peak_rss_mib(),
        "device": "cpu",
        "seed": seed,
        "stages": stages,
        "search": search,
        "claims": {"thinking": thinking_claim(stages[-1])} if stages else {},
    }
    run.write_json("summary.json", summary)
    return summary


def thinking_claim(last: Mapping[str, Any]) -> dict[str, Any]:
    """Whether thinking solves more than the same weights' direct answers, both numbers given."""
    think, direct = last["pass_at_1"], last["direct"]
    return {"think": think, "direct": direct, "holds": think["low"] > direct["high"], "note": ""}


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True)
