"""What an update learns from: groups of judged samples, refilled where they teach nothing, or search trees."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, final

from clew.core.errors import InvalidValue
from clew.core.seeds import derive_seed
from clew.core.types import Group, Outcome, Problem, Sampling
from clew.recipes.rl_algorithms import Method
from clew.recipes.rl_partial import Pool, Waiting
from clew.recipes.rl_settings import EXACT_VALUE, PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor

    from clew.core.task import Task
    from clew.models.trainable import Trainable
    from clew.reward.terms import Term
    from clew.search import SearchOutcome

EQUALS, NEWLINE = "=", "\n"
AFTER_RESULT = ("left", "answer")
CACHE_BYTES = 1 << 28


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """A batch: P groups of equal size and what was asked beside them."""

    groups: list[Group]
    """Of a search tree: one trajectory, the response it chose, if it chose one."""
    modes: list[str]
    """Of each group, or tree, its generation prompt."""
    greedy: list[float] = field(default_factory=list)
    """Reward of the greedy response to each problem, NaN where it was not scored; empty if no one asked."""
    trees: list[SearchOutcome] = field(default_factory=list)
    rejected: list[Group] = field(default_factory=list)
    """Groups that were replaced, or given up at the last draw, because their verdicts were all equal."""
    tokens: int = 0
    """Sampled in all, those of rejected groups, of greedy responses and of searches too."""
    too_long: int = 0
    """Problems that were left out because their prompt leaves no room for a response."""
    version: str = ""
    """Of the policy that sampled."""
    waiting: Waiting | None = None
    """What is still being written, where responses are sampled in pieces."""


@final
@dataclass(slots=True, kw_only=True)
class Sampler:
    """Draws problems and samples responses to them."""

    settings: PolicyGradient
    method: Method
    policy: Trainable
    task: Task
    problems: list[Problem]
    terms: Sequence[Term]
    rng: random.Random
    seed: int
    stage: str
    pool: Pool | None = field(default=None, init=False)
    """What is being written, where responses are sampled in pieces."""

    def __post_init__(self) -> None:
        if self.settings.partial is not None:
            self.pool = Pool(settings=self.settings, policy=self.policy, task=self.task, stage=self.stage)

    def batch(self, step: int) -> Rollouts:
        """The batch of update `step`. Raises `InvalidValue` if no problem that was drawn fits the model's context."""
        wanted = min(self.settings.problems, len(self.problems))
        drawn, too_long = self._fitting(self.rng.sample(self.problems, wanted))
        version, before = self.policy.version, 0 if self.pool is None else self.pool.sampled
        if self.method.grows_trees:
            return replace(self._trees(drawn, step), too_long=too_long, version=version)
        groups, modes = self._sample(drawn, derive_seed(self.seed, "rl", step))
        batch = Rollouts(groups=groups, modes=modes, too_long=too_long, version=version)
        if self.method.draws > 1:
            batch = self._refilled(batch, wanted, step)
        if self.pool is not None:
            return replace(batch, tokens=self.pool.sampled - before, waiting=self.pool.waiting())
        answers = self._greedy(batch.groups, batch.modes) if self.method.advantage == "greedy" else []
        return replace(
            batch,
            greedy=[group.trajectories[0].reward.value for group in answers],
            tokens=_tokens([*batch.groups, *batch.rejected, *answers]),
        )

    def _refilled(self, batch: Rollouts, wanted: int, step: int) -> Rollouts:
        """`batch` with new groups in the place of those whose verdicts are all equal, while draws are left."""
        groups, modes, rejected, too_long = batch.groups, batch.modes, list(batch.rejected), batch.too_long
        lost = too_long
        for draw in range(1, self.method.draws + 1):
            differ = [verdicts_differ(group) for group in groups]
            rejected += [group for group, ok in zip(groups, differ, strict=True) if not ok]
            modes = [mode for mode, ok in zip(modes, differ, strict=True) if ok]
            groups = [group for group, ok in zip(groups, differ, strict=True) if ok]
            # What is still being written is not missing, and what was begun earlier may be more than is wanted.
            missing = min(wanted - len(groups), lost + differ.count(False))
            if missing <= 0 or draw == self.method.draws:
                break
            drawn, lost = self._fitting(self.rng.sample(self.problems, missing))
            seed = derive_seed(self.seed, "rl", step, "draw", draw)
            more, more_modes = self._sample(drawn, seed, go_on=False)
            groups, modes, too_long = groups + more, modes + more_modes, too_long + lost
        return replace(batch, groups=groups, modes=modes, rejected=rejected, too_long=too_long)

    def _sample(self, drawn: Sequence[Problem], seed: int, *, go_on: bool = True) -> tuple[list[Group], list[str]]:
        """Groups of `drawn`; with a pool those of it that have ended, after earlier ones went on or not."""
        from clew.reward.terms import rewarded

        if self.pool is None:
            groups, modes = sample_modes(self.settings, drawn, self.policy, self.task, seed=seed, stage=self.stage)
        else:
            groups, modes = self.pool.sample(by_mode(self.settings, drawn), seed, go_on=go_on)
        return [rewarded(group, self.terms) for group in groups], modes

    def _greedy(self, groups: Sequence[Group], modes: Sequence[str]) -> list[Group]:
        """The greedy response to the problem of each group, by mode so that as many as can be are asked together."""
        from clew.evaluate import sample_groups
        from clew.reward.terms import rewarded

        found: dict[int, Group] = {}
        for mode in dict.fromkeys(modes):
            places = [at for at, own in enumerate(modes) if own == mode]
            sampling = Sampling(temperature=0.0, max_tokens=self.settings.max_tokens, mode=mode)
            asked = [groups[at].problem for at in places]
            answers = sample_groups(self.policy, self.task, asked, n=1, sampling=sampling, stage=self.stage)
            found.update(zip(places, (rewarded(group, self.terms) for group in answers), strict=True))
        return [found[at] for at in range(len(groups))]

    def _trees(self, drawn: Sequence[Problem], step: int) -> Rollouts:
        from clew.evaluate.searched import judge_answer, trajectory_of
        from clew.learn.ranks import shared
        from clew.search import run_searches
        from clew.search.specs import VERIFIER, Given, parse_strategy, takes_guide

        tree = self.settings.tree
        mode = "direct" if self.settings.direct >= 1.0 else "think"
        whole = Sampling(max_tokens=self.settings.max_tokens, mode=mode)
        stepped = replace(whole, max_tokens=tree.step_tokens, step_ends=step_ends(self.settings, self.task))
        guidance = VERIFIER if takes_guide(tree.strategy) else None
        given = Given(step=stepped, solution=whole, guidance=guidance, seed=derive_seed(self.seed, "rl", step))
        chosen = parse_strategy(tree.strategy, given)
        search = partial(run_searches, chosen.strategy, policy=self.policy, task=self.task, seed=given.seed)
        outcomes = shared("trees", drawn, search)
        groups = []
        for outcome in outcomes:
            verdict = judge_answer(outcome, self.task, self.policy)
            found = trajectory_of(outcome, verdict, self.policy, strategy=chosen.strategy.name, stage=self.stage)
            groups += [] if found is None else [Group(outcome.problem, (found,))]
        tokens = sum(outcome.cost.tokens_sampled for outcome in outcomes)
        return Rollouts(groups=groups, modes=[mode] * len(outcomes), trees=outcomes, tokens=tokens)

    def _fitting(self, drawn: list[Problem]) -> tuple[list[Problem], int]:
        """Problems whose prompt and response fit the context, and how many do not."""
        room = self.policy.context - self.settings.max_tokens
        fits = [p for p in drawn if len(self.policy.prompt_ids(p, "think")) <= room]
        if drawn and not fits:
            longest = max(len(self.policy.prompt_ids(p, "think")) for p in drawn)
            given = f"{longest} with max_tokens {self.settings.max_tokens}"
            accepted = f"together at most {self.policy.context} tokens, the model's context"
            raise InvalidValue("tokens of the prompts", given, accepted, "lower max_tokens or shorten the prompts")
        if len(fits) < len(drawn):
            print(f"clew: {len(drawn) - len(fits)} problems left out: prompts too long to be answered", file=sys.stderr)
        return fits, len(drawn) - len(fits)


