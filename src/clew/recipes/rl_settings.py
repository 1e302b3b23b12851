"""Settings of reinforcement learning: what a run does, part by part."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from clew.core.errors import InvalidValue

Algorithm = Literal[
    "clew",
    "grpo",
    "dr-grpo",
    "dapo",
    "rloo",
    "reinforce",
    "reinforce++",
    "reinforce++-baseline",
    "remax",
    "ppo",
    "gspo",
    "cispo",
    "vineppo",
    "prime",
    "tree",
]
GroupAdvantage = Literal["centred", "normalised", "leave-one-out"]
TreeAdvantage = Literal["tree-parent", "tree-siblings", "tree-root"]
Advantage = (
    GroupAdvantage
    | Literal["moving-average", "greedy", "whitened", "whitened-baseline", "gae", "step-values", "implicit"]
    | TreeAdvantage
)
Loss = Literal["clipped", "reinforce", "gspo", "cispo"]
Aggregation = Literal["tokens", "sequences", "constant"]
Counted = Literal["teaching", "all"]
Kl = Literal["none", "k1-reward", "k2-loss", "k3-loss"]
Correction = Literal["none", "truncated", "token-masked", "sequence-truncated", "sequence-masked", "good-or-near"]


def _at_least(name: str, value: float, least: float) -> None:
    if not least <= value < math.inf:
        raise InvalidValue(name, value, f"a finite number of at least {least:g}", "change it")


EXACT_VALUE = Path("exact-value")
"""Stands where the path of a learned process reward would."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CriticSettings:
    """For the advantage gae: the value model."""

    body: Literal["shared", "own"] = "shared"
    """shared: a head on the policy's own body, trained with it. own: a model of its own, begun as a copy of it."""
    gamma: float = 1.0
    """Discount of a token."""
    lam: float = 0.95
    """1: the return minus the value, unbiased for any value. 0: the temporal difference."""
    weight: float = 0.1
    """Of the value loss beside the policy's, where the body is shared."""
    clip: float = 0.2
    """How far a value may move in an update before its loss stops counting."""
    lr_scale: float = 1.0
    """Learning rates of a critic of its own, as multiples of the policy's."""

    def __post_init__(self) -> None:
        for name in ("gamma", "lam"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidValue(f"critic {name}", getattr(self, name), "a number from 0 to 1", "use 1 and 0.95")
        for name in ("weight", "clip", "lr_scale"):
            _at_least(f"critic {name}", getattr(self, name), 0.0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """Credit by steps: where they end, and what is paid for them."""

    ends: tuple[str, ...] | None = None
    r"""What ends a step; \n is a new line. Left out: = in sums of clew's small models, else a new line."""
    rollouts: int = 3
    """For the advantage step-values: responses continued from each step end, whose share of right ones is its value."""
    process: Path | None = None
    """Run directory or checkpoint of a reward (clew reward train) that is paid at every step end; or exact-value, for
    countdown: 1 while the solver still finds a way to the target, else 0."""
    process_as: Literal["differences", "values"] = "differences"
    """differences: how much the step raised the score, the end of a response counting 0: that only shapes. values: the
    score itself, which also pays for more steps."""
    process_weight: float = 1.0
    """What it is multiplied by."""
    process_credit: Literal["stepwise", "joint", "progress"] = "stepwise"
    """Within a group: stepwise compares returns at the same step, joint all step rewards as one set (GRPO, 4.1.3).
    progress: the advantage of the outcome, and of each step beside it what it raised the score, not summed (PAV)."""
    process_prover: int = 1
    """A score v in 0 to 1 counts as 1 - (1 - v)^this: what the best of so many responses would reach from there. With
    progress that is the prover of PAV; the policy itself as prover (1) adds nothing to the outcome in expectation."""

    def __post_init__(self) -> None:
        _at_least("steps rollouts", self.rollouts, 1)
        _at_least("steps process_weight", self.process_weight, 0.0)
        _at_least("steps process_prover", self.process_prover, 1)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitSettings:
    """For the advantage implicit (PRIME): the model whose log-ratio to the reference is the reward of a token."""

    beta: float = 0.05
    """What the log-ratio is multiplied by."""
    lr_scale: float = 0.5
    """Its learning rates, as multiples of the policy's."""

    def __post_init__(self) -> None:
        _at_least("implicit beta", self.beta, 0.0)
        _at_least("implicit lr_scale", self.lr_scale, 0.0)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSettings:
    """For the advantages tree-*: the search whose trees are learnt from."""

    strategy: str = "mcts:iterations=16,width=3"
    """Strategy and its settings, as clew search takes them."""
    step_tokens: int = 48
    """Most tokens of a step."""

    def __post_init__(self) -> None:
        _at_least("tree step_tokens", self.step_tokens, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGradient:
    """Settings of reinforcement learning. What is None is as the algorithm has it."""

    algorithm: Algorithm = "clew"
    """The published name that stands for advantage, loss, aggregation and what goes with them."""
    advantage: Advantage | None = None
    """What a token is worth."""
    loss: Loss | None = None
    """How its probability answers."""
    aggregation: Aggregation | None = None
    """What the sum over tokens is divided by: tokens, each response's own length and their number, or max_tokens times
    their number."""
    steps: int = 40
    """Updates."""
    problems: int = 32
    """Problems an update, each a group."""
    group_size: int = 8
    """Samples a problem."""
    lr_matrix: float = 0.002
    """Learning rate of hidden matrices (Muon)."""
    lr_other: float = 4e-4
    """Learning rate of embeddings and norms (AdamW)."""
    clip_low: float | None = None
    """How far a token's probability ratio may fall before it stops counting."""
    clip_high: float | None = None
    """How far it may rise (DAPO's clip-higher)."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    max_tokens: int = 240
    """Most tokens of a response; one that is cut off there is wrong."""
    direct: float = 0.0
    """Share of problems to be answered directly, without retries; the rest think."""
    reward: tuple[str, ...] = ("verifier",)
    """Terms whose sum is the reward: verifier, overlong, relative-length, cosine-length, format, repetition, language,
    each with settings (`overlong:longest=240,margin=48`), or `model:PATH` for a learned one."""
    watch: int | None = None
    """Updates between two looks at held-out problems that compare the reward with the verifier's and measure the KL
    from the start; None for no look."""
    shuffle_rewards: bool = False
    """Negative control: deal the rewards of a batch to its samples at random."""
    counted: Counted | None = None
    """Which samples the loss is averaged over: those that teach something, or all that were scored."""
    epochs: int | None = None
    """Passes over the samples of a batch."""
    minibatches: int | None = None
    """Updates a pass."""
    draws: int | None = None
    """Most rounds of sampling a batch: groups whose verdicts are all equal are replaced while there are fewer than
    `problems` others (DAPO). 1 replaces none."""
    truncated: Literal["kept", "masked"] = "kept"
    """What becomes of responses that were cut off at max_tokens: learnt from like others, or left out of the loss."""
    kl: Kl | None = None
    """The penalty for leaving the reference: in the reward, or in the loss."""
    kl_coefficient: float | None = None
    """What it is multiplied by; the first, where kl_target adapts it."""
    kl_target: float | None = None
    """KL in nats a response that the coefficient is adapted to; None keeps it."""
    entropy_bonus: float = 0.0
    """What the entropy of the next token is multiplied by and added to the objective."""
    reference: Path | None = None
    """Checkpoint that KL and implicit rewards are taken to; None for the policy that the run begins with."""
    correction: Correction | None = None
    """Weights for what sampler and trainer disagree on; None for none, or truncated if asynchronous or partial."""
    correction_low: float | None = None
    """Bound of its ratios from below; None for the usual one."""
    correction_high: float | None = None
    """Bound from above; of good-or-near the threshold of the mean log-ratio."""
    asynchronous: bool = False
    """Sample each batch with the policy before the last update, as if sampling and training went on at once."""
    partial: int | None = None
    """Most tokens of a response sampled an update; the next policy continues what has not ended. None for all of it."""
    most_behind: int | None = None
    """With partial, updates that a response may take until it is learnt from; older ones are dropped. None for any."""
    noise_scale: int | None = None
    """Updates between two measurements of the gradient noise scale, each a second pass; None for none."""
    critic: CriticSettings = field(default_factory=CriticSettings)
    step_credit: StepSettings = field(default_factory=StepSettings)
    implicit: ImplicitSettings = field(default_factory=ImplicitSettings)
    tree: TreeSettings = field(default_factory=TreeSettings)
