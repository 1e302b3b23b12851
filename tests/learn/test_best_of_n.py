"""The target of best-of-N against every way to draw N responses; divergences against loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.core.errors import InvalidValue
from clew.learn.best_of_n import best_of, best_of_n_log_weight, estimated_log_weights
from clew.learn.token_divergence import forward_kl, jensen_shannon, reverse_kl
from clew.learn.visits import value_loss, visit_cross_entropy

WORLDS = st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(WORLDS, st.integers(1, 4))
def test_best_of_n_is_what_choosing_among_all_draws_gives(world, n):
    """Ties of reward are broken at random among the draws: each tied place is as likely."""
    total = sum(weight for weight, _ in world)
    probs, rewards = [weight / total for weight, _ in world], [reward for _, reward in world]
    slow = [0.0] * len(world)
    for draws in itertools.product(range(len(world)), repeat=n):
        p = math.prod(probs[draw] for draw in draws)
        top = max(rewards[draw] for draw in draws)
        best = [draw for draw in draws if rewards[draw] == top]
        for draw in best:
            slow[draw] += p / len(best)
    lower = torch.tensor([sum(p for p, r in zip(probs, rewards, strict=True) if r < own) for own in rewards]).double()
    equal = torch.tensor([sum(p for p, r in zip(probs, rewards, strict=True) if r == own) for own in rewards]).double()
    found = torch.tensor(probs).double() * best_of_n_log_weight(lower, equal, n).exp()
    assert found.tolist() == pytest.approx(slow, abs=1e-6)


def test_estimates_count_the_sample_itself():
    weights = estimated_log_weights(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]), 2)
    # p_< and p_= of reward 1 among 3 draws and itself: 2/4 and 2/4; of reward 0: 0 and 3/4.
    assert weights.exp().tolist() == pytest.approx([(1 - 0.25) / 0.5, 0.75])
    assert estimated_log_weights(torch.tensor([1.0]), torch.zeros(5), 3).isfinite().all()


def test_the_best_is_the_first_of_equals():
    assert best_of([0.0, 1.0, 1.0], [0, 1, 2]) == 1
    with pytest.raises(InvalidValue):
        best_of_n_log_weight(torch.tensor([0.0]), torch.tensor([1.0]), 0)


def test_divergences_are_those_of_a_loop():
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, generator=draw, dtype=torch.float64)
    p, q = student.softmax(-1), teacher.softmax(-1)
    mixture = 0.3 * q + 0.7 * p

    def loop(a, b):
        return [
            sum(x * math.log(x / y) for x, y in zip(u, v, strict=True))
            for u, v in zip(a.tolist(), b.tolist(), strict=True)
        ]

    assert reverse_kl(student, teacher).tolist() == pytest.approx(loop(p, q))
    assert forward_kl(student, teacher).tolist() == pytest.approx(loop(q, p))
    expected = [0.3 * a + 0.7 * b for a, b in zip(loop(q, mixture), loop(p, mixture), strict=True)]
    assert jensen_shannon(student, teacher, weight=0.3).tolist() == pytest.approx(expected)


def test_a_token_that_one_of_them_forbids():
    student = torch.tensor([[0.0, 0.0]])
    teacher = torch.tensor([[0.0, -math.inf]])
    assert forward_kl(student, teacher).tolist() == pytest.approx([math.log(2)])
    assert reverse_kl(student, teacher).item() == math.inf
    assert jensen_shannon(student, teacher, weight=0.5).isfinite().all()


def test_the_visits_themselves_are_the_best_policy():
    shares = torch.tensor([0.7, 0.2, 0.1])
    logits = torch.zeros(3, requires_grad=True)
    visit_cross_entropy(logits.log_softmax(-1), shares).backward()
    assert torch.allclose(logits.grad, torch.full((3,), 1 / 3) - shares)
    value = torch.logit(torch.tensor([0.25])).requires_grad_()
    value_loss(value, torch.tensor([0.25])).sum().backward()
    assert value.grad.item() == pytest.approx(0.0, abs=1e-7)
