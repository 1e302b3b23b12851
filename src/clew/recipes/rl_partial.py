"""Partial rollouts: a response is written over several updates, each piece by the policy of its time.

An update samples at most so many tokens of a response. What has not ended waits and is continued by the next version of
the policy (Kimi k1.5, arXiv 2501.12599; AReaL, arXiv 2505.24298); a group is learnt from when all its responses have
ended. Every token keeps the version that sampled it and its log-prob under that version, so that its ratio is exact,
however old it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from typing import TYPE_CHECKING, NamedTuple, final

from clew.core.protocols import Policy, Prompt
from clew.core.types import Completion, FinishReason, Group, Problem, Sampling, State
from clew.recipes.rl_diagnosis import versions_behind
from clew.recipes.rl_settings import PolicyGradient
from clew.search.serve import Judge, sample_seed

if TYPE_CHECKING:
    from clew.recipes.rl_rollouts import Rollouts


class Waiting(NamedTuple):
    """What is in the pool after a batch was taken from it, and what was dropped from it for its age."""

    groups: int = 0
    samples: int = 0
    """Of these groups, those that have ended too."""
    unfinished: int = 0
    """Samples that are to be continued."""
    tokens: int = 0
    """Of all samples that wait: they are carried over to a later update."""
    groups_dropped: int = 0
    samples_dropped: int = 0
    tokens_dropped: int = 0


@final
@dataclass(frozen=True, slots=True)
class Response:
    """What is written of one response."""

    seed: int
    pieces: tuple[Completion, ...] = ()
    seconds: float = 0.0
    """What sampling it took."""
    ended: bool = False

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(chain.from_iterable(piece.tokens for piece in self.pieces))


@final
@dataclass(frozen=True, slots=True)
class Begun:
    """The responses to one problem, which all began in the same update."""

    problem: Problem
    mode: str
    version: str
    """Of the policy that began them."""
    responses: tuple[Response, ...]

    @property
    def ended(self) -> bool:
        return all(response.ended for response in self.responses)

    @property
    def num_tokens(self) -> int:
        return sum(len(piece.tokens) for response in self.responses for piece in response.pieces)


@final
@dataclass(slots=True, kw_only=True)
class Pool:
    """Groups that are being written, oldest first."""

    settings: PolicyGradient
    policy: Policy
    task: Judge
    stage: str
    begun: list[Begun] = field(default_factory=list)
    sampled: int = 0
    """Tokens in all so far."""
    dropped: list[Begun] = field(default_factory=list)
    """Too old to be learnt from, since `waiting` was last asked."""

    def sample(
        self, asked: Sequence[tuple[str, Sequence[Problem]]], seed: int, *, go_on: bool
    ) -> tuple[list[Group], list[str]]:
        """Begin a group for each problem, by mode, and write a piece of each; of earlier groups too if they `go_on`.

        Groups that have ended now, judged, and their modes. They leave the pool, as do those that are too old.
        """
        new = [self._beginning(problem, mode, seed) for mode, problems in asked for problem in problems]
        resting = [] if go_on else self.begun
        written = self._written([*self._young(), *new] if go_on else new)
        self.begun = [*resting, *(group for group in written if not group.ended)]
        ended = [group for group in written if group.ended]
        return self._judged(ended), [group.mode for group in ended]

    def waiting(self) -> Waiting:
        """What is in the pool now, and what was dropped since this was last asked."""
        responses = [response for group in self.begun for response in group.responses]
        dropped, self.dropped = self.dropped, []
        return Waiting(
            groups=len(self.begun),
            samples=len(responses),
            unfinished=sum(not response.ended for response in responses),
            tokens=sum(group.num_tokens for group in self.begun),
            groups_dropped=len(dropped),
            samples_dropped=sum(len(group.responses) for group in dropped),
            tokens_dropped=sum(group.num_tokens for group in dropped),
        )

    def _beginning(self, problem: Problem, mode: str, seed: int) -> Begun:
        root = State(problem)
        responses = tuple(Response(sample_seed(seed, root, i)) for i in range(self.settings.group_size))
        return Begun(problem, mode, self.policy.version, responses)

    def _young(self) -> list[Begun]:
        """Groups that are not too old if they end now; the others are dropped before more is spent on them."""
        most = self.settings.most_behind
        if most is None:
            return self.begun
        # What is sampled ahead is learnt from one update later.
        ahead = int(self.settings.asynchronous)
        ages = [versions_behind(self.policy.version, group.version) + ahead for group in self.begun]
        self.dropped += [group for group, age in zip(self.begun, ages, strict=True) if age > most]
        return [group for group, age in zip(self.begun, ages, strict=True) if age <= most]

    def _written(self, groups: Sequence[Begun]) -> list[Begun]:
        """`groups` with one more piece of each response that has not ended."""
        calls: dict[Sampling, list[tuple[int, int]]] = {}
        for g, group in enumerate(groups):
            for r, response in enumerate(group.responses):
                if not response.ended:
                    sampling = Sampling(max_tokens=self._room(response), mode=group.mode)
                    calls.setdefault(sampling, []).append((g, r))
        rows = [list(group.responses) for group in groups]
        for sampling, places in calls.items():
            continued = self._continued([(groups[g].problem, rows[g][r]) for g, r in places], sampling)
            for (g, r), response in zip(places, continued, strict=True):
                rows[g][r] = response
        return [replace(group, responses=tuple(own)) for group, own in zip(groups, rows, strict=True)]

    def _room(self, response: Response) -> int:
        """Most tokens of the next piece."""
        assert self.settings.partial is not None
        return min(self.settings.partial, self.settings.max_tokens - len(response.tokens))

    def _continued(self, rows: Sequence[tuple[Problem, Response]], sampling: Sampling) -> list[Response]:
        from clew.learn.ranks import shared
        from clew.models.sampling import stream_after

        prompts = [
            Prompt(State(problem, response.tokens), stream_after(response.seed, len(response.tokens)))
            for problem, response in rows
        ]
        start = time.perf_counter()
        pieces = shared("pieces", prompts, lambda own: self.policy.sample(own, sampling))
        tokens = sum(len(piece.tokens) for piece in pieces)
        second_per_token = (time.perf_counter() - start) / max(tokens, 1)
        self.sampled += tokens
        return [
            replace(
                response,
                pieces=(*response.pieces, piece),
                seconds=response.seconds + second_per_token * len(piece.tokens),
                ended=self._is_end(response, piece),
            )
            for (_, response), piece in zip(rows, pieces, strict=True)
        ]

    def _is_end(self, response: Response, piece: Completion) -> bool:
        written = len(response.tokens) + len(piece.tokens)
        return piece.finish is FinishReason.STOP or written >= self.settings.max_tokens

    def _judged(self, groups: Sequence[Begun]) -> list[Group]:
        from clew.evaluate.memo import MemoJudge
        from clew.evaluate.sample import judged
        from clew.learn.ranks import shared

        judge = MemoJudge(self.task)

        def of(group: Begun) -> Group:
            told = [
                judged(
                    Prompt(State(group.problem), response.seed),
                    joined(response.pieces),
                    self.policy,
                    judge,
                    seconds=response.seconds,
                    stage=self.stage,
                )
                for response in group.responses
            ]
            return Group(group.problem, tuple(told))

        return shared("verdicts", groups, lambda own: list(map(of, own)))


def joined(pieces: Sequence[Completion]) -> Completion:
    """Pieces of one response as one completion: of the version of the last, with the versions of all.

    Log-probs are each piece's own, under the policy that sampled it.
    """
    if len(pieces) == 1:
        return pieces[0]
    last = pieces[-1]
    runs = [
        (version, sum(len(piece.tokens) for piece in run))
        for version, run in groupby(pieces, key=lambda piece: piece.policy_version)
    ]
    return Completion(
        tokens=tuple(chain.from_iterable(piece.tokens for piece in pieces)),
        logprobs=_together([piece.logprobs for piece in pieces]),
        finish=last.finish,
        policy_version=last.policy_version,
        prompt_tokens_read=sum(piece.prompt_tokens_read for piece in pieces),
        prompt_tokens_cached=sum(piece.prompt_tokens_cached for piece in pieces),
        prompt_tokens_reread=sum(piece.prompt_tokens_reread for piece in pieces),
        entropies=_together([piece.entropies for piece in pieces]),
        certainties=_together([piece.certainties for piece in pieces]),
        pieces=tuple(runs) if len(runs) > 1 else (),
    )


def _together(numbers: Sequence[tuple[float, ...] | None]) -> tuple[float, ...] | None:
    known = [own for own in numbers if own is not None]
    return tuple(chain.from_iterable(known)) if len(known) == len(numbers) else None


def pieces_of(completion: Completion) -> tuple[tuple[str, int], ...]:
    """Versions and numbers of tokens of any completion."""
    return completion.pieces or ((completion.policy_version, len(completion.tokens)),)


def age_metrics(version: str, rollouts: Rollouts) -> dict[str, float]:
    """What to log of a batch that the policy of `version` learns from; nothing without a pool."""
    waiting = rollouts.waiting
    if waiting is None:
        return {}
    told = {
        "tokens_waiting": float(waiting.tokens),
        "unfinished": float(waiting.unfinished),
        "dropped_old": float(waiting.samples_dropped),
    }
    responses = [pieces_of(t.completion) for group in rollouts.groups for t in group.trajectories]
    pieces = [piece for response in responses for piece in response]
    if pieces:
        ages = [(versions_behind(version, sampled), count) for sampled, count in pieces]
        told |= {
            "behind_mean": sum(age * count for age, count in ages) / sum(count for _, count in ages),
            "behind_most": max(age for age, _ in ages),
            "tokens_carried": float(sum(count for sampled, count in pieces if sampled != rollouts.version)),
            "mixed": sum(len(response) > 1 for response in responses) / len(responses),
        }
    return told
