"""What the methods of behaviour cloning share: solutions as examples, and passes over them."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Unpack, final

from clew.core.errors import InvalidValue
from clew.core.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from clew.core.types import Group, Problem, Trajectory
    from clew.learn.batch import Example, PaddedBatch
    from clew.learn.guard import Limits
    from clew.recipes.expert_iteration import ExpertIteration
    from clew.recipes.learner import Learner
    from clew.recipes.stage import Stage
    from clew.tasks import AnyTask


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Who learns, and from what problems."""

    learner: Learner
    task: AnyTask
    problems: Sequence[Problem]
    seed: int
    stage: Stage


class Searching(Protocol):
    """Settings of rounds that sample problems."""

    @property
    def problems(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def mode(self) -> str: ...


def drawn(settings: Searching, lesson: Lesson, rng: random.Random) -> list[Problem]:
    """The problems of a round."""
    return rng.sample(list(lesson.problems), min(settings.problems, len(lesson.problems)))


def searched(
    settings: Searching, problems: Sequence[Problem], lesson: Lesson, *, seed: int, keep: bool = True
) -> list[Group]:
    """`settings.samples` judged samples of every problem, put into the run's store unless they are not to be kept."""
    from clew.evaluate import sample_groups

    stage = lesson.stage
    groups = sample_groups(
        lesson.learner.policy,
        lesson.task,
        problems,
        n=settings.samples,
        sampling=Sampling(max_tokens=settings.max_tokens, mode=settings.mode),
        seed=seed,
        stage=stage.name,
        on_batch=lambda tokens, done, total: stage.progress(0, tokens=tokens, searched=done / total),
    )
    if keep:
        stage.keep(groups)
    return groups


def solution(learner: Learner, trajectory: Trajectory, advantage: float = 1.0) -> Example:
    """The exact tokens of a sampled response as an example."""
    from clew.learn.batch import Example

    return Example(
        prompt_ids=learner.prompt_ids(trajectory.state.problem),
        response_ids=trajectory.completion.tokens,
        logprobs=trajectory.completion.logprobs,
        advantage=advantage,
    )


def right_solutions(groups: Sequence[Group], cap: int | None) -> list[Trajectory]:
    """The `cap` (None: all) shortest right solutions of each group, no two of the same tokens; of equals the first."""
    found: list[Trajectory] = []
    for group in groups:
        right = {t.completion.tokens: t for t in group.trajectories if t.verdict.right}
        found += sorted(right.values(), key=lambda t: len(t.completion.tokens))[:cap]
    return found


def ends_here(solutions: Sequence[Trajectory], lesson: Lesson, number: int) -> bool:
    """Whether round `number`, from 0, is a later one without anything to clone: what was learnt is kept, and said."""
    ends = number > 0 and not solutions
    if ends:
        print(f"{lesson.stage.name}: round {number + 1} has no right solution, so learning ends here", file=sys.stderr)
    return ends


def clone_solutions(
    settings: ExpertIteration,
    solutions: Sequence[Trajectory],
    lesson: Lesson,
    rng: random.Random,
    *,
    updates: int,
    **shown: float,
) -> int:
    """Clone `solutions` and let the policy write with what was learnt. Raises `InvalidValue` if there is none."""
    if not solutions:
        accepted = "at least one right solution"
        advice = "raise --settings.samples or --settings.problems, or warm up with sft first"
        raise InvalidValue("solutions to clone", 0, accepted, advice)
    learner = lesson.learner
    examples = [solution(learner, one) for one in solutions]
    steps = clone_examples(settings, examples, learner, rng, stage=lesson.stage, updates=updates, **shown)
    learner.refresh()
    return steps


def clone_examples(
    settings: ExpertIteration,
    examples: Sequence[Example],
    learner: Learner,
    rng: random.Random,
    *,
    stage: Stage,
    updates: int,
    **shown: float,
) -> int:
    """Pass over `examples` as `settings` say and log, with `shown`; how many updates that took after `updates`."""
    from clew.learn.schedule import warmup_stable_decay

    steps = max(1, settings.epochs * len(examples) // settings.rows) if examples else 0
    stage.progress(0 if steps else 1, tokens=0, **shown)
    optimizer = learner.optimizer(lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)
    order = [e for _ in range(settings.epochs) for e in rng.sample(examples, len(examples))]
    for step in range(steps):
        chosen = order[step * settings.rows : (step + 1) * settings.rows]
        rate = warmup_stable_decay(step, total=steps, decay=steps // 2)
        how: Limits = {"step": updates + step, "multiplier": rate, "checkpoint": stage.last_checkpoint}
        told = clone_step(learner, optimizer, chosen, **how)
        stage.record(
            updates + step, increment=1 / steps, tokens=sum(e.num_learnt for e in chosen), **told, lr=rate, **shown
        )
    return steps


def clone_step(
    learner: Learner, optimizer: Any, examples: Sequence[Example], **limits: Unpack[Limits]
) -> dict[str, float]:
    """One update of the mean negative log-likelihood of the examples' tokens (roadmap, equation 7).

    Prompts carry no loss.
    """
    from clew.learn.aggregate import token_mean
    from clew.learn.batch import pad

    tokens = sum(example.num_learnt for example in examples)

    def loss_of(rows: list[int]) -> tuple[Tensor, float]:
        batch = pad([examples[row] for row in rows])
        part = token_mean(-learner.logprobs(batch), batch.target_mask, tokens=tokens)
        return part, part.item()

    lengths = [example.length for example in examples]
    told = learner.update(optimizer, lengths, loss_of, math.fsum, **limits)
    return {"loss": sum(told.noted), "grad_norm": told.grad_norm}


def logprob_sums(learner: Learner, examples: Sequence[Example]) -> Tensor:
    """Log-probabilities [examples] of whole responses under the present weights, without gradient."""
    import torch

    from clew.learn.batch import pad
    from clew.learn.passes import in_passes
    from clew.recipes.learner import TOKENS_PER_PASS

    def part(rows: list[int]) -> Sequence[Tensor]:
        batch: PaddedBatch = pad([examples[row] for row in rows])
        with torch.no_grad():
            return torch.where(batch.target_mask, learner.logprobs(batch), 0.0).sum(-1).unbind()

    found = in_passes(part, [example.length for example in examples], tokens_per_pass=TOKENS_PER_PASS)
    return torch.stack(found) if found else torch.zeros(0)
