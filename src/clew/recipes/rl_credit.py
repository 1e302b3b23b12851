"""What each token of a batch is worth: the advantage of the chosen name, with whatever is paid for steps and tokens.

P groups of G samples, S steps, T tokens of the longest response.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Literal, cast, final

from clew.core.protocols import PrefixScorer
from clew.core.types import Group, State, Trajectory
from clew.recipes.rl_algorithms import Method
from clew.recipes.rl_settings import StepSettings

if TYPE_CHECKING:
    from torch import Tensor

    from clew.core.protocols import Scorer
    from clew.learn.batch import Example


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One response to learn from; tensors are of its tokens that carry loss."""

    example: Example
    advantages: Tensor
    group: int
    """The problem it answers, as its place in the batch."""
    reference: Tensor | None = None
    """Log-probs under the reference."""
    values: Tensor | None = None
    """What the critic said before the update."""
    returns: Tensor | None = None
    """What it should have said."""

    @property
    def teaches(self) -> bool:
        return bool((self.advantages != 0).any())


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What advantages are made of."""

    rewards: Tensor
    """[P, G], of whole responses."""
    valid: Tensor
    """[P, G] bool: what counts; the rest gets advantage zero."""
    mask: Tensor
    """[P, G, T] bool: a token of the response."""
    penalty: Tensor | None = None
    """[P, G, T]: taken from the reward of each token, beta * k1."""
    stops: Tensor | None = None
    """[P, G, S] long: where steps end, the last repeated to pad."""
    process: Tensor | None = None
    """[P, G, S]: paid for each step."""
    greedy: Tensor | None = None
    """[P]: reward of the greedy response."""
    average: float | None = None
    """Moving average of the rewards of earlier batches."""
    step_values: Tensor | None = None
    """[P, G, S + 1]: of the start and of each step's end, NaN where it is not known."""
    implicit: Tensor | None = None
    """[P, G, T]: implicit rewards of tokens."""
    values: Tensor | None = None
    """[P, G, T]: what the critic says before each token."""
    credit: Literal["stepwise", "joint", "progress"] = "stepwise"
    """How step rewards of a group are compared."""
    weight: float = 1.0
    """What the scores were multiplied by that made `process`."""

    @property
    def step_mask(self) -> Tensor:
        """[P, G, S] bool: a step, of a response that counts."""
        import torch

        assert self.stops is not None
        before = torch.cat([torch.zeros_like(self.stops[..., :1]), self.stops[..., :-1]], dim=-1)
        return (self.stops > before) & self.valid[..., None]

    @property
    def tells_apart(self) -> bool:
        """Whether anything but the penalty makes one response better than another."""
        counted = self.rewards[self.valid]
        return self.process is not None or bool((counted != counted[:1]).any())

    @property
    def outcomes(self) -> Tensor:
        """[P, G]: rewards less what the penalty takes of the whole response."""
        import torch

        if self.penalty is None:
            return self.rewards
        return self.rewards - torch.where(self.mask, self.penalty, 0.0).sum(-1)

    @property
    def token_rewards(self) -> Tensor:
        """[P, G, T]: the outcome at the last token, and what is paid for tokens and steps."""
        import torch

        from clew.learn.returns import at_last_token

        return at_last_token(torch.where(self.valid, self.rewards, 0.0), self.mask) + self.paid_between

    @property
    def paid_between(self) -> Tensor:
        """[P, G, T]: what steps are paid, at their ends, less the penalty of each token."""
        import torch

        from clew.learn.process import at_step_ends

        found = torch.zeros(self.mask.shape)
        if self.process is not None and self.stops is not None:
            paid = at_step_ends(self.process.flatten(0, 1), self.stops.flatten(0, 1), time=self.mask.shape[-1])
            found = paid.view(found.shape)
        return found if self.penalty is None else found - torch.where(self.mask, self.penalty, 0.0)

    @property
    def step_rewards(self) -> Tensor:
        """[P, G, S]: what each step is paid, and the outcome at the last."""
        from clew.learn.returns import at_last_token

        assert self.process is not None
        return self.process + at_last_token(self.outcomes, self.step_mask)

    def of_tokens(self, steps: Tensor) -> Tensor:
        """What belongs to steps [P, G, S], of their tokens [P, G, T]."""
        from clew.learn.process import spread

        assert self.stops is not None
        return spread(steps.flatten(0, 1), self.stops.flatten(0, 1), time=self.mask.shape[-1]).view(self.mask.shape)


