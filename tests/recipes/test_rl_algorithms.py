"""Names and what they stand for; settings that do not fit; what tokens are worth, against slow loops."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from clew.cli import parse
from clew.core.errors import InvalidValue
from clew.core.types import Completion, Cost, FinishReason, Group, Outcome, Problem, Reward, State, Trajectory, Verdict
from clew.recipes.rl_algorithms import ALGORITHMS, Method, method_of, resolved_settings
from clew.recipes.rl_credit import Batch, advantages_of, padded, padded_stops, process_rewards
from clew.recipes.rl_settings import Algorithm, CriticSettings, PolicyGradient, StepSettings

HOW_TO = Path(__file__).parents[2] / "docs/how-to/train-with-rl.md"


def test_every_name_stands_for_parts_and_any_part_can_be_another():
    assert set(ALGORITHMS) == set(get_args(Algorithm))
    for name, method in ALGORITHMS.items():
        assert method_of(PolicyGradient(algorithm=name)) == method
    mixed = method_of(PolicyGradient(algorithm="gspo", advantage="leave-one-out", minibatches=2))
    assert (mixed.advantage, mixed.loss, mixed.minibatches) == ("leave-one-out", "gspo", 2)


def test_the_default_is_what_it_always_was():
    method = method_of(PolicyGradient())
    assert (method.advantage, method.loss, method.aggregation) == ("centred", "clipped", "tokens")
    assert (method.clip_low, method.clip_high, method.epochs, method.minibatches, method.draws) == (0.2, 0.28, 1, 1, 1)
    assert (method.kl, method.correction, method.counted) == ("none", "none", "teaching")


def test_what_is_saved_leaves_nothing_to_the_name():
    saved = resolved_settings(PolicyGradient(algorithm="dapo"))
    assert all(getattr(saved, field.name) is not None for field in fields(Method))
    assert saved.draws == 4
    assert method_of(saved) == ALGORITHMS["dapo"]


def test_the_command_line_takes_names_and_parts():
    config = parse("rl", ["--checkpoint", "a", "--out", "b", "--algorithm", "ppo", "--settings.critic.body", "own"])
    assert config.algorithm == "ppo"
    assert config.settings.critic.body == "own"


def test_the_documented_table_is_the_code():
    rows = {}
    for line in HOW_TO.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
        if len(cells) == 7 and cells[0] in ALGORITHMS:
            rows[cells[0]] = cells[1:]
    assert set(rows) == set(ALGORITHMS)
    for name, (advantage, loss, aggregation, clip, kl, updates) in rows.items():
        method = ALGORITHMS[name]
        assert (advantage, loss, aggregation) == (method.advantage, method.loss, method.aggregation)
        if loss != "reinforce":
            low, high = (float(number) for number in re.findall(r"[\d.e-]+", clip))
            assert (low, high) == (method.clip_low, method.clip_high)
        assert kl.split(" ")[0].strip("`") == method.kl
        if method.kl != "none":
            assert float(kl.split(" ")[-1]) == method.kl_coefficient
        assert int(updates) == method.epochs * method.minibatches


@pytest.mark.parametrize("name", ["grpo", "dr-grpo", "rloo", "prime", "reinforce++-baseline", "clew"])
def test_a_group_of_one_has_nothing_to_be_compared_with(name):
    with pytest.raises(InvalidValue, match="group_size is 1") as raised:
        method_of(PolicyGradient(algorithm=name, group_size=1))
    assert "remax" in raised.value.advice


@pytest.mark.parametrize("name", ["reinforce", "remax", "ppo", "reinforce++"])
def test_a_baseline_from_elsewhere_needs_no_group(name):
    assert method_of(PolicyGradient(algorithm=name, group_size=1)) == ALGORITHMS[name]


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "tree", "reward": ("verifier", "overlong")},
        {"algorithm": "tree", "kl": "k1-reward"},
        {"algorithm": "tree", "draws": 2},
        {"algorithm": "cispo", "clip_low": 1.5},
        {"epochs": 0},
    ],
)
def test_parts_that_do_not_fit_are_refused(changes):
    with pytest.raises(InvalidValue):
        method_of(PolicyGradient(**changes))


def test_settings_out_of_range_are_refused():
    for make in (
        lambda: CriticSettings(lam=1.5),
        lambda: CriticSettings(clip=math.nan),
        lambda: StepSettings(rollouts=0),
    ):
        with pytest.raises(InvalidValue):
            make()


def test_asynchronous_sampling_is_corrected_unless_told_otherwise():
    assert method_of(PolicyGradient(asynchronous=True)).correction == "truncated"
    assert method_of(PolicyGradient(asynchronous=True, correction="none")).correction == "none"


def test_a_penalty_that_is_asked_for_has_a_coefficient():
    assert method_of(PolicyGradient(kl="k3-loss")).kl_coefficient > 0
    assert method_of(PolicyGradient(kl="k3-loss", kl_coefficient=0.5)).kl_coefficient == 0.5


# Two groups of three responses; steps of two tokens, the last as long as what is left.
LENGTHS = [[4, 3, 1], [2, 5, 4]]


def answered(problem, tokens):
    completion = Completion(tokens, (-1.0,) * len(tokens), FinishReason.STOP)
    state = State(problem).extend(completion)
    verdict = Verdict(Outcome.WRONG, 0.0)
    return Trajectory(state, "", verdict, Reward(0.0), Cost(), seed=0, completion=completion)


REWARDS = [[1.0, 0.0, 0.5], [0.0, math.nan, 1.0]]
VALID = [[True, True, True], [True, False, True]]


def a_batch(**parts):
    mask = torch.arange(5) < torch.tensor(LENGTHS)[..., None]
    return Batch(rewards=torch.tensor(REWARDS), valid=torch.tensor(VALID), mask=mask, **parts)


def stops():
    return [[[*range(2, length, 2), length] for length in row] for row in LENGTHS]


def process():
    """A different number for every step."""
    return [
        [[0.1 * (i + 1) - 0.07 * j + 0.01 * k for k in range(len(own))] for j, own in enumerate(row)]
        for i, row in enumerate(stops())
    ]


def with_steps(**parts):
    own = padded_stops(stops())
    paid = padded([torch.tensor(x) for row in process() for x in row], tuple(own.shape))
    return a_batch(stops=own, process=paid, **parts)


def test_without_steps_every_token_has_the_advantage_of_its_response():
    found, returns = advantages_of(Method(advantage="centred"), a_batch())
    assert returns is None
    for g, rewards in enumerate(REWARDS):
        scored = [r for r, ok in zip(rewards, VALID[g], strict=True) if ok]
        for i, reward in enumerate(rewards):
            expected = reward - statistics.mean(scored) if VALID[g][i] else 0.0
            own = [expected] * LENGTHS[g][i] + [0.0] * (5 - LENGTHS[g][i])
            assert found[g, i].tolist() == pytest.approx(own, abs=1e-6)


@pytest.mark.parametrize("name", ["leave-one-out", "greedy", "moving-average"])
def test_process_rewards_are_returns_to_go_less_the_baseline(name):
    greedy = torch.tensor([0.25, math.nan])
    found, _ = advantages_of(Method(advantage=name), with_steps(greedy=greedy, average=0.4))
    for g, rewards in enumerate(REWARDS):
        to_go = [
            [sum(own[k:]) + reward for k in range(len(own))] for own, reward in zip(process()[g], rewards, strict=True)
        ]
        for i, own in enumerate(stops()[g]):
            expected = [0.0] * 5
            for k, stop in enumerate(own):
                others = [to_go[j][k] if k < len(to_go[j]) else 0.0 for j in range(3) if j != i and VALID[g][j]]
                baseline = {
                    "leave-one-out": statistics.mean(others),
                    "greedy": greedy[g].item(),
                    "moving-average": 0.4,
                }[name]
                worth = to_go[i][k] - baseline
                start = own[k - 1] if k else 0
                expected[start:stop] = [worth if VALID[g][i] and not math.isnan(worth) else 0.0] * (stop - start)
            assert found[g, i].tolist() == pytest.approx(expected, abs=1e-5), (name, g, i)


def paid_at(g, i, k):
    """What step k of a response is paid: half of the reward is its last one's."""
    return process()[g][i][k] + (0.5 * REWARDS[g][i] if k == len(stops()[g][i]) - 1 else 0.0)


