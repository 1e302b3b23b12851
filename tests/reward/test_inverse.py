"""The reward from demonstrations: what the classifier is shown, and that its logit is what is scored."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clew.core.types import State
from clew.learn.optim import make_optimizer
from clew.models.tokenizer import FastCodec
from clew.models.value_head import ValueReader
from clew.reward.fit import probabilities, value_step
from clew.reward.inverse import DemonstratedReward, contrast, log_ratios
from clew.tasks import Countdown

PROBLEM = Countdown().problem({"numbers": [3, 5, 7, 9], "target": 30})


def test_demonstrations_and_own_solutions_alternate_problem_by_problem():
    first, second, third, fourth = contrast([(1,), (2, 3)], [(4, 5), (6,)], [(7,), (8, 9)], end_weight=5.0)
    assert [e.ids for e in (first, second, third, fourth)] == [(1, 4, 5), (1, 7), (2, 3, 6), (2, 3, 8, 9)]
    assert [set(e.labels) for e in (first, second, third, fourth)] == [{1.0}, {0.0}, {1.0}, {0.0}]
    assert first.weights == (1.0, 1.0, 5.0)
    with pytest.raises(ValueError, match="zip"):
        contrast([(1,)], [(4,), (5,)], [(7,)])


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_log_ratios_are_finite_logits_in_order(probs):
    found = log_ratios(probs)
    assert all(math.isfinite(x) for x in found)
    for p, x in zip(probs, found, strict=True):
        if 1e-5 < p < 1 - 1e-5:
            assert 1 / (1 + math.exp(-x)) == pytest.approx(p)
    order = np.argsort(probs)
    assert (np.diff(np.array(found)[order]) >= 0).all()


def test_the_best_classifier_of_a_softly_optimal_expert_has_the_reward_as_its_logit():
    """Six texts, a random policy and reward: minimise the cross-entropy by gradient, compare with the reward."""
    rng = np.random.default_rng(0)
    policy, reward = rng.dirichlet(np.full(6, 20.0)), rng.normal(size=6)
    expert = policy * np.exp(reward) / (policy * np.exp(reward)).sum()
    logits = np.zeros(6)
    for _ in range(5000):
        said = 1 / (1 + np.exp(-logits))
        logits += 4.0 * (expert * (1 - said) - policy * said)
    assert logits - logits.mean() == pytest.approx(reward - reward.mean(), abs=1e-3)


def test_on_every_text_of_a_world_the_recovered_reward_is_the_true_one_and_ranks_policies_as_it_does(value_model):
    """Nine texts of two tokens, shown and sampled as often as an expert and a policy write them.

    At the end of a text the logit is its reward less log Z; after the first token the soft value
    log E[exp(r) | token] less log Z; before it nothing. Policies that differ in what they earn come in the true order.
    """
    rng = np.random.default_rng(1)
    texts = list(itertools.product((300, 301, 302), repeat=2))
    policy, reward = rng.dirichlet(np.full(9, 5.0)), rng.normal(size=9)
    earned = policy * np.exp(reward)
    prompt = (5, 6)
    pairs = contrast([prompt] * 9, texts, texts)
    often = [share for both in zip(earned / earned.sum(), policy, strict=True) for share in both]
    examples = [replace(e, weights=tuple(w * p for w in e.weights)) for e, p in zip(pairs, often, strict=True)]
    model = copy.deepcopy(value_model)
    optimizer = make_optimizer(model, lr_matrix=0.01, lr_other=0.01)
    for step in range(150):
        value_step(model, optimizer, examples, step=step, multiplier=1 - step / 150)
    rows = [log_ratios(said) for said in probabilities(model, examples[::2])]
    log_z = math.log(earned.sum())
    recovered = np.array([row[2] for row in rows])
    assert recovered == pytest.approx(reward - log_z, abs=0.1)
    for at, (first, _) in enumerate(texts):
        alike = [i for i, text in enumerate(texts) if text[0] == first]
        assert rows[at][1] == pytest.approx(math.log(earned[alike].sum() / policy[alike].sum()) - log_z, abs=0.1)
        assert rows[at][0] == pytest.approx(0.0, abs=0.1)
    others = rng.dirichlet(np.full(9, 0.5), size=40)
    for one, other in itertools.combinations(others, 2):
        if abs((one - other) @ reward) > 0.1:
            assert ((one - other) @ recovered > 0) == ((one - other) @ reward > 0)


def test_a_score_is_the_logit_of_transformers(value_model, tokenizer):
    codec = FastCodec(tokenizer)
    scorer = DemonstratedReward(reader=ValueReader(value_model), codec=codec)
    states = [State(PROBLEM, tuple(codec.encode_words(words))) for words in ("try 9 - 7 = 2", "try 9", "try 9")]
    assert scorer.cost_tokens(states) > 0
    found = scorer.score(states, [None] * 3)
    for state, score in zip(states, found, strict=True):
        context = scorer._context(state)
        with torch.no_grad():
            logit = value_model(input_ids=torch.tensor([context])).logits[0, -1, 0].item()
        assert score == pytest.approx(logit, abs=1e-3)
    assert scorer.cost_tokens(states) > 0
    assert scorer.name == "demonstrated"