def advantages_of(
    method: Method, batch: Batch, *, gamma: float = 1.0, lam: float = 1.0
) -> tuple[Tensor, Tensor | None]:
    """Advantages [P, G, T] of the method's name and, for a critic, what it should have said [P, G, T]."""
    import torch

    from clew.learn.batch_normalised import reinforce_plus_plus, reinforce_plus_plus_baseline, whitened
    from clew.learn.process import prime, stepwise
    from clew.learn.returns import gae

    counted = batch.mask & batch.valid[..., None]
    match method.advantage:
        case "centred" | "normalised" | "leave-one-out" | "moving-average" | "greedy":
            return _against_baseline(method, batch), None
        case "whitened":
            plain = reinforce_plus_plus(batch.token_rewards.flatten(0, 1), counted.flatten(0, 1)).view(counted.shape)
            # Whitened, a penalty alone would weigh as much as any reward: at the first update, where it is rounding.
            return plain if batch.tells_apart else torch.zeros_like(plain), None
        case "whitened-baseline":
            if batch.process is None:
                return reinforce_plus_plus_baseline(batch.outcomes, batch.mask, batch.valid), None
            from clew.learn.advantages import group_centred

            compared = stepwise(batch.step_rewards, batch.step_mask, advantage=group_centred)
            return whitened(batch.of_tokens(compared), counted), None
        case "gae":
            assert batch.values is not None
            found = gae(batch.token_rewards, batch.values, counted, gamma=gamma, lam=lam)
            return whitened(found.advantages, counted), found.returns
        case "step-values":
            return torch.where(counted, _value_differences(batch), 0.0), None
        case "implicit":
            assert batch.implicit is not None
            tokens = batch.implicit + batch.paid_between
            return whitened(prime(tokens, batch.rewards, batch.mask, valid=batch.valid), counted), None
        case "tree-parent" | "tree-siblings" | "tree-root":
            raise AssertionError("advantages of trees are those of their nodes")


def _against_baseline(method: Method, batch: Batch) -> Tensor:
    """Rewards, or returns-to-go of steps, less a baseline."""
    import torch

    from clew.learn.process import joint, progress, stepwise
    from clew.learn.returns import at_last_token, discounted_returns

    if batch.process is None:
        return torch.where(batch.mask, _compared(method, batch, batch.outcomes, batch.valid)[..., None], 0.0)
    rewards, mask = batch.step_rewards, batch.step_mask
    if batch.credit == "progress":
        outcome = _compared(method, batch, batch.outcomes, batch.valid)
        own = batch.process + at_last_token(batch.weight * batch.outcomes, mask)
        return batch.of_tokens(progress(outcome, own, mask))
    if method.advantage in ("moving-average", "greedy"):
        returns = discounted_returns(rewards, mask)
        steps = torch.stack(
            [_compared(method, batch, returns[..., at], mask[..., at]) for at in range(mask.shape[-1])], dim=-1
        )
    else:
        among = cast("Callable[[Tensor, Tensor], Tensor]", lambda r, v: _compared(method, batch, r, v))
        steps = (joint if batch.credit == "joint" else stepwise)(rewards, mask, advantage=among)
    return batch.of_tokens(torch.where(mask, steps, 0.0))


