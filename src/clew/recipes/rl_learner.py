"""What a run of reinforcement learning holds between updates: models, optimisers, and the state of baselines.

How the policy itself learns (which weights, in what precision) is `clew.recipes.learner`'s business: `RLLearner.own`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from clew.core.errors import InvalidValue
from clew.core.types import Message, Problem
from clew.recipes import learner as plain
from clew.recipes.rl_algorithms import Method
from clew.recipes.rl_settings import EXACT_VALUE, PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from clew.core.protocols import Scorer
    from clew.core.task import Task
    from clew.learn.batch import Example, PaddedBatch
    from clew.learn.optim import MuonAdamW
    from clew.models.trainable import Trainable

TOKENS_PER_PASS = 4096


@final
@dataclass(frozen=True, slots=True)
class Trained:
    """A model of its own and what updates it."""

    model: Any
    optimizer: MuonAdamW


@final
@dataclass(slots=True, kw_only=True)
class RLLearner:
    """The policy that learns and everything that learns, or stands still, beside it."""

    settings: PolicyGradient
    method: Method
    own: plain.Learner
    """The policy, and which of its weights learn in what precision."""
    task: Task
    trained: Trained
    """What gradients reach: the policy's model, its adapters, or with a shared critic the policy with a value head."""
    reference: PreTrainedModel
    critic: Trained | None = None
    """A value model of its own."""
    implicit: Trained | None = None
    scorer: Scorer | None = None
    """What is paid at step ends."""
    kl_coefficient: float = 0.0
    average: float | None = None
    """Moving average of rewards."""

    @property
    def policy(self) -> Trainable:
        return self.own.policy

    @property
    def shared_head(self) -> Any:
        """The value head on the policy's body; None without one."""
        return getattr(self.trained.model, "score", None)


def make_learner(
    settings: PolicyGradient, method: Method, policy: Trainable, task: Task, *, own: plain.Learner | None = None
) -> RLLearner:
    """Everything at its start; `own` says how `policy` learns, None for all weights in float32.

    Raises `InvalidValue` for a reference or reward of another vocabulary, and for what the policy's model cannot do.
    """
    from clew.models.any_backbone import classifier_of
    from clew.models.value_head import LABEL
    from clew.recipes.rl_rollouts import CACHE_BYTES

    own = own or plain.Learner(policy)
    _check_fits(settings, own)
    has_critic = method.advantage == "gae"
    shared = has_critic and settings.critic.body == "shared"
    if shared:
        own.add_value_head()
    learner = RLLearner(
        settings=settings,
        method=method,
        own=own,
        task=task,
        trained=Trained(own.trained, own.optimizer(lr_matrix=settings.lr_matrix, lr_other=settings.lr_other)),
        reference=reference_of(settings, own),
        kl_coefficient=method.kl_coefficient,
        scorer=_scorer(settings.step_credit.process, own, task),
    )
    if has_critic and not shared:
        from transformers import AutoModelForTokenClassification

        critic = classifier_of(policy.model, AutoModelForTokenClassification, label=LABEL)
        learner.critic = _trained(critic, own, settings, settings.critic.lr_scale)
    if method.advantage == "implicit":
        learner.implicit = _trained(copy.deepcopy(policy.model), own, settings, settings.implicit.lr_scale)
    if method.grows_trees or method.advantage == "step-values":
        policy.remember(CACHE_BYTES)
    return learner


def average_rewards(learner: RLLearner, rewards: Tensor, valid: Tensor) -> None:
    """Take the rewards of a batch into their moving average, if the method has one."""
    from clew.learn.baselines import moving_average

    if learner.method.advantage == "moving-average":
        learner.average = moving_average(learner.average, rewards, valid)


def reference_of(settings: PolicyGradient, own: plain.Learner) -> PreTrainedModel:
    """A copy of the policy, or the checkpoint that is asked for. Raises `InvalidValue` if its tokens mean others."""
    if settings.reference is None:
        return plain.reference_at_start(own)
    return plain.reference_at(settings.reference, own, "reference")


