"""Names of losses, averages, penalties and corrections become numbers: by hand, of three tokens in two responses."""

from __future__ import annotations

import math

import pytest
import torch

from clew.core.cost import Cost
from clew.core.types import Completion, FinishReason, Group, Outcome, Problem, Reward, State, Trajectory, Verdict
from clew.recipes.rl_algorithms import Method
from clew.recipes.rl_credit import Batch, advantages_of, process_rewards
from clew.recipes.rl_losses import Counts, averaged, correction, kl_loss, losses
from clew.recipes.rl_settings import PolicyGradient, StepSettings

MASK = torch.tensor([[True, True], [True, False]])
RATIOS = torch.tensor([[1.5, 0.5], [3.0, 1.0]], dtype=torch.float64)
ADVANTAGES = torch.tensor([[1.0, -1.0], [-1.0, 0.0]], dtype=torch.float64)
NOW = RATIOS.log()
OLD = torch.zeros(2, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # clip_low 0.4 and clip_high 0.25: ratios are held within 0.6 and 1.25 where that is worse.
        ("clipped", [-1.25, 0.6, 3.0]),
        ("reinforce", [-math.log(1.5), math.log(0.5), math.log(3.0)]),
        # One ratio for the first response, the geometric mean of 1.5 and 0.5.
        ("gspo", [-math.sqrt(0.75), math.sqrt(0.75), 3.0]),
        ("cispo", [-1.25 * math.log(1.5), 0.6 * math.log(0.5), 1.25 * math.log(3.0)]),
    ],
)
def test_losses(name, expected):
    method = Method(loss=name, clip_low=0.4, clip_high=0.25)
    found = losses(method, NOW, OLD, ADVANTAGES, MASK)
    assert found[MASK].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"), [("tokens", 6.0 / 5), ("sequences", (1.5 + 3.0) / 4), ("constant", 6.0 / (4 * 7))]
)
def test_averages_take_the_denominators_that_they_are_given(name, expected):
    loss = torch.tensor([[1.0, 2.0], [3.0, 99.0]])
    counts = Counts(tokens=5, sequences=4, own_tokens=3)
    settings = PolicyGradient(max_tokens=7)
    assert averaged(Method(aggregation=name), settings, loss, MASK, counts).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("none", 0.0), ("k1-reward", 0.0), ("k2-loss", 0.125), ("k3-loss", math.exp(-0.5) - 0.5)],
)
def test_penalties_in_the_loss(name, expected):
    found = kl_loss(Method(kl=name), torch.tensor([[0.5]]), torch.tensor([[0.0]]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "low", "high", "expected"),
    [
        ("none", None, None, [1.0, 1.0]),
        ("truncated", None, None, [2.0, 0.25]),
        ("truncated", 0.5, 3.0, [3.0, 0.5]),
        ("token-masked", None, None, [4.0, 0.0]),
        ("token-masked", 0.2, 3.0, [0.0, 0.25]),
        ("sequence-truncated", None, None, [1.0, 1.0]),
        ("sequence-truncated", None, 0.5, [0.5, 0.5]),
        ("sequence-masked", None, None, [4.0, 0.25]),
        ("sequence-masked", 1.5, None, [0.0, 0.0]),
        ("good-or-near", None, None, [1.0, 1.0]),
        ("good-or-near", None, -0.1, [1.0, 0.0]),
    ],
)
def test_corrections_with_bounds_of_their_own_or_the_usual_ones(name, low, high, expected):
    """Ratios 4 and 1/4: the whole response is as likely as it was."""
    method, settings = Method(correction=name), PolicyGradient(correction_low=low, correction_high=high)
    now, advantages = torch.tensor([[4.0, 0.25]]).log(), torch.tensor([[1.0, -1.0]])
    found = correction(method, settings, now, torch.zeros(1, 2), advantages)
    assert found[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("rewards", "told_apart"), [([[0.5, 0.5]], False), ([[0.5, 0.25]], True)])
def test_a_penalty_alone_is_not_whitened_into_an_advantage(rewards, told_apart):
    mask = torch.ones(1, 2, 2, dtype=torch.bool)
    penalty = torch.tensor([[[0.0, 0.1], [0.2, 0.0]]])
    batch = Batch(rewards=torch.tensor(rewards), valid=torch.ones(1, 2, dtype=torch.bool), mask=mask, penalty=penalty)
    found, _ = advantages_of(Method(advantage="whitened"), batch)
    assert bool(found.any()) == told_apart


def test_a_scorer_is_asked_of_the_start_and_of_every_step_end_and_paid_as_told():
    """It says the square of a state's length."""
    problem, asked = Problem("p", "t", ()), []

    class Squares:
        name = "squares"

        def score(self, states, completions):
            asked.extend(state.tokens for state in states)
            return [len(state.tokens) ** 2 / 100 for state in states]

        def cost_tokens(self, states):
            return 0

    def written(tokens):
        last = Completion(tokens, (-1.0,) * len(tokens), FinishReason.STOP)
        verdict = Verdict(Outcome.RIGHT, 1.0)
        return Trajectory(State(problem).extend(last), "", verdict, Reward(1.0), Cost(), 0, last)

    group = Group(problem, (written((5, 6, 7, 8)), written((9,))))
    own = [[[1, 3, 4], [1]]]
    values = process_rewards(Squares(), [group], own, StepSettings(process_as="values", process_weight=0.5))
    assert asked == [(), (5,), (5, 6, 7), (5, 6, 7, 8), (), (9,)]
    assert values[0][0] == pytest.approx([0.5 * 0.01, 0.5 * 0.09, 0.5 * 0.16])
    assert values[0][1] == pytest.approx([0.5 * 0.01])
