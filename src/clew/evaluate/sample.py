"""Samples of a policy on many problems, judged: the raw material of every rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

from clew.core.errors import InvalidValue
from clew.core.protocols import Policy, Prompt
from clew.core.types import Completion, Group, Problem, Provenance, Reward, Sampling, State, Trajectory, Verdict
from clew.evaluate.memo import MemoJudge
from clew.search.serve import Judge, sample_seed, sampling_cost

ROWS_PER_BATCH = 2048
"""Completions asked of the policy at once."""

OnBatch = Callable[[int, int, int], None]
"""Called after each batch with the tokens it sampled, the problems done and the problems in all."""


def chunks(problems: Sequence[Problem], n: int) -> Iterator[Sequence[Problem]]:
    """Problems in runs whose `n` samples each fill about one batch. Raises `InvalidValue` for no problem or n < 1."""
    if not problems:
        raise InvalidValue("number of problems", 0, "at least one problem", "choose a split or task that has some")
    if n < 1:
        raise InvalidValue("samples a problem", n, "an integer of at least 1", "use 1 for pass@1 alone")
    size = max(1, ROWS_PER_BATCH // n)
    for start in range(0, len(problems), size):
        yield problems[start : start + size]


def root_prompts(problems: Sequence[Problem], n: int, seed: int) -> list[Prompt]:
    """Samples 0 to n - 1 of every problem, with the random streams that a search with this `seed` gives them."""
    return [Prompt(root, sample_seed(seed, root, i)) for root in map(State, problems) for i in range(n)]


def sample_groups(  # noqa: PLR0913  what to sample and how to draw, all but three by name
    policy: Policy,
    task: Judge,
    problems: Sequence[Problem],
    *,
    n: int,
    sampling: Sampling,
    seed: int = 0,
    stage: str = "",
    on_batch: OnBatch | None = None,
) -> list[Group]:
    """`n` judged samples of every problem, from the random streams that a search with this `seed` would draw.

    Unscored samples stay in their group (`Group.scored` leaves them out); their reward is NaN, so that no mean can
    take them for wrong. Raises `InvalidValue` if there is no problem or n < 1.
    """
    from clew.learn.ranks import shared

    judge = MemoJudge(task)

    def sampled(chunk: Sequence[Problem]) -> list[Group]:
        prompts = root_prompts(chunk, n, seed)
        start = time.perf_counter()
        completions = policy.sample(prompts, sampling)
        seconds = time.perf_counter() - start
        second_per_token = seconds / max(sum(len(completion.tokens) for completion in completions), 1)
        trajectories = [
            judged(prompt, completion, policy, judge, seconds=second_per_token * len(completion.tokens), stage=stage)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        return [Group(problem, tuple(trajectories[at * n : (at + 1) * n])) for at, problem in enumerate(chunk)]

    groups: list[Group] = []
    for chunk in chunks(problems, n):
        made = shared("samples", chunk, sampled)
        groups += made
        if on_batch is not None:
            tokens = sum(len(t.completion.tokens) for group in made for t in group.trajectories)
            on_batch(tokens, len(groups), len(problems))
    return groups


def judged(
    prompt: Prompt, completion: Completion, policy: Policy, judge: MemoJudge, *, seconds: float, stage: str
) -> Trajectory:
    """A response as a trajectory: `completion` after the state of `prompt`, judged."""
    state = prompt.state.extend(completion)
    text = policy.text(state)
    verdict = judge.verify(state.problem, text)
    return Trajectory(
        state=state,
        text=text,
        verdict=verdict,
        reward=_reward(verdict),
        cost=sampling_cost((completion,), seconds, verifier_calls=1),
        seed=prompt.seed,
        completion=completion,
        provenance=Provenance(stage=stage),
    )


def _reward(verdict: Verdict) -> Reward:
    return Reward(math.nan) if verdict.value is None else Reward(verdict.value, {"verifier": verdict.value})
