"""Learn a reward from demonstrations alone: take demonstrations, sample the policy, tell them apart, measure.

Roadmap section 4.2.2; `clew.reward.inverse` says why the classifier's logit is the reward. No verdict reaches the
training; the truth is asked only at the end, of problems that neither saw.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import Problem, Sampling

if TYPE_CHECKING:
    from transformers import Qwen3ForTokenClassification

    from clew.core.task import Task
    from clew.core.types import Group
    from clew.data.run import RunDirectory
    from clew.models.policy import LocalPolicy
    from clew.recipes.stage import Stage
    from clew.reward.fit import Labelled

EXAMPLES = """
clew reward inverse --checkpoint runs/first --out runs/inverse
clew reward inverse --checkpoint runs/first --out runs/inverse --settings.demonstrator run --json
"""
NAME = "inverse"


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseSettings:
    """Settings of the reward from demonstrations."""

    demonstrator: Literal["written", "run"] = "written"
    """Who demonstrates. written: the writer of training text, in his own manner; run: the policy's own run, by the
    right solutions of training problems that its store kept."""
    problems: int = 3000
    """Demonstrations, each of another training problem."""
    held_out: float = 0.05
    """Share of them whose loss says when to stop."""
    measured: int = 200
    """Validation problems on which the reward is measured against the truth."""
    measured_samples: int = 8
    """Solutions sampled for each of those."""
    end_weight: float = 20.0
    """How much the end of a solution counts, where all of it is seen, against 1 before."""
    rows: int = 64
    """Texts an update, half of them demonstrations."""
    epochs: int = 2
    """Most passes over the texts."""
    evaluate_every: int = 20
    """Updates between two looks at the held-out loss."""
    patience: int = 4
    """Looks in a row without a lower loss that end the training."""
    lr_matrix: float = 0.01
    """Learning rate of hidden matrices (Muon)."""
    lr_other: float = 2e-3
    """Learning rate of embeddings, norms and the head (AdamW)."""
    max_tokens: int = 288
    """Most tokens of a solution."""


class Demonstration(NamedTuple):
    """A problem and the token ids that the expert answered it with."""

    problem: Problem
    tokens: tuple[int, ...]


def inverse_reward(
    settings: InverseSettings,
    *,
    policy: LocalPolicy,
    demonstrations: Sequence[Demonstration],
    seed: int,
    stage: Stage,
) -> Qwen3ForTokenClassification:
    """A model whose logit after any prefix is log expert/policy, the one of the lowest held-out loss."""
    from clew.models.value_head import value_model_of
    from clew.recipes.reward_fit import fit
    from clew.recipes.reward_kinds import classifier_learner

    pairs = contrasted(settings, policy, demonstrations, seed)
    apart = 2 * max(1, round(settings.held_out * len(demonstrations)))
    held_out, train = pairs[:apart], pairs[apart:]
    model = value_model_of(policy.model)
    learner = classifier_learner(model, "process", "think", train, held_out)
    fit(learner, settings, rng=random.Random(derive_seed(seed, NAME)), stage=stage)
    return model


def contrasted(
    settings: InverseSettings, policy: LocalPolicy, demonstrations: Sequence[Demonstration], seed: int
) -> list[Labelled]:
    """Each demonstration, labelled 1, and after it a sample of the policy on the same problem, labelled 0, unjudged."""
    from clew.evaluate.sample import root_prompts
    from clew.reward.inverse import contrast

    problems = [demonstration.problem for demonstration in demonstrations]
    sampling = Sampling(max_tokens=settings.max_tokens)
    own = policy.sample(root_prompts(problems, 1, derive_seed(seed, NAME)), sampling)
    return contrast(
        [policy.prompt_ids(problem, sampling.mode) for problem in problems],
        [demonstration.tokens for demonstration in demonstrations],
        [completion.tokens for completion in own],
        end_weight=settings.end_weight,
    )


def written(policy: LocalPolicy, task: Task, most: int, seed: int) -> list[Demonstration]:
    """Solutions of training problems by the writer of training text; tasks without one are refused."""
    from clew.initialize.countdown_traces import TraceStyle, thinking_words
    from clew.recipes.examples import cloned, countdown_of, demonstrable
    from clew.recipes.stage import training_problems

    rng = random.Random(derive_seed(seed, "demonstrations"))
    found = []
    for problem in demonstrable(training_problems(countdown_of(task), seed))[:most]:
        numbers, target = list(problem.metadata["numbers"]), problem.metadata["target"]
        example = cloned(policy, problem, "think", thinking_words(numbers, target, rng, TraceStyle()))
        found.append(Demonstration(problem, tuple(example.response_ids)))
    return found


def kept(checkpoint: Path, task: Task, most: int, seed: int) -> list[Demonstration]:
    """A right solution of each of up to `most` training problems of `task` that the run at `checkpoint` kept."""
    from clew.core.task import split_of
    from clew.data.store import TrajectoryStore

    path = checkpoint / "trajectories.sqlite"
    if not path.is_file():
        accepted = "the directory of a run that kept solutions of training problems"
        raise InvalidValue("--checkpoint", str(checkpoint), accepted, "use --settings.demonstrator written")
    found: dict[str, Demonstration] = {}
    with TrajectoryStore(path) as store:
        # Later stages write more as the policy does now, so they take the place of earlier ones.
        for group in (group for stage in store.stages() for group in store.groups(stage)):
            if group.problem.task == task.name and split_of(group.problem.id) == "train":
                right = [t.state.tokens for t in group.scored if t.verdict.right and t.state.finished]
                found.update({group.problem.id: Demonstration(group.problem, right[-1])} if right else {})
    return random.Random(derive_seed(seed, "demonstrations")).sample(list(found.values()), min(most, len(found)))


def measures(model: Qwen3ForTokenClassification, groups: Sequence[Group], policy: LocalPolicy) -> dict[str, Any]:
    """The reward against the truth: AUC of right against wrong by depth, agreement with V* after steps, choosing."""
    from clew.recipes.process_measures import DEPTHS, against_exact_values, choosing
    from clew.reward.fit import outcome_labels, probabilities
    from clew.reward.inverse import log_ratios
    from clew.stats.calibration import auc

    scored = [t for group in groups for t in group.scored]
    prompts = [policy.prompt_ids(t.state.problem, "think") for t in scored]
    # The labels are not looked at: what is asked is the model's word after every token.
    asked = [outcome_labels(prompt, t.completion.tokens, 0.0) for prompt, t in zip(prompts, scored, strict=True)]
    rewards = [log_ratios(row) for row in probabilities(model, asked)]
    right = [t.verdict.right for t in scored]
    at_depth = {f"{depth:g}": [row[round(depth * (len(row) - 1))] for row in rewards] for depth in DEPTHS}
    return {
        "base_rate": sum(right) / len(right),
        "auc": {depth: auc(values, right) for depth, values in at_depth.items()},
        "exact_value": against_exact_values(groups, rewards, policy),
        # Votes weigh as the density ratio expert/policy.
        "choosing": choosing(groups, [math.exp(reward) for reward in at_depth["1"]]),
    }


@dataclass(frozen=True, kw_only=True)
class InverseConfig:
    """Learn a reward from demonstrations alone, and measure it against the truth."""

    checkpoint: Path
    """Checkpoint or run directory of the policy."""
    out: Path
    """Run directory to write."""
    task: str = "countdown"
    """Task and its settings."""
    settings: InverseSettings = field(default_factory=InverseSettings)
    seed: int = 0
    """Every random draw derives from it."""
    overwrite: bool = False
    """Delete the run that is at --out."""
    json: bool = False
    """Print the measures as one JSON object instead of the path of the checkpoint."""


CONFIG = InverseConfig


def main(config: InverseConfig) -> int:
    return inverse(config)


def inverse(config: InverseConfig) -> int:
    """Run the recipe; the checkpoint is `checkpoints/inverse` of the run."""
    from clew.evaluate import sample_groups
    from clew.models.allocator import keep_freed_memory
    from clew.models.checkpoint import save_checkpoint
    from clew.recipes.reward_run import measured_run
    from clew.recipes.stage import check_settings, load_policy
    from clew.tasks import make_task

    started = time.perf_counter()
    keep_freed_memory()
    settings, seed = config.settings, config.seed
    check_settings(settings)
    task = make_task(config.task)
    policy = load_policy(config.checkpoint)
    demonstrations = demonstrated(settings, config.checkpoint, policy, task, seed)

    def work(run: RunDirectory, stage: Stage) -> dict[str, Any]:
        model = inverse_reward(settings, policy=policy, demonstrations=demonstrations, seed=seed, stage=stage)
        with run.writing_checkpoint(NAME) as directory:
            save_checkpoint(model, policy.codec.tokenizer, directory)
        groups = sample_groups(
            policy,
            task,
            task.problems("validation", settings.measured, derive_seed(seed, "validation problems")),
            n=settings.measured_samples,
            sampling=Sampling(max_tokens=settings.max_tokens),
            seed=derive_seed(seed, "measured"),
        )
        return {"demonstrations": len(demonstrations), **measures(model, groups, policy)}

    return measured_run(config, NAME, work, started=started)


def demonstrated(
    settings: InverseSettings, checkpoint: Path, policy: LocalPolicy, task: Task, seed: int
) -> list[Demonstration]:
    """The demonstrations that the settings ask for. Raises `InvalidValue` if there are fewer than two."""
    match settings.demonstrator:
        case "written":
            found = written(policy, task, settings.problems, seed)
        case "run":
            found = kept(checkpoint, task, settings.problems, seed)
    if len(found) < 2:
        advice = "give a run that solved training problems, or use --settings.demonstrator written"
        raise InvalidValue("demonstrations", len(found), "two or more, some of them held out", advice)
    return found