def sample_modes(
    settings: PolicyGradient, problems: Sequence[Problem], policy: Trainable, task: Task, *, seed: int, stage: str
) -> tuple[list[Group], list[str]]:
    """Groups of judged samples, a share of them answered directly, and the mode of each group."""
    from clew.evaluate import sample_groups

    groups: list[Group] = []
    modes: list[str] = []
    for mode, drawn in by_mode(settings, problems):
        sampling = Sampling(max_tokens=settings.max_tokens, mode=mode)
        groups += sample_groups(policy, task, drawn, n=settings.group_size, sampling=sampling, seed=seed, stage=stage)
        modes += [mode] * len(drawn)
    return groups, modes


def by_mode(settings: PolicyGradient, problems: Sequence[Problem]) -> list[tuple[str, Sequence[Problem]]]:
    """Generation prompts and the problems that get them; without those that no problem gets."""
    directly = round(settings.direct * len(problems))
    shares = (("think", problems[directly:]), ("direct", problems[:directly]))
    return [(mode, drawn) for mode, drawn in shares if drawn]


def step_ends(settings: PolicyGradient, task: Task) -> tuple[str, ...]:
    """Texts that end a step. Sums of clew's small models stand in one line: there a step ends before a result, and
    after it where the solver is asked, who counts a step from its result on."""
    if settings.step_credit.ends is not None:
        return tuple(end.replace("\\n", NEWLINE) for end in settings.step_credit.ends if end)
    if settings.step_credit.process == EXACT_VALUE:
        return AFTER_RESULT
    return (EQUALS,) if getattr(task, "name", "") in ("countdown", "arithmetic") else (NEWLINE,)


def verdicts_differ(group: Group) -> bool:
    """Whether two scored samples have different verdicts: dynamic sampling looks at what is wanted, unshaped."""
    return len({t.verdict.value for t in group.scored}) > 1


def rewards_of(groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
    """Rewards and which of them count, both [groups, group_size]: scored ones that are finite numbers."""
    import torch

    if not groups:
        return torch.zeros(0, 1), torch.zeros(0, 1, dtype=torch.bool)
    rewards = torch.tensor([[t.reward.value for t in group.trajectories] for group in groups])
    scored = [
        [t.verdict.outcome is not Outcome.UNSCORED and math.isfinite(t.reward.value) for t in group.trajectories]
        for group in groups
    ]
    return rewards, torch.tensor(scored)


def _tokens(groups: Sequence[Group]) -> int:
    return sum(len(t.completion.tokens) for group in groups for t in group.trajectories)