def test_progress_is_the_outcomes_advantage_and_what_the_step_is_paid_above_the_same_step_of_others():
    batch = replace(with_steps(), credit="progress", weight=0.5)
    found, _ = advantages_of(Method(advantage="leave-one-out"), batch)
    for g, rewards in enumerate(REWARDS):
        for i, own in enumerate(stops()[g]):
            expected = [0.0] * 5
            others = [j for j in range(3) if j != i and VALID[g][j]]
            outcome = rewards[i] - statistics.mean(rewards[j] for j in others)
            for k, stop in enumerate(own if VALID[g][i] else []):
                alike = [paid_at(g, j, k) for j in others if k < len(stops()[g][j])]
                paid = paid_at(g, i, k) - (statistics.mean(alike) if alike else 0.0)
                start = own[k - 1] if k else 0
                expected[start:stop] = [outcome + paid] * (stop - start)
            assert found[g, i].tolist() == pytest.approx(expected, abs=1e-5), (g, i)


@pytest.mark.parametrize(
    ("name", "credit"), [("ppo", "progress"), ("reinforce++", "joint"), ("prime", "progress"), ("remax", "joint")]
)
def test_comparisons_of_steps_that_the_advantage_has_not_are_refused(name, credit):
    steps = StepSettings(process=Path("reward"), process_credit=credit)
    with pytest.raises(InvalidValue, match=credit):
        method_of(PolicyGradient(algorithm=name, step_credit=steps))
    method_of(PolicyGradient(algorithm="grpo", step_credit=steps))


