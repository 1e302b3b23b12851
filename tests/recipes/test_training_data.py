"""Training data as examples: exact ids, and losses equal to those worked out token by token."""

from __future__ import annotations

import math

import pytest
import torch

from clew.core.types import Message, Outcome, Problem
from clew.data.expert import Solution
from clew.data.pairs import Pair
from clew.learn.batch import pad
from clew.learn.preference import dpo, margin, summed
from clew.models.architecture import SmallQwen3, build_model
from clew.models.forward import token_logprobs
from clew.models.policy import LocalPolicy
from clew.models.tokenizer import build_tokenizer
from clew.recipes.training_data import (
    pair_examples,
    pair_ids,
    prompts_of,
    solution_example,
)

PROBLEM = Problem("countdown:3-5=8", "countdown", (Message("user", "make 8 from 3 5"),))
CLOSE = 1e-5


@pytest.fixture(scope="module")
def policy():
    tokenizer = build_tokenizer()
    size = SmallQwen3(width=48, layers=1, heads=2, head_width=24, ffn_width=48)
    return LocalPolicy(build_model(size, tokenizer, 0), tokenizer)


@pytest.fixture(scope="module")
def prompt_ids(policy):
    return prompts_of(policy, "direct")


def logprob(policy, context, tokens):
    """Of `tokens` after `context`, one forward pass a token."""
    total, ids = 0.0, list(context)
    with torch.no_grad():
        for token in tokens:
            logits = policy.model(input_ids=torch.tensor([ids])).logits[0, -1].double()
            total += torch.log_softmax(logits, -1)[token].item()
            ids.append(token)
    return total


def of_batch(policy, examples):
    batch = pad(examples)
    with torch.no_grad():
        found = token_logprobs(policy.model, batch.input_ids, batch.targets, batch.target_mask).logprobs
    return summed(found, batch.target_mask), batch


def test_ids_are_those_of_the_mode(policy, prompt_ids):
    assert tuple(prompt_ids(PROBLEM)) == policy.prompt_ids(PROBLEM, "direct") != policy.prompt_ids(PROBLEM, "think")


def test_solutions_keep_their_tokens_and_what_was_told(policy, prompt_ids):
    one = Solution(
        problem=PROBLEM,
        tokens=(5, 6, 7),
        outcome=Outcome.RIGHT,
        logprobs=(-0.5, 0.0, -0.25),
        learnt=(True, False, True),
    )
    example = solution_example(one, prompt_ids, advantage=0.5)
    assert (tuple(example.prompt_ids), example.response_ids) == (policy.prompt_ids(PROBLEM, "direct"), (5, 6, 7))
    assert (example.logprobs, example.num_learnt, example.advantage) == ((-0.5, 0.0, -0.25), 2, 0.5)
    total, batch = of_batch(policy, [example])
    context = policy.prompt_ids(PROBLEM, "direct")
    expected = logprob(policy, context, (5,)) + logprob(policy, (*context, 5, 6), (7,))
    assert total.item() == pytest.approx(expected, abs=CLOSE)
    assert batch.old_logprobs[batch.target_mask].tolist() == [-0.5, -0.25]


def test_pairs_give_the_loss_of_dpo(policy, prompt_ids):
    pair = Pair(problem=PROBLEM, prefix=(5,), chosen=(6, 7), rejected=(8,), chosen_value=1.0, rejected_value=0.0)
    (ids,) = pair_ids([pair], prompt_ids)
    assert ids == ((*policy.prompt_ids(PROBLEM, "direct"), 5), (6, 7), (8,))
    ((chosen, rejected),) = pair_examples([pair], prompt_ids)
    totals, _ = of_batch(policy, [chosen, rejected])
    reference = torch.tensor([-3.0, -4.0])
    loss = dpo(margin(totals[:1], totals[1:], reference[:1], reference[1:]), beta=0.5).item()
    better, worse = (logprob(policy, ids.prompt, tokens) for tokens in (ids.chosen, ids.rejected))
    expected = math.log1p(math.exp(-0.5 * ((better + 3.0) - (worse + 4.0))))
    assert loss == pytest.approx(expected, abs=CLOSE)
