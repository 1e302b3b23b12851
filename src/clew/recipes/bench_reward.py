"""What reward models are worth: a process model against the exact V*, labels against roll-outs, guides against guides.

`prm` trains a process model on single derivations of 4-number Countdown and asks it about held-out problems: there the
value of a step is whether its derivation can still reach the target, which is what V* says. `labels` and `guided` are
parts of their own; `guided` needs reward models that were trained before.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import Sampling
from clew.recipes.process_reward import NAME, ProcessRewardSettings

if TYPE_CHECKING:
    from clew.core.protocols import Scorer
    from clew.core.types import Problem
    from clew.models.policy import LocalPolicy
    from clew.recipes.reward_fit import Learner
    from clew.recipes.stage import Stage
    from clew.reward.fit import Labelled
    from clew.tasks import AnyTask

PRM = ProcessRewardSettings(mode="direct", problems=3_000, samples=16, epochs=2, max_tokens=96)
"""How the process model is trained, within three minutes on two cores: on labels that the samples give each other."""
MEASURED, SAMPLES = 300, 8
"""Held-out problems and derivations of each."""
STRATEGIES = ("best-of-n:n=*", "weighted-best-of-n:n=*", "beam:n=*,m=4")
SIZES = (4, 8, 16, 32)


def measure_reward(
    *,
    checkpoint: Path | None,
    seed: int,
    derivations: Path | None = None,
    guided: Path | None = None,
    process: Path | None = None,
    outcome: Path | None = None,
) -> dict[str, Any]:
    """The figures of `clew bench reward`; `guided` only with the policy of that name and two rewards learnt from it."""
    from clew.recipes.bench_reward_labels import measure_labels

    if checkpoint is None:
        accepted = "the run directory of a policy of 4-number Countdown"
        raise InvalidValue("--checkpoint", None, accepted, "make one with clew speedrun")
    found = {"prm": measure_prm(derivations or checkpoint, seed=seed), "labels": measure_labels(checkpoint, seed=seed)}
    if guided is not None and process is not None and outcome is not None:
        found["guided"] = compare_guides(guided, process, outcome, seed=seed)
    return found


def measure_prm(checkpoint: Path, *, seed: int, settings: ProcessRewardSettings = PRM) -> dict[str, Any]:
    """`spearman` of step values with the exact V* on held-out states, and `seconds` of sampling and learning."""
    from clew.data.run import RunDirectory
    from clew.models.plain_reader import reader_of
    from clew.recipes.progress import Progress
    from clew.recipes.reward_fit import fit
    from clew.recipes.stage import load_policy, running
    from clew.reward.load import prompts
    from clew.reward.outcome import HeadReward
    from clew.tasks import make_task

    task = make_task("countdown")
    policy = load_policy(checkpoint)
    with tempfile.TemporaryDirectory() as directory:
        run = RunDirectory.create(Path(directory) / "prm", {})
        with running(NAME, run, Progress({NAME: 1.0}), total=1.0) as stage:
            started = time.perf_counter()
            learner = learner_of(policy, task, settings, seed=seed, stage=stage)
            fit(learner, settings, rng=random.Random(derive_seed(seed, "reward order")), stage=stage)
            seconds = time.perf_counter() - started
    scorer = HeadReward(
        reader=reader_of(learner.model),
        prompt_ids=prompts(policy.codec.tokenizer, settings.mode),
        name="process-reward",
    )
    return {**agreement(scorer, policy, task, seed=seed, settings=settings), "seconds": seconds}


def learner_of(
    policy: LocalPolicy, task: AnyTask, settings: ProcessRewardSettings, *, seed: int, stage: Stage
) -> Learner:
    """A process model of `policy`, and what it learns from: samples whose steps others of their group complete."""
    from clew.recipes.process_measures import step_stops
    from clew.recipes.process_reward import sampled, validation
    from clew.recipes.reward_kinds import process_learner
    from clew.recipes.stage import training_problems
    from clew.reward.shared_prefix import Sampled, shared_prefix_labels

    def labelled(problems: Sequence[Problem]) -> list[Labelled]:
        groups = sampled(settings, policy, task, problems, settings.samples, seed, stage)
        return [
            example
            for group in groups
            for example in shared_prefix_labels(
                policy.prompt_ids(group.problem, settings.mode),
                [
                    Sampled(t.state.tokens, tuple(step_stops(t.state.tokens, policy)), t.reward.value)
                    for t in group.scored
                ],
            )
        ]

    train = labelled(training_problems(task, seed)[: settings.problems])
    return process_learner(policy.model, train, labelled(validation(settings, task, seed)[0]), mode=settings.mode)


def agreement(
    scorer: Scorer, policy: LocalPolicy, task: AnyTask, *, seed: int, settings: ProcessRewardSettings = PRM
) -> dict[str, Any]:
    """Agreement of `scorer` with V* after every step of derivations of test problems, which nothing learnt from."""
    from clew.evaluate import sample_groups
    from clew.recipes.reward_measures import against_exact_value

    groups = sample_groups(
        policy,
        task,
        task.problems("test", MEASURED, derive_seed(seed, "held out")),
        n=SAMPLES,
        sampling=Sampling(max_tokens=settings.max_tokens, mode=settings.mode),
        seed=derive_seed(seed, "evaluation"),
    )
    found = against_exact_value(scorer, [t for group in groups for t in group.scored], policy, seed=seed)
    if found is None:
        accepted = "a policy that writes the steps of a derivation, such as that of clew speedrun"
        raise InvalidValue("--checkpoint", policy.version, accepted, "train one for longer")
    return found


def compare_guides(  # noqa: PLR0913  two guides, and what they are compared on
    checkpoint: Path,
    process: Path,
    outcome: Path,
    *,
    task: str = "countdown:count=5",
    problems: int = 800,
    sizes: Sequence[int] = SIZES,
    strategies: Sequence[str] = STRATEGIES,
    max_tokens: int = 288,
    seed: int = 0,
) -> dict[str, Any]:
    """Searches guided by a process reward against the same by an outcome reward, for tokens sampled, read and scored.

    `outcome` and `process` are the most accurate rows of each at equal tokens: of the outcome reward's the best, and
    of the process reward's the best that took no more. `better` says whether the second's interval is above the
    first's. The policy answers in the mode that the process reward learnt from.
    """
    from clew.data.checkpoint_files import resolve_checkpoint
    from clew.recipes.compare import CompareConfig, measure
    from clew.recipes.progress import Progress
    from clew.recipes.search import load_any_policy
    from clew.reward.load import read_card
    from clew.tasks import make_task

    mode = cast('Literal["think", "direct"]', read_card(resolve_checkpoint(process)).mode)
    judge, policy = make_task(task), load_any_policy(str(checkpoint))
    chosen = judge.problems("test", problems, derive_seed(seed, "held out"))
    names = tuple(f"{strategy}@learned-reward" for strategy in strategies)
    plain = CompareConfig(
        checkpoint=str(checkpoint),
        task=task,
        strategies=names,
        mode=mode,
        max_tokens=max_tokens,
        together=256,
        seed=seed,
    )
    rows: list[dict[str, Any]] = []
    total = 2 * len(names) * len(sizes) * problems
    with Progress({"guided": 1.0}).stage("guided", total=total) as bar:
        for reward, guide in (("outcome", outcome), ("process", process)):
            config = replace(plain, guide=guide)
            rows += [
                {**measure(config, name, size, policy, judge, chosen, bar), "reward": reward}
                for name in names
                for size in sizes
            ]
    return {"rows": rows, **at_equal_tokens(rows)}


def at_equal_tokens(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The best row guided by the outcome reward, and the best by the process reward for at most as many tokens."""
    by_outcome = [row for row in rows if row["reward"] == "outcome"]
    best = max(by_outcome, key=lambda row: (row["accuracy"]["mean"], -row["cost"]["tokens"]))
    affordable = [row for row in rows if row["reward"] == "process" and row["cost"]["tokens"] <= best["cost"]["tokens"]]
    top = max(affordable, key=lambda row: row["accuracy"]["mean"], default=None)
    better = top is not None and top["accuracy"]["low"] > best["accuracy"]["high"]
    return {"outcome": best, "process": top, "better": better}
