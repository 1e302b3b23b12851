"""What each published name stands for: advantage, loss, aggregation and what goes with them.

Sources and how other libraries' defaults differ: docs/reference/learning.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import final

from clew.core.errors import InvalidValue
from clew.recipes.rl_settings import Advantage, Aggregation, Algorithm, Correction, Counted, Kl, Loss, PolicyGradient

COMPARING = frozenset({"centred", "normalised", "leave-one-out", "whitened-baseline", "implicit"})
"""Advantages that compare the samples of a group with one another."""
OF_GROUPS = frozenset({"centred", "normalised", "leave-one-out"})
"""Advantages that compare whole responses of a group."""
TREES = frozenset({"tree-parent", "tree-siblings", "tree-root"})
"""Advantages of the steps of a search tree."""
WHOLE = frozenset({"greedy", "step-values"})
"""Advantages that need whole responses beside the samples: greedy ones, or roll-outs."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """An algorithm with every part chosen; fields are those of `PolicyGradient` of the same name."""

    advantage: Advantage = "normalised"
    loss: Loss = "clipped"
    aggregation: Aggregation = "tokens"
    clip_low: float = 0.2
    clip_high: float = 0.2
    counted: Counted = "all"
    epochs: int = 1
    minibatches: int = 1
    draws: int = 1
    kl: Kl = "none"
    kl_coefficient: float = 0.0
    correction: Correction = "none"

    @property
    def grows_trees(self) -> bool:
        return self.advantage in TREES

    @property
    def learns_from_all(self) -> bool:
        """Whether samples without an advantage have a gradient too: of the KL or of a critic."""
        return self.advantage == "gae" or self.kl in ("k2-loss", "k3-loss")


ALGORITHMS: Mapping[Algorithm, Method] = MappingProxyType(
    {
        "clew": Method(advantage="centred", clip_high=0.28, counted="teaching"),
        "grpo": Method(aggregation="sequences", kl="k3-loss", kl_coefficient=0.04),
        "dr-grpo": Method(advantage="centred", aggregation="constant"),
        "dapo": Method(clip_high=0.28, counted="teaching", draws=4),
        "rloo": Method(
            advantage="leave-one-out", loss="reinforce", aggregation="constant", kl="k1-reward", kl_coefficient=0.05
        ),
        "reinforce": Method(advantage="moving-average", loss="reinforce", aggregation="constant"),
        "reinforce++": Method(advantage="whitened", kl="k1-reward", kl_coefficient=0.01),
        "reinforce++-baseline": Method(advantage="whitened-baseline", kl="k2-loss", kl_coefficient=0.001),
        "remax": Method(advantage="greedy", loss="reinforce", aggregation="constant"),
        "ppo": Method(advantage="gae", epochs=2, minibatches=2, kl="k1-reward", kl_coefficient=0.05),
        "gspo": Method(loss="gspo", aggregation="sequences", clip_low=3e-4, clip_high=4e-4, minibatches=4),
        "cispo": Method(loss="cispo", clip_low=1.0, clip_high=4.0, minibatches=4),
        "vineppo": Method(advantage="step-values", epochs=2, minibatches=2),
        "prime": Method(advantage="implicit"),
        "tree": Method(advantage="tree-parent"),
    }
)
KL_COEFFICIENT = 0.01
"""Of a penalty that the algorithm has not but the settings ask for."""


def method_of(settings: PolicyGradient) -> Method:
    """The algorithm with what the settings have in its place. Raises `InvalidValue` for parts that do not fit."""
    chosen = {name: value for name in Method.__dataclass_fields__ if (value := getattr(settings, name)) is not None}
    named = ALGORITHMS[settings.algorithm]
    in_pieces = settings.partial is not None and settings.partial < settings.max_tokens
    if (settings.asynchronous or in_pieces) and named.correction == "none":
        chosen = {"correction": "truncated"} | chosen
    if chosen.get("kl", "none") != "none" and named.kl == "none":
        chosen = {"kl_coefficient": KL_COEFFICIENT} | chosen
    method = replace(named, **chosen)
    _check(settings, method)
    return method


def resolved_settings(settings: PolicyGradient) -> PolicyGradient:
    """`settings` with nothing left to the algorithm, as they are saved with the run."""
    method = method_of(settings)
    return replace(settings, **{f.name: getattr(method, f.name) for f in fields(method)})


def _check(settings: PolicyGradient, method: Method) -> None:
    if settings.group_size == 1 and method.advantage in COMPARING:
        advice = "raise group_size, or take a baseline that needs no group: --algorithm reinforce, remax or ppo"
        accepted = f"at least 2 samples a problem: the advantage {method.advantage} compares them"
        raise InvalidValue("group_size", 1, accepted, advice)
    if method.loss == "cispo" and method.clip_low > 1.0:
        raise InvalidValue("clip_low", method.clip_low, "at most 1: a ratio falls to 0 at most", "use 1 for no bound")
    _check_steps(settings, method)
    if method.grows_trees:
        _check_tree(settings, method)
    _check_partial(settings, method)
    for name in ("epochs", "minibatches", "draws"):
        if getattr(method, name) < 1:
            raise InvalidValue(name, getattr(method, name), "an integer of at least 1", "raise it")


def _check_partial(settings: PolicyGradient, method: Method) -> None:
    """Whatever needs whole responses of one policy beside the samples has none that could be written in pieces."""
    for name in ("partial", "most_behind"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InvalidValue(name, value, "an integer of at least 1", "raise it, or leave it out")
    if settings.partial is None:
        if settings.most_behind is not None:
            accepted = "nothing where responses are sampled whole"
            raise InvalidValue("most_behind", settings.most_behind, accepted, "set partial too, or leave it out")
        return
    if method.grows_trees or method.advantage in WHOLE:
        accepted = f"nothing with the advantage {method.advantage}, which samples whole responses at every update"
        raise InvalidValue("partial", settings.partial, accepted, "leave it out, or use another advantage")


def _check_steps(settings: PolicyGradient, method: Method) -> None:
    steps, advantage = settings.step_credit, method.advantage
    if steps.process is not None and steps.process_credit == "progress" and steps.process_as == "values":
        accepted = "differences with progress, which is what a step raised the score"
        raise InvalidValue("process_as", "values", accepted, "leave process_as out, or use process_credit stepwise")
    from_outside = advantage in ("moving-average", "greedy") and steps.process_credit == "progress"
    if steps.process is None or steps.process_credit == "stepwise" or advantage in OF_GROUPS or from_outside:
        return
    given = f"{steps.process_credit} with the advantage {advantage}"
    advice = "use --algorithm grpo, dr-grpo or rloo, or leave process_credit out"
    accepted = f"an advantage of whole responses: {', '.join(sorted(OF_GROUPS))}"
    raise InvalidValue("process_credit", given, accepted, advice)


def _check_tree(settings: PolicyGradient, method: Method) -> None:
    """A tree's values are the search's own: what is paid to whole responses or to tokens does not enter them."""
    unfit = {
        "draws": method.draws > 1,
        "reward": settings.reward != ("verifier",),
        "kl": method.kl == "k1-reward",
        "step_credit.process": settings.step_credit.process is not None,
        "shuffle_rewards": settings.shuffle_rewards,
    }
    for name, found in unfit.items():
        if found:
            accepted = "nothing but the search's own values with an advantage of trees"
            raise InvalidValue(name, "set", accepted, "leave it out, guide the search, or use another advantage")