def test_progress_is_of_differences_alone():
    steps = StepSettings(process=Path("reward"), process_credit="progress", process_as="values")
    with pytest.raises(InvalidValue, match="process_as"):
        method_of(PolicyGradient(algorithm="grpo", step_credit=steps))


def test_differences_telescope_to_minus_the_start_because_an_end_has_no_future():
    """Potential-based shaping (Ng et al. 1999): all responses to a problem are paid the same in sum."""
    problem = Problem("one", "none", ())
    trajectories = [answered(problem, tuple(range(length))) for length in (1, 4, 3)]

    class Length:
        def score(self, states, completions):
            return [0.3 + 0.1 * len(state.tokens) for state in states]

    ends = [[1], [2, 4], [1, 2, 3]]
    paid = process_rewards(Length(), [Group(problem, tuple(trajectories))], [ends], StepSettings(process_weight=2.0))
    for own in paid[0]:
        assert sum(own) == pytest.approx(2.0 * -0.3)
    assert paid[0][1] == pytest.approx([2.0 * 0.2, 2.0 * -0.5])


@pytest.mark.parametrize("prover", [1, 3])
def test_the_prover_takes_the_best_of_so_many(prover):
    """What is paid is the rise of the chance that one of `prover` responses is right, here counted out."""
    problem = Problem("one", "none", ())
    response, chances = answered(problem, (1, 2, 3)), {0: 0.1, 2: 0.5, 3: 0.9}

    class Chances:
        def score(self, states, completions):
            return [chances[len(state.tokens)] for state in states]

    def one_right(chance):
        fails = itertools.product([1.0 - min(chance, 1.0), min(chance, 1.0)], repeat=prover)
        return sum(
            math.prod(each)
            for each, which in zip(fails, itertools.product([0, 1], repeat=prover), strict=True)
            if any(which)
        )

    settings = StepSettings(process_prover=prover, process_weight=2.0)
    paid = process_rewards(Chances(), [Group(problem, (response,))], [[[2, 3]]], settings)
    known = [one_right(chances[0]), one_right(chances[2])]
    assert paid[0][0] == pytest.approx([2.0 * (known[1] - known[0]), 2.0 * -known[1]])
    with pytest.raises(InvalidValue, match="process_prover"):
        StepSettings(process_prover=0)


