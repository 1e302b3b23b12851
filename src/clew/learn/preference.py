"""Losses of preference pairs, [batch], from log-probs of whole responses in nats. Average them for a number.

`margin` is the sum over the chosen response of log p - log p_ref, minus the same of the rejected one. A pair may be of
whole responses or of single steps after a shared beginning: the shared tokens cancel, so Step-DPO (arXiv 2406.18629)
and MCTS-DPO (arXiv 2405.00451) are these losses with a mask that marks the steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_MEAN_LOGPROB = -1e-6
"""`orpo` takes no mean log-prob above it, where the log-odds would be infinite; no gradient flows there."""


def summed(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Log-prob [batch] of the unmasked tokens of [batch, time]; masked ones may be NaN."""
    return torch.where(mask, logprobs, 0.0).sum(-1)


def averaged(logprobs: Tensor, mask: Tensor) -> Tensor:
    """The same per token; 0 for a row that is masked altogether."""
    return summed(logprobs, mask) / mask.sum(-1).clamp(min=1)


def margin(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """(chosen - ref_chosen) - (rejected - ref_rejected), any shape."""
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def dpo(margins: Tensor, *, beta: float = 0.1) -> Tensor:
    """-log sigmoid(beta margin): Rafailov et al. 2023, arXiv 2305.18290, equation 7."""
    return -F.logsigmoid(beta * margins)


def conservative_dpo(margins: Tensor, *, beta: float = 0.1, flipped: float | Tensor = 0.1) -> Tensor:
    """`dpo` against a label that is wrong with probability `flipped`, a number or [batch]; least at its log-odds.

    Mitchell 2023, https://ericmitchell.ai/cdpo.pdf. With `flipped` from `visit_uncertainty` it is MCTS-DPO
    (Xie et al. 2024, arXiv 2405.00451, equation 7).
    """
    return (1 - flipped) * dpo(margins, beta=beta) + flipped * dpo(-margins, beta=beta)


def visit_uncertainty(chosen_visits: Tensor, rejected_visits: Tensor) -> Tensor:
    """N(rejected) / (N(chosen) + N(rejected)): how little the search was sure, 1/2 where neither was visited."""
    total = chosen_visits + rejected_visits
    return torch.where(total > 0, rejected_visits / total.clamp(min=1), 0.5)


def robust_dpo(margins: Tensor, *, beta: float = 0.1, flipped: float = 0.1) -> Tensor:
    """What has the expectation of `dpo` on true labels when a share `flipped` < 1/2 of the labels is wrong.

    Chowdhury et al. 2024, arXiv 2403.00409, equation 12.
    """
    right, wrong = dpo(margins, beta=beta), dpo(-margins, beta=beta)
    return ((1 - flipped) * right - flipped * wrong) / (1 - 2 * flipped)


def hinge(margins: Tensor, *, beta: float = 0.1) -> Tensor:
    """max(0, 1 - beta margin): SLiC (Zhao et al. 2023, arXiv 2305.10425) with a reference."""
    return (1 - beta * margins).clamp(min=0)


def ipo(margins: Tensor, *, beta: float = 0.1) -> Tensor:
    """(margin - 1 / (2 beta))^2: Azar et al. 2023, arXiv 2310.12036, equation 17.

    Give margins of `averaged` log-probs: TRL confirmed with the authors that theirs are. OpenRLHF gives `summed` ones.
    """
    return (margins - 1 / (2 * beta)).square()


def kto(
    log_ratios: Tensor,
    desirable: Tensor,
    reference_point: Tensor | float,
    *,
    beta: float = 0.1,
    weight_desirable: float = 1.0,
    weight_undesirable: float = 1.0,
) -> Tensor:
    """Of single responses [batch], each desirable (bool) or not: Ethayarajh et al. 2024, arXiv 2402.01306, equation 8.

    `log_ratios` are sums of log p - log p_ref; `reference_point` comes from `kto_reference_point`.
    """
    gain = beta * (log_ratios - reference_point)
    return torch.where(desirable, weight_desirable * (1 - gain.sigmoid()), weight_undesirable * (1 - (-gain).sigmoid()))


def kto_reference_point(log_ratios: Tensor) -> Tensor:
    """max(0, mean) of log-ratios of responses paired with other prompts [batch]; no gradient (section 4.1)."""
    return log_ratios.detach().mean().clamp(min=0)


def orpo(chosen: Tensor, rejected: Tensor, *, weight: float = 0.1) -> Tensor:
    """-chosen - weight log sigmoid(log-odds ratio), from `averaged` log-probs; no reference.

    Hong et al. 2024, arXiv 2403.07691, equations 6 and 7; odds = p / (1 - p). Cloning of the chosen response is part
    of it, averaged within the response.
    """
    log_odds_ratio = _log_odds(chosen) - _log_odds(rejected)
    return -chosen - weight * F.logsigmoid(log_odds_ratio)


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float = 2.0, target: float = 1.0) -> Tensor:
    """-log sigmoid(beta (chosen - rejected) - target), from `averaged` log-probs; no reference.

    Meng et al. 2024, arXiv 2405.14734, equation 6, whose gamma is `target` (TRL's `simpo_gamma`).
    """
    return -F.logsigmoid(beta * (chosen - rejected) - target)


def _log_odds(logprobs: Tensor) -> Tensor:
    logprobs = logprobs.clamp(max=MAX_MEAN_LOGPROB)
    return logprobs - (-torch.expm1(logprobs)).log()
