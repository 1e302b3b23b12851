"""Preference learning on worlds whose best policy is known, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from one_token_world import PROBLEMS, Half, chance, distribution, learner, stage

from clew.core.errors import InvalidValue
from clew.data.export import save_rows
from clew.data.pairs import Pair
from clew.recipes import learner as learner_file
from clew.recipes.dpo import DpoConfig, _check, dpo, sampled_rows
from clew.recipes.learner import reference_copy, same_vocabulary
from clew.recipes.preference_data import examples_of, pairs_of_file
from clew.recipes.preference_settings import Preference, check_preference
from clew.recipes.preference_ways import way_of

LOSSES = ("dpo", "ipo", "cdpo", "hinge", "orpo", "simpo")
VALUES = (0.0, 0.7, 1.5)
TOKENS = (300, 301, 302)
BETA = 0.5


def pair(chosen, rejected, problem=PROBLEMS[0], **more):
    return Pair(problem=problem, chosen=chosen, rejected=rejected, chosen_value=1.0, rejected_value=0.0, **more)


def sequence_logprob(model, prompt, response):
    """Token by token, with a pass of its own for each."""
    total = 0.0
    for at, token in enumerate(response):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *response[:at]]])).logits[0, -1]
        total += float(logits.double().log_softmax(-1)[token])
    return total


def slow_loss(name, ours, theirs, lengths, flipped):
    """Each loss from four numbers, as its paper has it; beta 0.1, simpo 2."""

    def neg_log_sigmoid(x):
        return math.log1p(math.exp(-x))

    ratios = [o - t for o, t in zip(ours, theirs, strict=True)]
    margin, means = ratios[0] - ratios[1], [o / n for o, n in zip(ours, lengths, strict=True)]
    match name:
        case "dpo":
            return neg_log_sigmoid(0.1 * margin)
        case "ipo":
            return (ratios[0] / lengths[0] - ratios[1] / lengths[1] - 5.0) ** 2
        case "cdpo":
            return (1 - flipped) * neg_log_sigmoid(0.1 * margin) + flipped * neg_log_sigmoid(-0.1 * margin)
        case "hinge":
            return max(0.0, 1 - 0.1 * margin)
        case "orpo":
            odds = [m - math.log(1 - math.exp(m)) for m in means]
            return -means[0] + 0.1 * neg_log_sigmoid(odds[0] - odds[1])
        case "simpo":
            return neg_log_sigmoid(2 * (means[0] - means[1]) - 1.0)


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_an_update_is_that_of_the_paper(name, weight):
    """With `weight`, the chosen response is cloned beside it: Pang et al. 2024, equation 1."""
    who, reference = learner(), learner(seed=1).model
    pairs = [
        pair((300, 301, 1), (302, 1), chosen_visits=3, rejected_visits=1),
        pair((303, 1), (304, 305, 306, 1), problem=PROBLEMS[1], prefix=(300,), chosen_visits=2, rejected_visits=2),
    ]
    settings = Preference(loss=name, flipped="visits" if name == "cdpo" else 0.1, clone_weight=weight)
    way = way_of(settings)
    prompts = [(*who.prompt_ids(p.problem), *p.prefix) for p in pairs]
    expected = [
        slow_loss(
            name,
            [sequence_logprob(who.model, prompt, r) for r in (p.chosen, p.rejected)],
            [sequence_logprob(reference, prompt, r) for r in (p.chosen, p.rejected)],
            [len(p.chosen), len(p.rejected)],
            p.rejected_visits / 4,
        )
        - weight * sequence_logprob(who.model, prompt, p.chosen) / len(p.chosen)
        for p, prompt in zip(pairs, prompts, strict=True)
    ]
    examples = way.examples(pairs, who, reference if way.takes_reference else None)
    told = way.step(who, who.optimizer(lr_matrix=0, lr_other=0), examples, step=0, multiplier=1.0)
    assert told["loss"] == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_micro_batches_add_up_to_one_batch(monkeypatch):
    pairs = [pair((300 + at, *[301] * at, 1), (400, 1), problem=PROBLEMS[at % 4]) for at in range(6)]
    after = []
    for tokens in (10_000, 12):
        monkeypatch.setattr(learner_file, "TOKENS_PER_PASS", tokens)
        who = learner()
        way = way_of(Preference())
        examples = way.examples(pairs, who, reference_copy(who))
        optimizer = who.optimizer(lr_matrix=0.01, lr_other=0.01)
        told = way.step(who, optimizer, examples, step=0, multiplier=1.0)
        after.append((told["loss"], told["grad_norm"]))
    assert after[0] == pytest.approx(after[1], rel=1e-5)


def test_with_the_truth_about_preferences_it_finds_the_policy_that_the_rewards_imply():
    """log pi(a)/pi(b) = log ref(a)/ref(b) + (r(a) - r(b)) / beta: Rafailov et al., equation 5, on three answers."""
    who = learner()
    before = distribution(who).log()
    pairs, wrong = [], []
    for a in range(3):
        for b in range(a):
            pairs.append(pair((TOKENS[a],), (TOKENS[b],)))
            wrong.append(1 / (1 + math.exp(VALUES[a] - VALUES[b])))
    settings = Preference(loss="cdpo", beta=BETA)
    examples = examples_of(pairs, who, reference_copy(who), by_visits=0.0)
    examples = [replace(e, flipped=p) for e, p in zip(examples, wrong, strict=True)]
    optimizer = who.optimizer(lr_matrix=0.003, lr_other=0.003)
    for step in range(60):
        rate = 1 - step / 60
        way_of(settings).step(who, optimizer, examples, step=step, multiplier=rate)
    moved = (distribution(who).log() - before)[list(TOKENS)]
    assert torch.allclose(moved - moved[0], torch.tensor(VALUES).double() / BETA, atol=0.05)


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_rounds_of_its_own_samples_make_right_answers_likely(tmp_path, name):
    who, task = learner(), Half()
    before = chance(who, task)
    settings = Preference(
        loss=name,
        rounds=3,
        problems=4,
        samples=32,
        pairs=16,
        rows=16,
        max_tokens=1,
        lr_matrix=0.02,
        lr_other=0.02,
        epochs=3,
    )
    with stage(tmp_path / "run", "dpo") as at:
        told = {"learner": who, "problems": PROBLEMS, "seed": 0, "stage": at}
        dpo(settings, rows_of_round=sampled_rows(settings, task=task, **told), **told)
        lines = at.run.metrics("dpo")
    assert 0.3 < before < 0.7
    assert chance(who, task) > before + 0.2
    assert lines[-1]["kl"] > 0.0
    assert {"reward_chosen", "reward_rejected", "reward_margin", "accuracy", "chosen_logprob"} <= lines[0].keys()


def test_a_round_without_pairs_is_refused(tmp_path):
    who, task = learner(), Half(every=10**9)
    settings = Preference(problems=4, samples=4, max_tokens=1)
    with stage(tmp_path / "run", "dpo") as at:
        told = {"learner": who, "problems": PROBLEMS, "seed": 0, "stage": at}
        with pytest.raises(InvalidValue, match="pairs of round 1 is 0"):
            dpo(settings, rows_of_round=sampled_rows(settings, task=task, **told), **told)


def test_what_does_not_fit_is_refused():
    who = learner()
    long = pair((300,) * 80, (301,))
    with pytest.raises(InvalidValue, match="at most 64 tokens"):
        examples_of([long], who, None, by_visits=0.1)

    class Other:
        def get_vocab(self):
            return {"a": 0}

        def __len__(self):
            return 1

    with pytest.raises(InvalidValue, match="--reference"):
        same_vocabulary(who.tokenizer, Other(), "--reference")


@pytest.mark.parametrize(
    "changes",
    [
        {"flipped": 0.2},
        {"target": 2.0},
        {"desirable": 2.0},
        {"beta": 0.0},
        {"loss": "cdpo", "flipped": 0.5},
        {"loss": "kto", "margin": 0.5},
        {"loss": "kto", "clone_weight": 0.5},
        {"loss": "kto", "undesirable": 0.0},
    ],
    ids=str,
)
def test_settings_that_the_loss_does_not_use_are_refused(changes):
    with pytest.raises(InvalidValue):
        check_preference(Preference(**changes))


def test_a_reference_for_a_loss_without_one_is_refused(tmp_path):
    with pytest.raises(InvalidValue, match="--reference"):
        _check(DpoConfig(checkpoint=tmp_path, out=tmp_path, reference=tmp_path, settings=Preference(loss="simpo")))


def test_files_of_pairs_are_read_by_tokens_or_by_text(tmp_path):
    who = learner()
    said = [{"role": "user", "content": "1"}]
    rows = [
        {
            "prompt": said,
            "chosen": "2",
            "rejected": "3",
            "prefix_tokens": [7],
            "chosen_tokens": [8],
            "rejected_tokens": [9],
        },
        {"prompt": "1", "chosen": [{"role": "assistant", "content": "2"}], "rejected": "3"},
    ]
    for row in rows:
        save_rows(tmp_path / "one.jsonl", [row])
        (found,) = pairs_of_file(tmp_path / "one.jsonl", who)
        assert who.prompt_ids(found.problem) == who.prompt_ids(PROBLEMS[0])
        if "prefix_tokens" in row:
            assert (found.prefix, found.chosen, found.rejected) == ((7,), (8,), (9,))
        else:
            assert found.chosen == (*who.policy.encode("2"), who.end_id)
    save_rows(tmp_path / "labels.jsonl", [{"prompt": "1", "completion": "2", "label": True}])
    with pytest.raises(InvalidValue, match=r"--settings\.loss kto"):
        pairs_of_file(tmp_path / "labels.jsonl", who)
    for bad in ([], [{"prompt": "1"}], [{**rows[0], "chosen_tokens": [10**6]}], [{**rows[0], "prompt": "1"}]):
        save_rows(tmp_path / "bad.jsonl", bad)
        with pytest.raises(InvalidValue):
            pairs_of_file(tmp_path / "bad.jsonl", who)
