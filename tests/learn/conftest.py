"""A world small enough to enumerate every response, and every group of responses, of a tabular policy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

VOCABULARY = 3


@dataclass(frozen=True)
class World:
    """R responses of at most T tokens; the policy has one row of logits for each beginning."""

    tokens: Tensor
    """[R, T] long, 0 beyond the end."""
    mask: Tensor
    states: Tensor
    """[R, T] long: the row of the beginning that each token follows."""
    rewards: Tensor
    """[R]: outcomes."""
    token_rewards: Tensor
    """[R, T]: process rewards, each of what is written so far and its token."""
    logits: Tensor
    """[rows, vocabulary] of the policy under test."""
    other_logits: Tensor
    """The same of another policy: a sampler, or a reference."""

    def logprobs(self, logits: Tensor) -> Tensor:
        """[R, T], zero beyond the end."""
        chosen = logits.log_softmax(-1)[self.states].gather(-1, self.tokens[..., None]).squeeze(-1)
        return torch.where(self.mask, chosen, 0.0)

    def probabilities(self, logits: Tensor) -> Tensor:
        return self.logprobs(logits).sum(-1).exp()

    def gradient_of(self, expectation: Callable[[Tensor], Tensor]) -> Tensor:
        """Of any function of the logits, at the policy."""
        logits = self.logits.clone().requires_grad_()
        (answer,) = torch.autograd.grad(expectation(logits), logits)
        return answer

    def true_gradient(self, returns: Tensor) -> Tensor:
        """Of the expected return, for returns [R]."""
        return self.gradient_of(lambda logits: (self.probabilities(logits) * returns).sum())

    def values(self, logits: Tensor, token_rewards: Tensor) -> Tensor:
        """Exact expected return-to-go before each token [R, T], by conditioning on the beginning."""
        p = self.probabilities(logits)
        to_go = token_rewards.masked_fill(~self.mask, 0).flip(-1).cumsum(-1).flip(-1)
        answer = torch.zeros_like(to_go)
        for row in range(len(logits)):
            here = (self.states == row) & self.mask
            weights = torch.where(here, p[:, None], 0.0)
            answer[here] = (weights * to_go).sum() / weights.sum()
        return answer

    def expected_gradient(
        self, loss_of: Callable[[Tensor, Tensor], Tensor], group_size: int, sampler: Tensor | None = None
    ) -> Tensor:
        """Minus the gradient of a loss in expectation over every group that the sampler (or the policy) can draw.

        `loss_of` takes log-probs [N, G, T] and the responses' indices [N, G] and answers losses [N] or [N, ...], which
        are summed.
        """
        groups = torch.tensor(list(itertools.product(range(len(self.tokens)), repeat=group_size)))
        logits = self.logits.clone().requires_grad_()
        drawn = self.probabilities(self.logits if sampler is None else sampler)[groups].prod(-1)
        loss = loss_of(self.logprobs(logits)[groups], groups)
        weights = drawn.reshape(-1, *[1] * (loss.ndim - 1))
        (answer,) = torch.autograd.grad((weights * loss).sum(), logits)
        return -answer


def _world(responses: list[tuple[int, ...]]) -> World:
    length = max(map(len, responses))
    rows: dict[tuple[int, ...], int] = {}
    states = [[rows.setdefault(r[:t], len(rows)) if t < len(r) else 0 for t in range(length)] for r in responses]
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    tokens = torch.tensor([[*r, *[0] * (length - len(r))] for r in responses])
    return World(
        tokens=tokens,
        mask=torch.tensor([[t < len(r) for t in range(length)] for r in responses]),
        states=torch.tensor(states),
        rewards=normal(len(responses)),
        token_rewards=normal(len(rows), VOCABULARY)[torch.tensor(states), tokens],
        logits=normal(len(rows), VOCABULARY),
        other_logits=normal(len(rows), VOCABULARY),
    )


@pytest.fixture(scope="session")
def world() -> World:
    """15 responses of one to three tokens; token 0 ends one."""
    going = range(1, VOCABULARY)
    short = [(0,), *((a, 0) for a in going)]
    return _world([*short, *((a, b, c) for a in going for b in going for c in range(VOCABULARY))])


@pytest.fixture(scope="session")
def even_world() -> World:
    """9 responses of two tokens each."""
    return _world(list(itertools.product(range(VOCABULARY), repeat=2)))


@pytest.fixture(scope="session")
def bandit() -> World:
    """3 responses of one token."""
    return _world([(0,), (1,), (2,)])
