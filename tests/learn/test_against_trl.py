"""Our losses against TRL's own code, run on the same log-probs: its trainers' loss methods with the rest stubbed.

Needs the `bench` extra; importing TRL takes seconds, hence slow.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from clew.learn.advantages import group_centred, group_normalised, leave_one_out
from clew.learn.aggregate import constant_denominator, sequence_mean, token_mean
from clew.learn.kl import k3
from clew.learn.losses import cispo, clipped_surrogate, gspo
from clew.learn.off_policy import keep_good_or_near
from clew.learn.preference import (
    averaged,
    conservative_dpo,
    dpo,
    hinge,
    ipo,
    kto,
    kto_reference_point,
    margin,
    orpo,
    robust_dpo,
    simpo,
    summed,
)

pytestmark = pytest.mark.slow
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
LENGTHS = [5, 1, 3, 4, 2, 5]
ROWS, TIME = len(LENGTHS), max(LENGTHS)


@pytest.fixture(scope="module")
def trl():
    pytest.importorskip("trl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo import CPOTrainer
        from trl.experimental.orpo import ORPOTrainer
        from trl.trainer.dpo_trainer import DPOTrainer
        from trl.trainer.grpo_trainer import GRPOTrainer
        from trl.trainer.kto_trainer import KTOTrainer
        from trl.trainer.rloo_trainer import RLOOTrainer
    return SimpleNamespace(
        grpo=GRPOTrainer, rloo=RLOOTrainer, dpo=DPOTrainer, kto=KTOTrainer, orpo=ORPOTrainer, cpo=CPOTrainer
    )


def stub(**settings):
    def same(x, **_):
        return x

    accelerator = SimpleNamespace(
        device=torch.device("cpu"), num_processes=1, gather=same, gather_for_metrics=same, reduce=same
    )
    return SimpleNamespace(
        accelerator=accelerator,
        model=SimpleNamespace(training=False, is_gradient_checkpointing=False),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        **settings,
    )


def batch(seed=0):
    draw = torch.Generator().manual_seed(seed)
    logprobs, old, ref = -2 * torch.rand(3, ROWS, TIME, generator=draw)
    mask = torch.tensor([[t < n for t in range(TIME)] for n in LENGTHS])
    advantages = torch.randn(ROWS, generator=draw)
    return SimpleNamespace(
        logprobs=logprobs.masked_fill(~mask, 0.0).requires_grad_(),
        old=old.masked_fill(~mask, 0.0),
        ref=ref.masked_fill(~mask, 0.0),
        mask=mask,
        advantages=advantages,
    )


OURS = {
    ("grpo", "token"): lambda b: sequence_mean(clipped_surrogate(b.logprobs, b.old, b.advantages), b.mask),
    ("dapo", "token"): lambda b: token_mean(clipped_surrogate(b.logprobs, b.old, b.advantages, clip_high=0.28), b.mask),
    ("bnpo", "token"): lambda b: token_mean(clipped_surrogate(b.logprobs, b.old, b.advantages), b.mask),
    ("dr_grpo", "token"): lambda b: constant_denominator(
        clipped_surrogate(b.logprobs, b.old, b.advantages), b.mask, length=9
    ),
    ("cispo", "token"): lambda b: token_mean(cispo(b.logprobs, b.old, b.advantages, highest=1.5), b.mask),
    ("grpo", "sequence"): lambda b: sequence_mean(
        gspo(b.logprobs, b.old, b.advantages, b.mask, clip_low=0.2, clip_high=0.2), b.mask
    ),
}
HIGH = {"dapo": 0.28, "cispo": 1.5}


@pytest.mark.parametrize("beta", [0.0, 0.05])
@pytest.mark.parametrize(("kind", "level"), OURS)
def test_policy_losses_and_their_gradients(trl, kind, level, beta):
    b = batch()
    trainer = stub(
        _get_per_token_logps_and_entropies=lambda *_, **__: (b.logprobs, torch.zeros(ROWS, TIME), None),
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=level,
        beta=beta,
        loss_type=kind,
        epsilon_low=0.2,
        epsilon_high=HIGH.get(kind, 0.2),
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        _entropy_bonus_enabled=False,
        max_completion_length=9,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False),
    )
    ids = torch.zeros(ROWS, TIME, dtype=torch.long)
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": b.mask.int(),
        "advantages": b.advantages,
        "old_per_token_logps": b.old,
        "ref_per_token_logps": b.ref,
        "num_items_in_batch": b.mask.sum(),
    }
    theirs = trl.grpo._compute_loss(trainer, None, inputs)
    ours = OURS[kind, level](b)
    if beta:
        aggregate = {"grpo": sequence_mean, "dr_grpo": lambda x, m: constant_denominator(x, m, length=9)}
        ours = ours + beta * aggregate.get(kind, token_mean)(k3(b.logprobs, b.ref), b.mask)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    slopes = [torch.autograd.grad(loss, b.logprobs, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*slopes, **CLOSE)


def advantages_of(trainer_class, rewards, size, generated, **settings):
    """TRL's scoring of completions whose rewards are given; NaN is a completion that nothing could score."""
    count = len(rewards)
    trainer = MagicMock()
    plain = stub(
        environment_factories=None,
        tools=None,
        environments=None,
        _generate=lambda _: ([[1]] * count, [[1, 2]] * count, *generated),
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        beta=0.0,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        _calculate_rewards=lambda *_: rewards[:, None].clone(),
        _get_per_token_logps_and_entropies=lambda *_, **__: (torch.zeros(count, 2), None, None),
        num_generations=size,
        num_generations_eval=size,
        reward_weights=torch.ones(1),
        reward_funcs=[None],
        reward_func_names=["reward"],
        reward_clip_range=None,
        _logs={"prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list), "extra": {}},
        _pending_extra_logs={},
        _pending_metrics={},
        log_multimodal=False,
        **settings,
    )
    for name, value in vars(plain).items():
        setattr(trainer, name, value)
    trainer.accelerator.process_index = 0
    trainer._tokenizer.pad_token_id = 0
    return trainer_class._generate_and_score_completions(trainer, [{"prompt": "x"}] * count)["advantages"]


@pytest.mark.parametrize("unscored", [False, True])
def test_advantages(trl, unscored):
    rewards = torch.tensor([[1.0, 1, 0, 0], [0.0, 0, 0, 0], [0.5, -1, 2, 0.25]])
    if unscored:
        rewards[0, 1] = rewards[2, 0] = rewards[2, 3] = torch.nan
    valid = ~rewards.isnan()
    scaled = {"multi_objective_aggregation": "sum_then_normalize"}
    pairs = {
        group_normalised: (trl.grpo, {"scale_rewards": "group", **scaled}),
        group_centred: (trl.grpo, {"scale_rewards": "none", **scaled}),
        leave_one_out: (trl.rloo, {"normalize_advantages": False}),
    }
    texts = ["text"] * rewards.numel()
    for ours, (trainer_class, settings) in pairs.items():
        generated = (texts,) if trainer_class is trl.rloo else (None, texts, None, {}, None, None)
        theirs = advantages_of(trainer_class, rewards.flatten(), 4, generated, **settings)
        torch.testing.assert_close(ours(rewards, valid).flatten(), theirs, **CLOSE)


def test_off_policy_sequence_mask(trl):
    b = batch(1)
    ours = keep_good_or_near(b.advantages, b.logprobs, b.old, b.mask, threshold=0.1)
    theirs = trl.grpo.get_off_policy_mask(b.advantages[:, None], b.logprobs, b.old, b.mask.int(), 0.1)
    assert torch.equal(ours, theirs * b.mask)
    assert 0 < theirs.sum() < ROWS


def predicted(b):
    """What TRL's patched model answers; log-probs of masked tokens are zero, as after its label -100."""
    blank = torch.zeros(ROWS, TIME)
    return lambda **_: SimpleNamespace(log_probs=b.logprobs, entropy=blank, mean_logits=blank, is_top1=blank.bool())


PAIR_LOSSES = {
    "sigmoid": lambda s, a: dpo(s, beta=0.3),
    "hinge": lambda s, a: hinge(s, beta=0.3),
    "ipo": lambda s, a: ipo(a, beta=0.3),
    "robust": lambda s, a: robust_dpo(s, beta=0.3, flipped=0.2),
    "sigmoid_norm": lambda s, a: dpo(a, beta=0.3),
}


@pytest.mark.parametrize("kind", PAIR_LOSSES)
def test_pair_losses_and_their_gradients(trl, kind):
    b = batch(2)
    half = ROWS // 2
    trainer = stub(
        beta=0.3,
        label_smoothing=0.2,
        loss_types=[kind],
        loss_weights=[1.0],
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
    )
    ones = torch.ones(ROWS, 1, dtype=torch.long)
    inputs = {
        "input_ids": torch.zeros(ROWS, TIME + 1, dtype=torch.long),
        "attention_mask": torch.cat([ones, b.mask.long()], dim=1),
        "completion_mask": torch.cat([0 * ones, b.mask.long()], dim=1),
        "ref_chosen_logps": b.ref[:half].sum(-1),
        "ref_rejected_logps": b.ref[half:].sum(-1),
    }
    theirs = trl.dpo._compute_loss(trainer, predicted(b), inputs, False)

    def of(measure):
        now, then = measure(b.logprobs, b.mask), measure(b.ref, b.mask)
        return margin(now[:half], now[half:], then[:half], then[half:])

    ours = PAIR_LOSSES[kind](of(summed), of(averaged)).mean()
    torch.testing.assert_close(ours, theirs, **CLOSE)
    slopes = [torch.autograd.grad(loss, b.logprobs, retain_graph=True)[0][b.mask] for loss in (ours, theirs)]
    torch.testing.assert_close(*slopes, **CLOSE)


def test_kto(trl):
    b = batch(3)
    labels = torch.tensor([True, False, True, True, False, False])
    mismatched = torch.tensor([0.4, 0.1, 0.7, -0.2, 0.3, 0.5])
    trainer = stub(
        beta=0.3,
        loss_type="kto",
        desirable_weight=1.5,
        undesirable_weight=0.5,
        calculate_KL=True,
        _compute_kl_logps=lambda *_: mismatched,
    )
    ones = torch.ones(ROWS, 1, dtype=torch.long)
    inputs = {
        "label": labels,
        "input_ids": torch.zeros(ROWS, TIME + 1, dtype=torch.long),
        "attention_mask": torch.cat([ones, b.mask.long()], dim=1),
        "completion_mask": torch.cat([0 * ones, b.mask.long()], dim=1),
        "ref_logps": b.ref.sum(-1),
        "ref_KL_logps": torch.zeros(ROWS),
    }
    theirs = trl.kto._compute_loss(trainer, predicted(b), inputs, False)
    ratios = summed(b.logprobs, b.mask) - summed(b.ref, b.mask)
    point = kto_reference_point(mismatched)
    ours = kto(ratios, labels, point, beta=0.3, weight_desirable=1.5, weight_undesirable=0.5).mean()
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_reference_free_losses(trl):
    b = batch(4)
    half = ROWS // 2
    means = averaged(b.logprobs, b.mask)
    chosen, rejected = means[:half], means[half:]
    odds = trl.orpo.odds_ratio_loss(stub(beta=0.2), chosen, rejected)[0]
    torch.testing.assert_close(orpo(chosen, rejected, weight=0.2), -chosen - odds, **CLOSE)

    def cpo(kind, **settings):
        trainer = stub(alpha=0.0, loss_type=kind, **settings)
        return trl.cpo.cpo_loss(trainer, chosen, rejected)[0]

    theirs = cpo("simpo", beta=2.0, simpo_gamma=0.5, label_smoothing=0.0)
    torch.testing.assert_close(simpo(chosen, rejected, beta=2.0, target=0.5), theirs, **CLOSE)
    theirs = cpo("sigmoid", beta=0.3, label_smoothing=0.2)
    torch.testing.assert_close(conservative_dpo(chosen - rejected, beta=0.3, flipped=0.2), theirs, **CLOSE)
