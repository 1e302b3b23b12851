"""The implicit process reward: golden values, a slow reference, and rewards at the step that matters."""

from __future__ import annotations

import copy
import math
import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.core.types import Message, Problem, State
from clew.learn.batch import Example
from clew.learn.optim import make_optimizer
from clew.models.policy import LocalPolicy
from clew.models.ratings import InMode, Ratings
from clew.reward.implicit import (
    ImplicitReward,
    JudgedResponse,
    implicit_loss,
    implicit_step,
    outcome_loss,
    reference_logprobs,
    step_rewards,
    token_rewards,
)
from clew.reward.log_ratio_q import LogRatioQ

ratios = st.lists(st.floats(-40, 0), min_size=1, max_size=12)


def test_golden_values():
    """Log-ratios 1, -2 and 5 with beta 0.05: the sum says sigmoid(0.2) = 0.549834."""
    rewards = token_rewards([-1.0, -3.0, -1.0], [-2.0, -1.0, -6.0], 0.05)
    assert rewards == pytest.approx([0.05, -0.1, 0.25])
    total = torch.tensor([4.0, 4.0])
    assert outcome_loss(total, torch.tensor([1.0, 0.0]), 0.05).tolist() == pytest.approx([0.598139, 0.798139], abs=1e-6)


@given(ratios, st.data())
def test_step_rewards_add_up_to_those_of_the_tokens(logprobs, data):
    reference = data.draw(st.lists(st.floats(-40, 0), min_size=len(logprobs), max_size=len(logprobs)))
    rewards = token_rewards(logprobs, reference, 0.3)
    stops = [*sorted(data.draw(st.lists(st.integers(0, len(rewards)), max_size=5))), len(rewards)]
    assert sum(step_rewards(rewards, stops)) == pytest.approx(0.3 * (sum(logprobs) - sum(reference)), abs=1e-9)


def test_steps_that_do_not_ascend_are_refused():
    for stops in ([2, 1], [4], [-1]):
        with pytest.raises(InvalidValue, match="ascending"):
            step_rewards([1.0, 1.0, 1.0], stops)


def drawn_responses(rng, model, count):
    pairs = [
        (
            tuple(rng.randrange(6, 300) for _ in range(rng.randint(1, 5))),
            tuple(rng.randrange(6, 300) for _ in range(rng.randint(1, 20))),
        )
        for _ in range(count)
    ]
    reference = reference_logprobs(model, [Example(prompt_ids=p, response_ids=r) for p, r in pairs])
    return [
        JudgedResponse(prompt_ids=p, response_ids=r, reference=ref, outcome=float(at % 2))
        for at, ((p, r), ref) in enumerate(zip(pairs, reference, strict=True))
    ]


def sum_of_logprobs(model, prompt, response):
    """One token after another, by the plain model."""
    logprobs = model(input_ids=torch.tensor([prompt + response])).logits[0].log_softmax(-1)
    return torch.stack([logprobs[len(prompt) - 1 + at, token] for at, token in enumerate(response)])


def moved(model, seed=9):
    """A copy of `model` with other weights."""
    model = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_reference_logprobs_are_those_of_the_plain_model(backbone):
    for response in drawn_responses(random.Random(0), backbone, 5):
        with torch.no_grad():
            expected = sum_of_logprobs(backbone, response.prompt_ids, response.response_ids).tolist()
        assert response.reference == pytest.approx(expected, abs=2e-4)


