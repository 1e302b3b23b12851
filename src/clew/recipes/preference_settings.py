"""Settings of preference learning, and the objective that they name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from clew.core.errors import InvalidValue
from clew.recipes.preference_data import Level

if TYPE_CHECKING:
    from clew.learn.preferring import Objective

Loss = Literal["dpo", "ipo", "cdpo", "hinge", "kto", "orpo", "simpo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Settings of preference learning."""

    loss: Loss = "dpo"
    """dpo, ipo (mean log-probs), cdpo (labels may be wrong), hinge, kto (no pair needs to compare), orpo and simpo
    (no reference)."""
    beta: float | None = None
    """What log-ratios are multiplied by; orpo: the weight of the odds ratio. Left out: 0.1, for simpo 2."""
    flipped: float | Literal["visits"] = 0.1
    """cdpo: probability that a label is wrong. visits: the rejected step's share of the visits (MCTS-DPO)."""
    target: float = 1.0
    """simpo: how far the reward of the chosen is to be above."""
    level: Level | None = None
    """step: siblings of a tree, best against worst by value. solution: right against wrong ones. Left out: step if the
    run of --data has trees."""
    margin: float = 0.0
    """Least difference in value of a pair."""
    pairs: int = 4
    """Most pairs a problem; of a tree's steps, those of the widest margin."""
    rounds: int = 1
    """Times to sample with the present policy, pair and learn; passes over the data if there is --data."""
    problems: int = 1024
    """Training problems sampled a round."""
    samples: int = 8
    """Samples a problem."""
    rows: int = 32
    """Pairs an update."""
    epochs: int = 1
    """Passes over a round's pairs."""
    lr_matrix: float = 0.001
    """Learning rate of hidden matrices (Muon)."""
    lr_other: float = 2e-4
    """Learning rate of embeddings and norms, or of everything under --tuning (AdamW)."""
    max_tokens: int = 240
    """Most tokens of a sample."""
    mode: Literal["think", "direct"] = "think"
    """Whether responses may try, check and retry, or are one derivation."""
    first_reference: bool = False
    """Keep the policy before the first round as the reference of all; else each round's is the policy it began with."""


def objective_of(settings: Preference) -> Objective:
    """The loss that `settings` name: the one place that knows their names."""
    from clew.learn import preference
    from clew.learn.preferring import Objective, kto_of_pairs, log_ratios, mean_logprobs

    beta = settings.beta if settings.beta is not None else (2.0 if settings.loss == "simpo" else 0.1)
    ratios, means = partial(log_ratios, beta=beta), partial(mean_logprobs, beta=beta)
    match settings.loss:
        case "dpo":
            return Objective(lambda told: preference.dpo(told.margin, beta=beta), ratios)
        case "ipo":
            return Objective(lambda told: preference.ipo(told.mean_margin, beta=beta), ratios)
        case "cdpo":
            return Objective(
                lambda told: preference.conservative_dpo(told.margin, beta=beta, flipped=told.flipped),
                ratios,
                takes_flipped=True,
            )
        case "hinge":
            return Objective(lambda told: preference.hinge(told.margin, beta=beta), ratios)
        case "kto":
            return Objective(partial(kto_of_pairs, beta=beta), ratios, takes_strays=True)
        case "orpo":
            return Objective(
                lambda told: preference.orpo(told.mean_chosen, told.mean_rejected, weight=beta),
                means,
                takes_reference=False,
            )
        case "simpo":
            target = settings.target
            return Objective(
                lambda told: preference.simpo(told.mean_chosen, told.mean_rejected, beta=beta, target=target),
                means,
                takes_reference=False,
                takes_target=True,
            )


def check_preference(settings: Preference) -> None:
    """Raise `InvalidValue` for settings that the loss does not use, or cannot work with."""
    objective, plain = objective_of(settings), Preference()
    ignored = {
        "--settings.flipped": settings.flipped != plain.flipped and not objective.takes_flipped,
        "--settings.target": settings.target != plain.target and not objective.takes_target,
    }
    for name, given in ignored.items():
        if given:
            accepted = f"only with a loss that uses it, not with {settings.loss}"
            raise InvalidValue(name, "given", accepted, "leave it out, or change --settings.loss")
    if settings.beta is not None and settings.beta <= 0.0:
        raise InvalidValue("--settings.beta", settings.beta, "a number above 0", "use 0.1, or 2 for simpo")
    if settings.flipped != "visits" and not 0.0 <= settings.flipped < 0.5:
        raise InvalidValue("--settings.flipped", settings.flipped, "a number from 0 to below 0.5", "use 0.1 or visits")