def _compared(method: Method, batch: Batch, rewards: Tensor, valid: Tensor) -> Tensor:
    """Rewards [..., G] less the method's baseline."""
    from clew.learn.advantages import group_centred, group_normalised, leave_one_out
    from clew.learn.baselines import above_greedy, above_moving_average

    match method.advantage:
        case "centred":
            return group_centred(rewards, valid)
        case "normalised":
            return group_normalised(rewards, valid)
        case "leave-one-out":
            return leave_one_out(rewards, valid)
        case "moving-average":
            return above_moving_average(rewards, batch.average or 0.0, valid)
        case "greedy":
            assert batch.greedy is not None
            return above_greedy(rewards, batch.greedy, valid)
        case _:
            raise AssertionError(method.advantage)


def _value_differences(batch: Batch) -> Tensor:
    """V(end) - V(start) of each step, the last end's being the reward (VinePPO); penalties are of their tokens."""
    import torch

    from clew.learn.process import value_differences

    assert batch.step_values is not None
    taken = 0.0 if batch.penalty is None else torch.where(batch.mask, batch.penalty, 0.0)
    return batch.of_tokens(value_differences(batch.step_values, batch.process)) - taken


def padded_stops(stops: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """Ends of steps [P, G, S] long, the last repeated to pad; a response without steps has zeros."""
    import torch

    most = max((len(own) for group in stops for own in group), default=0) or 1
    return torch.tensor([[[*own, *[own[-1] if own else 0] * (most - len(own))] for own in group] for group in stops])


def padded(rows: Sequence[Sequence[float] | Tensor], shape: tuple[int, ...]) -> Tensor:
    """Numbers of tokens, one list a response, as [P, G, T], zero beyond."""
    import torch

    found = torch.zeros(math.prod(shape[:-1]), shape[-1])
    for row, numbers in zip(found, rows, strict=True):
        row[: len(numbers)] = torch.as_tensor(numbers)
    return found.view(shape)


def process_rewards(
    scorer: Scorer, groups: Sequence[Group], stops: Sequence[Sequence[Sequence[int]]], settings: StepSettings
) -> list[list[list[float]]]:
    """What `scorer` says at the end of each step of each response, or how much the step raised it; weighted."""
    from clew.learn.ranks import shared

    responses = list(zip(groups, stops, strict=True))
    return shared("process rewards", responses, lambda own: _paid(scorer, own, settings))


def _paid(
    scorer: Scorer, responses: Sequence[tuple[Group, Sequence[Sequence[int]]]], settings: StepSettings
) -> list[list[list[float]]]:
    from clew.learn.process import best_of

    scores = iter(_scores(scorer, responses))
    paid: list[list[list[float]]] = []
    for _, rows in responses:
        paid.append([])
        for scored in islice(scores, len(rows)):
            values = [best_of(value, settings.process_prover) for value in scored]
            if settings.process_as == "values":
                steps = values[1:]
            else:
                # A response that has ended has no future: only so do the differences leave the best policy the best.
                steps = [after - before for before, after in pairwise([*values[:-1], 0.0])]
            paid[-1].append([settings.process_weight * step for step in steps])
    return paid


def _scores(scorer: Scorer, responses: Sequence[tuple[Group, Sequence[Sequence[int]]]]) -> list[list[float]]:
    """What `scorer` says of each response before its first token and after each step."""
    rows = [
        (trajectory, [0, *own])
        for group, stops in responses
        for trajectory, own in zip(group.trajectories, stops, strict=True)
    ]
    if isinstance(scorer, PrefixScorer):
        return scorer.score_prefixes([trajectory.state for trajectory, _ in rows], [own for _, own in rows])
    states = [_before(trajectory, stop) for trajectory, own in rows for stop in own]
    scores = iter(scorer.score(states, [None] * len(states)))
    return [[next(scores) for _ in own] for _, own in rows]


def _before(trajectory: Trajectory, stop: int) -> State:
    """What stood after `stop` tokens of a response."""
    state, tokens = trajectory.state, trajectory.completion.tokens
    return state if stop == len(state.tokens) else State(state.problem, tokens[:stop])