def test_a_penalty_is_taken_from_the_whole_response_or_from_each_token():
    penalty = torch.full((2, 3, 5), 0.1)
    whole, _ = advantages_of(Method(advantage="leave-one-out"), a_batch(penalty=penalty))
    taken = [r - 0.1 * length for r, length in zip(REWARDS[0], LENGTHS[0], strict=True)]
    assert whole[0, 0, 0].item() == pytest.approx(taken[0] - (taken[1] + taken[2]) / 2, abs=1e-6)
    assert not whole[1, 1].any()

    tokens, _ = advantages_of(Method(advantage="whitened"), a_batch(penalty=penalty))
    to_go = {
        (g, i, t): REWARDS[g][i] - 0.1 * (LENGTHS[g][i] - t)
        for g in range(2)
        for i in range(3)
        if VALID[g][i]
        for t in range(LENGTHS[g][i])
    }
    mean, deviation = statistics.mean(to_go.values()), statistics.stdev(to_go.values())
    for at, value in to_go.items():
        assert tokens[at].item() == pytest.approx((value - mean) / deviation, abs=1e-4)


def test_gae_is_whitened_and_tells_the_critic_the_return():
    values = torch.arange(30.0).view(2, 3, 5) / 30
    found, returns = advantages_of(Method(advantage="gae"), with_steps(values=values), gamma=0.9, lam=0.8)
    raw = {}
    for g in range(2):
        for i in range(3):
            rewards = [0.0] * LENGTHS[g][i]
            for k, stop in enumerate(stops()[g][i]):
                rewards[stop - 1] += process()[g][i][k]
            rewards[-1] += REWARDS[g][i]
            following = advantage = 0.0
            for t in reversed(range(LENGTHS[g][i])):
                advantage = rewards[t] + 0.9 * following - values[g, i, t].item() + 0.9 * 0.8 * advantage
                following = values[g, i, t].item()
                if VALID[g][i]:
                    raw[g, i, t] = advantage
                    assert returns[g, i, t].item() == pytest.approx(advantage + following, abs=1e-5)
    mean, deviation = statistics.mean(raw.values()), statistics.stdev(raw.values())
    for at, value in raw.items():
        assert found[at].item() == pytest.approx((value - mean) / deviation, abs=1e-4)
    assert not found[1, 1].any()


def test_step_values_are_differences_and_what_is_not_known_is_zero():
    own = padded_stops(stops())
    values = torch.zeros(2, 3, own.shape[-1] + 1)
    values[0, 0, :3] = torch.tensor([0.25, 0.75, 1.0])
    values[0, 1, :3] = torch.tensor([0.5, math.nan, 0.0])
    found, _ = advantages_of(Method(advantage="step-values"), a_batch(stops=own, step_values=values))
    assert found[0, 0].tolist() == pytest.approx([0.5, 0.5, 0.25, 0.25, 0.0])
    assert found[0, 1].tolist() == [0.0] * 5


def test_implicit_rewards_and_outcomes_each_above_the_others():
    implicit = torch.arange(30.0).view(2, 3, 5).sin()
    found, _ = advantages_of(Method(advantage="implicit"), a_batch(implicit=implicit))
    raw = {}
    for g in range(2):
        scored = [i for i in range(3) if VALID[g][i]]
        means = {i: implicit[g, i, : LENGTHS[g][i]].mean().item() for i in scored}
        for i in scored:
            others = [j for j in scored if j != i]
            outcome = REWARDS[g][i] - statistics.mean(REWARDS[g][j] for j in others)
            base = statistics.mean(means[j] for j in others)
            for t in range(LENGTHS[g][i]):
                raw[g, i, t] = outcome + sum(implicit[g, i, s].item() - base for s in range(t, LENGTHS[g][i]))
    mean, deviation = statistics.mean(raw.values()), statistics.stdev(raw.values())
    for at, value in raw.items():
        assert found[at].item() == pytest.approx((value - mean) / deviation, abs=1e-4)