def of_tokens(read: Callable[[PaddedBatch], Tensor], examples: Sequence[Example]) -> list[Tensor]:
    """What `read` says, as [batch, time], of the tokens of each example that carry loss; without gradients."""
    import torch

    from clew.learn.batch import pad
    from clew.learn.passes import in_passes

    def part(rows: list[int]) -> tuple[Tensor, ...]:
        batch = pad([examples[row] for row in rows])
        with torch.no_grad():
            said = read(batch)
        return said[batch.target_mask].split(batch.target_mask.sum(dim=1).tolist())

    return in_passes(part, [example.length for example in examples], tokens_per_pass=TOKENS_PER_PASS)


def logprobs_under(
    model: nn.Module,
    examples: Sequence[Example],
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Tensor]:
    """Log-probabilities of the tokens of each example that carry loss; passes stand in what `precision` gives."""
    from clew.models.any_backbone import target_logprobs

    def read(batch: PaddedBatch) -> Tensor:
        with precision():
            return target_logprobs(model, batch.input_ids, batch.targets, batch.target_mask)  # type: ignore[arg-type]

    return of_tokens(read, examples)


def critic_values(learner: RLLearner, examples: Sequence[Example]) -> list[Tensor]:
    """What the critic, of either kind, says before each token of each example."""
    return of_tokens(lambda batch: placed(batch, values_at(learner, batch)), examples)


def values_at(learner: RLLearner, batch: PaddedBatch) -> Tensor:
    """Values [tokens] before the tokens of `batch` that carry loss, with gradient."""
    from clew.models.any_backbone import body_states, scalar_logits

    with learner.own.precision():
        if learner.critic is not None:
            return scalar_logits(learner.critic.model, batch.input_ids, batch.target_mask)
        states = body_states(learner.own.model, batch.input_ids, batch.target_mask)
        values: Tensor = learner.shared_head(states)[:, 0].float()
        return values


def placed(batch: PaddedBatch, tokens: Tensor) -> Tensor:
    """Numbers of the tokens of `batch` that carry loss [tokens], as [batch, time] with zeros elsewhere."""
    import torch

    return torch.zeros(batch.targets.shape, dtype=tokens.dtype).masked_scatter(batch.target_mask, tokens)


def _trained(model: Any, own: plain.Learner, settings: PolicyGradient, scale: float) -> Trained:
    """A model beside the policy, all of whose weights learn as the policy's do."""
    rates = {"lr_matrix": settings.lr_matrix * scale, "lr_other": settings.lr_other * scale}
    return Trained(model, plain.optimizer_of(model, own.tuning.optimizer, **rates))


def _check_fits(settings: PolicyGradient, own: plain.Learner) -> None:
    """Refuse what reads the policy's tokens as others, and modes that its chat format does not have."""
    from clew.recipes.watch import MODEL

    question = Problem("", "", (Message("user", "1"),))
    if settings.direct and own.policy.prompt_ids(question, "direct") == own.policy.prompt_ids(question, "think"):
        accepted = "0: the chat format of this model has one kind of prompt"
        raise InvalidValue("direct", settings.direct, accepted, "leave it out")
    process = settings.step_credit.process
    named = [Path(spec.partition(":")[2]) for spec in settings.reward if spec.partition(":")[0] == MODEL]
    for path in [*named, *([process] if process is not None and process != EXACT_VALUE else [])]:
        plain.check_tokens(path, own.tokenizer, f"reward {path}")


def _scorer(process: Path | None, own: plain.Learner, task: Task) -> Scorer | None:
    """What is asked at step ends. Raises `InvalidValue` for the solver's values of a task that it cannot solve."""
    from clew.data.checkpoint_files import resolve_checkpoint
    from clew.reward.load import load_reward

    if process == EXACT_VALUE:
        from clew.reward.countdown_value import ExactCountdownValue

        if task.name != "countdown":
            accepted = "a task whose values a solver knows: countdown"
            raise InvalidValue("step_credit process exact-value with the task", task.name, accepted, "train a reward")
        return ExactCountdownValue(task=task, policy=own.policy)
    return None if process is None else load_reward(resolve_checkpoint(process))
