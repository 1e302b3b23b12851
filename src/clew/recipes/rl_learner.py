"""What a run of reinforcement learning holds between updates: models, optimisers, and the state of baselines."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from clew.core.errors import InvalidValue
from clew.recipes.rl_algorithms import Method
from clew.recipes.rl_settings import PolicyGradient

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Qwen3ForCausalLM, Qwen3ForTokenClassification

    from clew.core.protocols import Scorer
    from clew.core.task import Task
    from clew.learn.batch import Example, PaddedBatch
    from clew.learn.optim import MuonAdamW
    from clew.models.policy import LocalPolicy

TOKENS_PER_PASS = 4096


@final
@dataclass(frozen=True, slots=True)
class Trained:
    """A model of its own and what updates it."""

    model: Any
    optimizer: MuonAdamW


@final
@dataclass(slots=True, kw_only=True)
class Learner:
    """The policy that learns and everything that learns, or stands still, beside it."""

    settings: PolicyGradient
    method: Method
    policy: LocalPolicy
    task: Task
    trained: Trained
    """The policy's model, or with a shared critic the policy with its value head."""
    reference: Qwen3ForCausalLM
    critic: Trained | None = None
    """A value model of its own."""
    implicit: Trained | None = None
    scorer: Scorer | None = None
    """What is paid at step ends."""
    kl_coefficient: float = 0.0
    average: float | None = None
    """Moving average of rewards."""

    @property
    def shared_head(self) -> Any:
        """The value head on the policy's body; None without one."""
        return getattr(self.trained.model, "score", None)


def make_learner(settings: PolicyGradient, method: Method, policy: LocalPolicy, task: Task) -> Learner:
    """Everything at its start. Raises `InvalidValue` for a reference of another vocabulary."""
    from clew.models.shared_value import PolicyWithValue
    from clew.models.value_head import value_model_of
    from clew.recipes.rl_rollouts import CACHE_BYTES

    has_critic = method.advantage == "gae"
    shared = has_critic and settings.critic.body == "shared"
    model = PolicyWithValue(policy.model) if shared else policy.model
    learner = Learner(
        settings=settings,
        method=method,
        policy=policy,
        task=task,
        trained=_trained(model, settings),
        reference=reference_of(settings, policy),
        kl_coefficient=method.kl_coefficient,
        scorer=_scorer(settings.step_credit.process),
    )
    if has_critic and not shared:
        learner.critic = _trained(value_model_of(policy.model), settings, settings.critic.lr_scale)
    if method.advantage == "implicit":
        learner.implicit = _trained(copy.deepcopy(policy.model), settings, settings.implicit.lr_scale)
    if method.grows_trees or method.advantage == "step-values":
        policy.remember(CACHE_BYTES)
    return learner


def reference_of(settings: PolicyGradient, policy: LocalPolicy) -> Qwen3ForCausalLM:
    """A copy of the policy, or the checkpoint that is asked for. Raises `InvalidValue` if its tokens mean others."""
    from clew.data.checkpoint_files import resolve_checkpoint
    from clew.models.checkpoint import load_checkpoint

    if settings.reference is None:
        return copy.deepcopy(policy.model).eval()
    model, tokenizer = load_checkpoint(resolve_checkpoint(settings.reference))
    if tokenizer.get_vocab() != policy.codec.tokenizer.get_vocab():
        given = f"{settings.reference}, with {len(tokenizer)} tokens"
        accepted = f"a checkpoint with the policy's own vocabulary, of {len(policy.codec.tokenizer)} tokens"
        raise InvalidValue("reference", given, accepted, "take one that the policy was trained from, or leave it out")
    return model.eval()


def of_tokens(read: Callable[[PaddedBatch], Tensor], examples: Sequence[Example]) -> list[Tensor]:
    """What `read` says, as [batch, time], of the tokens of each example that carry loss; without gradients."""
    import torch

    from clew.learn.batch import micro_batches, pad
    from clew.models.side_by_side import side_by_side

    def part(rows: list[int]) -> tuple[Tensor, ...]:
        batch = pad([examples[row] for row in rows])
        with torch.no_grad():
            said = read(batch)
        return said[batch.target_mask].split(batch.target_mask.sum(dim=1).tolist())

    found: dict[int, Tensor] = {}
    passes = micro_batches([example.length for example in examples], TOKENS_PER_PASS)
    for rows, pieces in zip(passes, side_by_side(part, passes), strict=True):
        found.update(zip(rows, pieces, strict=True))
    return [found[row] for row in range(len(examples))]


def logprobs_under(model: nn.Module, examples: Sequence[Example]) -> list[Tensor]:
    """Log-probabilities of the tokens of each example that carry loss."""
    from clew.models.any_backbone import target_logprobs

    return of_tokens(lambda b: target_logprobs(model, b.input_ids, b.targets, b.target_mask), examples)  # type: ignore[arg-type]


def critic_values(learner: Learner, examples: Sequence[Example]) -> list[Tensor]:
    """What the critic, of either kind, says before each token of each example."""
    return of_tokens(lambda batch: placed(batch, values_at(learner, batch)), examples)


def values_at(learner: Learner, batch: PaddedBatch) -> Tensor:
    """Values [tokens] before the tokens of `batch` that carry loss, with gradient."""
    from clew.models.any_backbone import body_states
    from clew.models.value_head import value_logits

    if learner.critic is not None:
        critic: Qwen3ForTokenClassification = learner.critic.model
        return value_logits(critic, batch.input_ids, batch.target_mask)
    states = body_states(learner.policy.model, batch.input_ids, batch.target_mask)
    return learner.shared_head(states)[:, 0]


def placed(batch: PaddedBatch, tokens: Tensor) -> Tensor:
    """Numbers of the tokens of `batch` that carry loss [tokens], as [batch, time] with zeros elsewhere."""
    import torch

    return torch.zeros(batch.targets.shape, dtype=tokens.dtype).masked_scatter(batch.target_mask, tokens)


def _trained(model: Any, settings: PolicyGradient, scale: float = 1.0) -> Trained:
    from clew.learn.optim import make_optimizer

    optimizer = make_optimizer(model, lr_matrix=settings.lr_matrix * scale, lr_other=settings.lr_other * scale)
    return Trained(model, optimizer)


def _scorer(path: Path | None) -> Scorer | None:
    from clew.data.checkpoint_files import resolve_checkpoint
    from clew.reward.load import load_reward

    return None if path is None else load_reward(resolve_checkpoint(path))
