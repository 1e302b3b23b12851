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
USED_BY: dict[str, tuple[Loss, ...]] = {
    "flipped": ("cdpo",),
    "target": ("simpo",),
    "desirable": ("kto",),
    "undesirable": ("kto",),
}
"""Settings that only some losses have a use for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Settings of preference learning."""

    loss: Loss = "dpo"
    """dpo, ipo (mean log-probs), cdpo (labels may be wrong), hinge, orpo and simpo (no reference); kto learns from
    single solutions, each desirable or not, without pairs."""
    beta: float | None = None
    """What log-ratios are multiplied by; orpo: the weight of the odds ratio. Left out: 0.1, for simpo 2."""
    flipped: float | Literal["visits"] = 0.1
    """cdpo: probability that a label is wrong. visits: the rejected step's share of the visits (MCTS-DPO)."""
    target: float = 1.0
    """simpo: how far the reward of the chosen is to be above."""
    desirable: float | None = None
    """kto: weight of a desirable solution. Left out, the rarer kind weighs as much in all as the other."""
    undesirable: float | None = None
    """kto: weight of an undesirable one."""
    clone_weight: float = 0.0
    """Weight of cloning the chosen response beside the loss, per token (RPO, arXiv 2404.19733); not for kto."""
    level: Level | None = None
    """step: siblings of a tree, best against worst by value. solution: right against wrong ones. Left out: step if the
    run of --data has trees; kto: solution."""
    margin: float = 0.0
    """Least difference in value of a pair."""
    pairs: int = 4
    """Most pairs a problem; of a tree's steps, those of the widest margin. kto: most solutions of either kind."""
    rounds: int = 1
    """Times to sample with the present policy and learn; passes over the data if there is --data."""
    problems: int = 1024
    """Training problems sampled a round."""
    samples: int = 8
    """Samples a problem."""
    rows: int = 32
    """Pairs, or single solutions, an update."""
    epochs: int = 1
    """Passes over what a round has."""
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


def beta_of(settings: Preference) -> float:
    """`settings.beta`, or what is usual for the loss."""
    return settings.beta if settings.beta is not None else (2.0 if settings.loss == "simpo" else 0.1)


def objective_of(settings: Preference) -> Objective | None:
    """The loss of pairs that `settings` name; None for the one that takes single solutions."""
    found = plain_objective(settings)
    weight = settings.clone_weight
    if found is None or not weight:
        return found
    return found._replace(loss=lambda told: found.loss(told) - weight * told.mean_chosen)


def plain_objective(settings: Preference) -> Objective | None:
    """The loss that compares, without cloning beside it."""
    from clew.learn import preference
    from clew.learn.preferring import Objective, log_ratios, mean_logprobs

    beta = beta_of(settings)
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
            )
        case "hinge":
            return Objective(lambda told: preference.hinge(told.margin, beta=beta), ratios)
        case "kto":
            return None
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
            )


def check_preference(settings: Preference) -> None:
    """Raise `InvalidValue` for settings that the loss does not use, or cannot work with."""
    plain = Preference()
    for name, users in USED_BY.items():
        value = getattr(settings, name)
        if value != getattr(plain, name) and settings.loss not in users:
            accepted = f"only with --settings.loss {' or '.join(users)}, not with {settings.loss}"
            raise InvalidValue(f"--settings.{name}", value, accepted, "leave it out, or change --settings.loss")
    if settings.clone_weight and settings.loss == "kto":
        accepted = "0: kto has no chosen response"
        raise InvalidValue("--settings.clone-weight", settings.clone_weight, accepted, "take another loss")
    if settings.margin and settings.loss == "kto" and settings.level != "step":
        accepted = "nothing: kto compares no solutions"
        raise InvalidValue("--settings.margin", settings.margin, accepted, "leave it out, or take another loss")
    for name in ("beta", "desirable", "undesirable"):
        value = getattr(settings, name)
        if value is not None and value <= 0.0:
            advice = "use 0.1, or 2 for simpo" if name == "beta" else "leave it out"
            raise InvalidValue(f"--settings.{name}", value, "a number above 0", advice)
    if settings.flipped != "visits" and not 0.0 <= settings.flipped < 0.5:
        raise InvalidValue("--settings.flipped", settings.flipped, "a number from 0 to below 0.5", "use 0.1 or visits")
