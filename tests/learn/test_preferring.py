"""What a model says of pairs, and what is logged of it: two pairs by hand."""

from __future__ import annotations

import pytest
import torch

from clew.core.errors import InvalidValue
from clew.learn.batch import Example
from clew.learn.preference import dpo
from clew.learn.preferring import (
    Chances,
    Objective,
    PairExample,
    chances,
    check_pairs,
    log_ratios,
    loss_and_notes,
    mean_logprobs,
)

PAIRS = [
    PairExample(
        chosen=Example(prompt_ids=(1, 2), response_ids=(3, 4), logprobs=(-1.0, -2.0)),
        rejected=Example(prompt_ids=(1, 2), response_ids=(5,), logprobs=(-0.5,)),
        flipped=0.25,
    ),
    PairExample(
        chosen=Example(prompt_ids=(1,), response_ids=(6,), logprobs=(-3.0,)),
        rejected=Example(prompt_ids=(1,), response_ids=(7, 8, 9), logprobs=(-1.0, -1.0, -1.0)),
    ),
]


def tenths(batch):
    """Every token has minus a tenth of its id as log-prob."""
    return torch.where(batch.target_mask, -batch.targets / 10, 0.0)


def test_what_a_model_says_of_pairs():
    told = chances(tenths, PAIRS)
    assert told.chosen.tolist() == pytest.approx([-0.7, -0.6])
    assert told.rejected.tolist() == pytest.approx([-0.5, -2.4])
    assert told.ref_chosen.tolist() == pytest.approx([-3.0, -3.0])
    assert told.ref_rejected.tolist() == pytest.approx([-0.5, -3.0])
    assert (told.chosen_tokens.tolist(), told.rejected_tokens.tolist()) == ([2, 1], [1, 3])
    assert told.flipped.tolist() == [0.25, 0.0]
    assert told.mean_chosen.tolist() == pytest.approx([-0.35, -0.6])
    assert told.mean_rejected.tolist() == pytest.approx([-0.5, -0.8])
    assert told.margin.tolist() == pytest.approx([2.3, 2.4 - 0.6])
    assert told.mean_margin.tolist() == pytest.approx([1.15, 2.4 - 0.2])
    assert [pair.num_learnt for pair in PAIRS] == [3, 4]
    assert [pair.length for pair in PAIRS] == [3 + 2, 1 + 3]


def test_rewards_are_log_ratios_or_means():
    told = chances(tenths, PAIRS)
    better, worse = log_ratios(told, beta=0.5)
    assert better.tolist() == pytest.approx([1.15, 1.2])
    assert worse.tolist() == pytest.approx([0.0, 0.3])
    better, worse = mean_logprobs(told, beta=2.0)
    assert better.tolist() == pytest.approx([-0.7, -1.2])
    assert worse.tolist() == pytest.approx([-1.0, -1.6])


def test_the_loss_is_a_share_of_the_whole_and_the_notes_are_sums():
    told = chances(tenths, PAIRS)
    objective = Objective(lambda told: dpo(told.margin, beta=0.5), lambda told: log_ratios(told, beta=0.5))
    loss, noted = loss_and_notes(objective, told, 8)
    assert loss.item() == noted.loss == pytest.approx(dpo(told.margin, beta=0.5).sum().item() / 8)
    assert noted[1:] == pytest.approx((2.35, 0.3, 2.0, -0.95))


def test_equal_rewards_are_half_right():
    zero, one = torch.zeros(3), torch.ones(3)
    told = Chances(
        chosen=torch.tensor([0.0, -1.0, 1.0]), rejected=zero, ref_chosen=zero, ref_rejected=zero,
        chosen_tokens=one, rejected_tokens=one, flipped=zero,
    )  # fmt: skip
    objective = Objective(lambda told: told.margin, lambda told: log_ratios(told, beta=1.0))
    assert loss_and_notes(objective, told, 3)[1].accuracy == 1.5


def test_a_pair_without_a_token_is_refused():
    check_pairs(PAIRS)
    for place in ("chosen", "rejected"):
        sides = {name: getattr(PAIRS[0], name) for name in ("chosen", "rejected")}
        with pytest.raises(InvalidValue, match="length of a response"):
            check_pairs([PairExample(**sides | {place: Example(prompt_ids=(1,), response_ids=())})])