def test_an_update_follows_the_gradient_of_the_plain_loss(backbone, monkeypatch):
    monkeypatch.setattr("clew.reward.implicit.TOKENS_PER_PASS", 60)
    responses = drawn_responses(random.Random(1), backbone, 6)
    model = moved(backbone)
    reference = copy.deepcopy(model)
    terms = []
    for response in responses:
        total = sum_of_logprobs(reference, response.prompt_ids, response.response_ids).sum() - sum(response.reference)
        p = torch.sigmoid(0.2 * total)
        terms.append(-torch.log(p if response.outcome else 1 - p))
    loss = torch.stack(terms).mean()
    loss.backward()
    seen = {}

    class Recorder:
        def step(self, *, multiplier):
            seen.update({name: p.grad.clone() for name, p in model.named_parameters()})

        def zero_grad(self):
            pass

    update = implicit_step(model, Recorder(), responses, step=0, beta=0.2, max_grad_norm=1e9)
    assert update.loss == pytest.approx(loss.item(), rel=1e-4)
    assert implicit_loss(model, responses, beta=0.2) == pytest.approx(loss.item(), rel=1e-4)
    for name, parameter in reference.named_parameters():
        assert torch.allclose(seen[name], parameter.grad, rtol=1e-2, atol=1e-4), name


def test_the_reference_itself_says_a_half(backbone):
    responses = drawn_responses(random.Random(2), backbone, 4)
    assert implicit_loss(backbone, responses) == pytest.approx(math.log(2), abs=1e-5)


def test_outcomes_alone_teach_which_token_mattered(llama):
    """Four tokens, the second of which decides; the first two of others are the noise that all responses share."""
    rng = random.Random(0)
    prompt, good, bad, beta = (7, 8), 30, 31, 0.5

    def drawn(n):
        made = []
        for _ in range(n):
            right = rng.random() < 0.5
            tokens = (rng.randrange(50, 54), good if right else bad, rng.randrange(50, 54), rng.randrange(50, 54))
            made.append((Example(prompt_ids=prompt, response_ids=tokens), float(right)))
        reference = reference_logprobs(llama, [example for example, _ in made])
        return [
            JudgedResponse(prompt_ids=prompt, response_ids=tuple(e.response_ids), reference=ref, outcome=outcome)
            for (e, outcome), ref in zip(made, reference, strict=True)
        ]

    model = copy.deepcopy(llama)
    optimizer = make_optimizer(model, lr_matrix=0.01, lr_other=4e-3)
    for step in range(40):
        implicit_step(model, optimizer, drawn(32), step=step, beta=beta)
    held_out = drawn(20)
    assert implicit_loss(model, held_out, beta=beta) < 0.15
    problem = Problem("p", "t", (Message("user", "x"),))
    phi, ref = (Ratings(model=m, tokenizer=None, prompt_ids=lambda _: prompt) for m in (model, llama))
    scorer = ImplicitReward(ratio=LogRatioQ(policy=phi, reference=ref, beta=beta))
    for response in held_out:
        states = [State(problem, response.response_ids[:stop]) for stop in range(5)]
        values = scorer.score(states, [None] * 5)
        assert values[0] == 0.5
        assert (values[-1] > 0.5) == (response.outcome == 1.0)
        gains = [abs(b - a) for a, b in pairwise(values)]
        assert gains.index(max(gains)) == 1


def test_a_local_policy_and_the_plain_model_rate_alike(policy_model, tokenizer):
    policy = LocalPolicy(policy_model, tokenizer)
    problem = Problem("p", "countdown", (Message("user", "make 24 from 3 5 7 9"),))
    states = [State(problem, policy.encode(text)) for text in (" try 3 + 5 = 8", " no", " answer 7")]
    ours = InMode(policy=policy, mode="direct")
    plain = Ratings(
        model=policy_model, tokenizer=tokenizer, prompt_ids=lambda problem: policy.prompt_ids(problem, "direct")
    )
    for a, b in zip(ours.logprobs(states).logprobs, plain.logprobs(states).logprobs, strict=True):
        assert a == pytest.approx(b, abs=2e-4)
    for a, b in zip(
        ours.next_logprobs(states, ["yes", "no"]).logprobs,
        plain.next_logprobs(states, ["yes", "no"]).logprobs,
        strict=True,
    ):
        assert a == pytest.approx(b, abs=2e-4)
    assert plain.next_logprobs(states, ["no"]).tokens_read == plain.logprobs(states).tokens_read
    with pytest.raises(InvalidValue, match="single token"):
        plain.next_logprobs(states, ["yes no"])
