"""The generative judge: verdict words after solutions, learnt, and asked as a guide asks."""

from __future__ import annotations

import copy
import math
import random

import pytest
import torch

from clew.core.types import Message, Problem, Span, State
from clew.learn.optim import make_optimizer
from clew.models.ratings import Ratings
from clew.reward.generative import GenerativeReward, Verification, judge_loss, judge_step
from clew.search.guides import SelfEvaluation

PROBLEM = Problem("p", "t", (Message("user", "x"),))


def finished(tokens, end):
    return State(PROBLEM, (*tokens, end), (Span(0, len(tokens) + 1),), finished=True)


def test_the_verdict_stands_where_the_solution_put_down_its_pen():
    asked = Verification(question=(90, 91), right=4, wrong=5)
    example = asked.example((7, 8), finished((20, 21), 2), right=True)
    assert (example.prompt_ids, example.response_ids) == ((7, 8, 20, 21, 90, 91), (4,))
    unfinished = State(PROBLEM, (20, 21), (Span(0, 2),))
    assert asked.example((7, 8), unfinished, right=False).prompt_ids == (7, 8, 20, 21, 90, 91)
    assert asked.example((7, 8), unfinished, right=False).response_ids == (5,)


def test_loss_is_that_of_the_plain_model(backbone):
    asked = Verification(question=(), right=4, wrong=5)
    rng = random.Random(0)
    verdicts = [
        asked.example((7,), State(PROBLEM, tuple(rng.randrange(6, 300) for _ in range(n)), ()), right=n % 2 == 0)
        for n in (1, 2, 9, 15)
    ]
    total = 0.0
    for verdict in verdicts:
        with torch.no_grad():
            logits = backbone(input_ids=torch.tensor([verdict.prompt_ids])).logits[0, -1]
        total -= logits.log_softmax(-1)[verdict.response_ids[0]].item()
    assert judge_loss(backbone, verdicts) == pytest.approx(total / 4, rel=1e-4)


def test_a_judge_is_trained_and_guides(backbone, tokenizer):
    rng = random.Random(0)
    yes, no = (tokenizer.convert_tokens_to_ids(f"Ġ{word}") for word in ("yes", "no"))
    asked = Verification(question=(), right=yes, wrong=no)

    def drawn():
        right = rng.random() < 0.5
        tokens = (rng.randrange(50, 90), 30 if right else 31, rng.randrange(50, 90))
        return finished(tokens, tokenizer.eos_token_id), right

    model = copy.deepcopy(backbone)
    optimizer = make_optimizer(model, lr_matrix=0.01, lr_other=4e-3)
    for step in range(40):
        batch = [asked.example((7,), state, right=right) for state, right in (drawn() for _ in range(24))]
        judge_step(model, optimizer, batch, step=step)
    held_out = [drawn() for _ in range(16)]
    assert judge_loss(model, [asked.example((7,), state, right=right) for state, right in held_out]) < math.log(2) / 3
    judge = Ratings(model=model, tokenizer=tokenizer, prompt_ids=lambda problem: (7,))
    scorer = GenerativeReward(judge=SelfEvaluation(policy=judge))
    states = [state for state, _ in held_out]
    values = scorer.score(states, [None] * len(states))
    assert [value > 0.5 for value in values] == [right for _, right in held_out]
    assert scorer.cost_tokens(states[:1]) == 1 + len(states[0].tokens) - 1
