"""KTO learns from single solutions: its loss by hand, data without a single pair, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from one_token_world import PROBLEMS, Half, chance, learner, right_mask, stage

from clew.core.cost import Cost
from clew.core.errors import InvalidValue
from clew.core.task import split_of
from clew.core.types import (
    Completion,
    FinishReason,
    Group,
    Message,
    Outcome,
    Problem,
    Reward,
    State,
    Trajectory,
    Verdict,
)
from clew.data.expert import Solution
from clew.data.export import kto_rows, load_rows, save_rows
from clew.data.pairs import Pair
from clew.learn.judging import Noted
from clew.recipes import learner as learner_file
from clew.recipes.dpo import dpo
from clew.recipes.learner import Updated, check_run_tokens, reference_copy
from clew.recipes.preference_kto import Judged, judged_of_file, judged_of_run, judged_of_solutions
from clew.recipes.preference_learning import described
from clew.recipes.preference_settings import Preference
from clew.recipes.preference_ways import way_of

RIGHT, WRONG, UNSCORED = Outcome.RIGHT, Outcome.WRONG, Outcome.UNSCORED
JUDGED = [
    Judged(problem=PROBLEMS[0], tokens=(300, 301, 1), desirable=True),
    Judged(problem=PROBLEMS[1], tokens=(302, 303, 1), desirable=False, learnt=(True, False, True)),
    Judged(problem=PROBLEMS[1], tokens=(304,), desirable=False, prefix=(305,)),
    Judged(problem=PROBLEMS[2], tokens=(306, 307, 308, 1), desirable=False),
]
STRAY_OF = (1, 3, 3, 0)
"""Whose response stands after each prompt: the next of another problem."""


def sequence_logprob(model, prompt, one):
    """Of the tokens that the policy wrote, token by token, with a pass of its own for each."""
    total = 0.0
    for at, token in enumerate(one.tokens):
        if one.learnt is None or one.learnt[at]:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *one.tokens[:at]]])).logits[0, -1]
            total += float(logits.double().log_softmax(-1)[token])
    return total


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        (Preference(loss="kto", beta=0.3), (3.0, 1.0)),
        (Preference(loss="kto", beta=0.3, desirable=1.5, undesirable=0.5), (1.5, 0.5)),
    ],
)
def test_the_loss_of_an_update_is_that_of_the_paper(settings, weights):
    """Equation 8 by hand: weights, the reference point of strays, and the told token that counts nowhere."""
    who, reference = learner(), learner(seed=1).model
    prompts = [(*who.prompt_ids(one.problem), *one.prefix) for one in JUDGED]

    def ratio(prompt, one):
        return sequence_logprob(who.model, prompt, one) - sequence_logprob(reference, prompt, one)

    strays = [ratio(prompt, JUDGED[other]) for prompt, other in zip(prompts, STRAY_OF, strict=True)]
    point = max(0.0, sum(strays) / 4)
    expected = []
    for prompt, one in zip(prompts, JUDGED, strict=True):
        gain = 0.3 * (ratio(prompt, one) - point) * (1 if one.desirable else -1)
        expected.append(weights[not one.desirable] * (1 - 1 / (1 + math.exp(-gain))))
    way = way_of(settings)
    examples = way.examples(JUDGED, who, reference)
    told = way.step(who, who.optimizer(lr_matrix=0, lr_other=0), examples, step=0, multiplier=1.0)
    assert told["loss"] == pytest.approx(sum(expected) / 4, rel=1e-5)
    assert told["reference_point"] == pytest.approx(point, rel=1e-4, abs=1e-6)
    assert told["reward_chosen"] == pytest.approx(0.3 * ratio(prompts[0], JUDGED[0]), rel=1e-4)


def test_micro_batches_add_up_to_one_batch(monkeypatch):
    after = []
    for tokens in (10_000, 12):
        monkeypatch.setattr(learner_file, "TOKENS_PER_PASS", tokens)
        who = learner()
        way = way_of(Preference(loss="kto"))
        examples = way.examples(JUDGED, who, learner(seed=1).model)
        told = way.step(who, who.optimizer(lr_matrix=0.01, lr_other=0.01), examples, step=0, multiplier=1.0)
        after.append((told["loss"], told["grad_norm"], told["accuracy"]))
    assert after[0] == pytest.approx(after[1], rel=1e-5)


def test_data_in_which_no_two_solutions_can_be_compared_make_right_answers_likely(tmp_path):
    """The right ones are all of two problems, the wrong ones of two others."""
    who, task = learner(), Half()
    before = chance(who, task)
    mask = right_mask(who, task)
    rows = [
        Judged(problem=problem, tokens=(token,), desirable=bool(mask[token]))
        for at, problem in enumerate(PROBLEMS)
        for token in range(300, 420)
        if bool(mask[token]) == (at < 2)
    ]
    settings = Preference(loss="kto", rounds=1, rows=32, epochs=6, lr_matrix=0.02, lr_other=0.02, max_tokens=1)
    with stage(tmp_path / "run", "dpo") as at:
        dpo(settings, rows_of_round=lambda number: rows, learner=who, problems=PROBLEMS, seed=0, stage=at)
        lines = at.run.metrics("dpo")
    assert chance(who, task) > before + 0.1
    assert lines[0]["solutions"] == len(rows)
    assert lines[-2]["reward_margin"] > 0.0


def solution(text, outcome, problem=PROBLEMS[0], tokens=(300, 1)):
    return Solution(problem=problem, tokens=tokens, text=text, outcome=outcome, value=float(outcome is RIGHT))


def test_unscored_solutions_are_neither_and_a_cap_holds_for_either_kind():
    outcomes = (RIGHT, RIGHT, RIGHT, WRONG, WRONG, UNSCORED)
    made = [solution("", outcome, tokens=(300 + at, 1)) for at, outcome in enumerate(outcomes)]
    assert [one.desirable for one in judged_of_solutions(made, cap=None, seed=0)] == [True] * 3 + [False] * 2
    assert sorted(one.desirable for one in judged_of_solutions(made, cap=1, seed=0)) == [False, True]


def test_files_of_labels_and_of_pairs_are_both_read(tmp_path):
    who = learner()
    told = Solution(problem=PROBLEMS[0], tokens=(300, 301, 1), outcome=RIGHT, value=1.0, learnt=(True, False, True))
    save_rows(tmp_path / "labels.parquet", kto_rows([told, solution("2", WRONG)]))
    first, second = judged_of_file(tmp_path / "labels.parquet", who)
    assert (first.tokens, first.desirable, first.learnt) == ((300, 301, 1), True, (True, False, True))
    assert (second.tokens, second.desirable) == ((300, 1), False)
    assert who.prompt_ids(first.problem) == who.prompt_ids(PROBLEMS[0])
    rows = [
        {"prompt": "1", "completion": "2", "label": True},
        {"prompt": "1", "chosen": "2", "rejected": "3", "chosen_tokens": [8], "rejected_tokens": [9]},
    ]
    save_rows(tmp_path / "mixed.jsonl", rows)
    plain, chosen, rejected = judged_of_file(tmp_path / "mixed.jsonl", who)
    assert plain.tokens == (*who.policy.encode("2"), who.end_id)
    assert (chosen.tokens, chosen.desirable, rejected.tokens, rejected.desirable) == ((8,), True, (9,), False)
    for bad in ([], [{"prompt": "1", "completion": "2"}], [{**rows[0], "label": "yes"}]):
        save_rows(tmp_path / "bad.jsonl", bad)
        with pytest.raises(InvalidValue):
            judged_of_file(tmp_path / "bad.jsonl", who)
    assert load_rows(tmp_path / "labels.parquet")[0]["label"] is True


def kept_run(path, outcomes):
    """A run whose store holds one group a training problem, of one sample each."""
    named = (Problem(f"half:{at}", "half", (Message("user", "1"),)) for at in range(100))
    problems = [problem for problem in named if split_of(problem.id) == "train"][: len(outcomes)]
    with stage(path, "rl") as at:
        for place, (problem, outcome) in enumerate(zip(problems, outcomes, strict=True)):
            done = Completion((300 + place,), (-1.0,), FinishReason.STOP, "v")
            one = Trajectory(
                state=State(problem, done.tokens),
                completion=done,
                text="2",
                verdict=Verdict(outcome, float(outcome is RIGHT), "2"),
                reward=Reward(float(outcome is RIGHT)),
                cost=Cost(),
                seed=0,
            )
            at.keep([Group(problem, (one,))])
    return path


def test_a_run_in_which_every_problem_was_tried_once_is_enough(tmp_path):
    found = judged_of_run(kept_run(tmp_path / "run", [RIGHT, WRONG, WRONG]), Preference(loss="kto"), seed=0)
    assert sorted((one.tokens, one.desirable) for one in found) == [((300,), True), ((301,), False), ((302,), False)]


def test_a_run_without_checkpoints_of_its_own_is_taken_at_its_word(tmp_path):
    run = kept_run(tmp_path / "run", [RIGHT, WRONG])
    assert list((run / "checkpoints").iterdir()) == []
    check_run_tokens(run, learner(), "--data")


def test_a_run_of_one_kind_alone_is_refused(tmp_path):
    with pytest.raises(InvalidValue, match="only wrong ones"):
        judged_of_run(kept_run(tmp_path / "run", [WRONG, WRONG]), Preference(loss="kto"), seed=0)


def test_samples_of_one_kind_alone_teach_nothing_and_what_does_not_fit_is_refused():
    who, way = learner(), way_of(Preference(loss="kto"))
    assert way.of_groups([], 0) == []
    long = Judged(problem=PROBLEMS[0], tokens=(300,) * 80, desirable=True)
    with pytest.raises(InvalidValue, match="at most 64 tokens"):
        way.examples([long, JUDGED[1]], who, reference_copy(who))


def test_a_stray_that_would_not_fit_is_cut_off():
    """Each fits after its own prompt, but not after the longer one of the other."""
    who, way = learner(), way_of(Preference(loss="kto"))
    wordy = Problem("half:wordy", "half", (Message("user", "1 " * 20),))
    room = 64 - len(who.prompt_ids(PROBLEMS[0]))
    rows = [
        Judged(problem=PROBLEMS[0], tokens=(300,) * room, desirable=True),
        Judged(problem=wordy, tokens=(301,), desirable=False),
    ]
    examples = way.examples(rows, who, reference_copy(who))
    stray = examples[1].stray
    assert len(stray.prompt_ids) + len(stray.response_ids) == 64
    assert len(stray.logprobs) == len(stray.response_ids)


def test_both_sides_of_a_pair_of_steps_stand_for_themselves():
    from clew.recipes.preference_kto import judged_of_pairs

    shared = {"problem": PROBLEMS[0], "prefix": (7,), "chosen_value": 1.0, "rejected_value": 0.0}
    pairs = [Pair(**shared, chosen=(8,), rejected=(9,)), Pair(**shared, chosen=(8,), rejected=(10,))]
    found = [(one.prefix, one.tokens, one.desirable) for one in judged_of_pairs(pairs)]
    assert found == [((7,), (8,), True), ((7,), (9,), False), ((7,), (10,), False)]


@pytest.mark.parametrize(
    ("good", "bad", "chosen", "rejected", "margin", "logprob"),
    [(2, 3, 2.0, -1.0, 3.0, -0.5), (5, 0, 0.8, None, None, -0.2), (0, 5, None, -0.6, None, None)],
)
def test_sums_of_micro_batches_are_told_as_means_of_their_kind(good, bad, chosen, rejected, margin, logprob):
    parts = [Noted(0.25, 1.0, -2.0, 1.0, -0.75), Noted(0.5, 3.0, -1.0, 2.5, -0.25)]
    told = described(Updated(parts, 7.0), good=good, bad=bad, rows=5)
    assert told == {
        "loss": 0.75,
        "grad_norm": 7.0,
        "reward_chosen": chosen,
        "reward_rejected": rejected,
        "reward_margin": margin,
        "accuracy": 0.7,
        "chosen_logprob": logprob,
    }
