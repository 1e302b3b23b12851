"""A policy that learns: whichever class it is, with adapters or without, one update in one place.

`policy` writes; `model` is what gradients reach. They are the same unless adapters learn: then `refresh` merges them
into the policy's weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, Unpack, cast, final

from clew.core.errors import InvalidValue
from clew.models.tuning import ADAPTER, Tuning

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from clew.core.types import Problem
    from clew.learn.batch import Example, PaddedBatch
    from clew.learn.guard import Limits
    from clew.learn.optim import MuonAdamW
    from clew.models.trainable import Trainable

Noted = TypeVar("Noted")
TOKENS_PER_PASS = 2048


class Updated(NamedTuple):
    """What an update's micro-batches noted, and the norm of their gradient before clipping."""

    noted: list[Any]
    grad_norm: float


@final
class Learner:
    """A policy whose weights are here, and how they learn."""

    def __init__(self, policy: Trainable, tuning: Tuning | None = None, *, mode: str = "think", seed: int = 0) -> None:
        import copy

        from clew.learn.ema import Average
        from clew.models.tuning import add_adapters, layers_of

        self.policy, self.tuning, self.mode = policy, tuning or Tuning(), mode
        plain = cast("PreTrainedModel", policy.model)
        self.model = copy.deepcopy(plain) if self.tuning.lora else plain
        if self.tuning.lora:
            add_adapters(self.model, self.tuning, seed=seed)
        if self.tuning.gradient_checkpointing:
            layers_of(self.model)
        self.trained: nn.Module = self.model
        """`model`, or `model` with a value head: what gradients reach."""
        self._average = Average(self.model, self.tuning.ema) if self.tuning.ema else None

    def add_value_head(self) -> None:
        """Let a head on the policy's body learn too; `trained` is then a `PolicyWithValue`. It is saved beside."""
        from clew.learn.ema import Average
        from clew.models.shared_value import PolicyWithValue

        self.trained = PolicyWithValue(self.model)
        self._average = Average(self.trained, self.tuning.ema) if self.tuning.ema else None

    @property
    def tokenizer(self) -> Any:
        return self.policy.tokenizer

    @property
    def end_id(self) -> int:
        """The token that ends a response."""
        return self.policy.end_id

    @property
    def context(self) -> int:
        """Most tokens that the model reads."""
        return self.policy.context

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """Token ids of the prompt in the mode that is learnt."""
        return self.policy.prompt_ids(problem, self.mode)

    def optimizer(self, *, lr_matrix: float, lr_other: float) -> MuonAdamW:
        """Of everything that learns; AdamW alone, at `lr_other`, for adapters or if it was asked for."""
        kind = "adamw" if self.tuning.lora else self.tuning.optimizer
        return optimizer_of(self.trained, kind, lr_matrix=lr_matrix, lr_other=lr_other)

    def logprobs(self, batch: PaddedBatch) -> Tensor:
        """Log-probabilities [batch, time] of the targets, 0 outside their mask; with gradients."""
        from clew.models.any_backbone import target_logprobs

        with self.precision():
            return target_logprobs(self.model, batch.input_ids, batch.targets, batch.target_mask)

    def precision(self) -> AbstractContextManager[Any]:
        """What a forward pass stands in, on the thread that makes it."""
        from clew.models.tuning import in_precision

        return in_precision(self.tuning, self.model)

    def update(
        self,
        optimizer: MuonAdamW,
        lengths: Sequence[int],
        loss_of_rows: Callable[[list[int]], tuple[Tensor, Noted]],
        loss: Callable[[list[Noted]], float],
        **limits: Unpack[Limits],
    ) -> Updated:
        """Descend the sum of the losses of micro-batches by one step; `loss` is that sum, from what was noted.

        Raises `TrainingDiverged` before a step that is not finite.
        """
        noted = self.gradient(lengths, loss_of_rows)
        return Updated(noted, self.step(optimizer, loss(noted), **limits))

    def gradient(
        self, lengths: Sequence[int], loss_of_rows: Callable[[list[int]], tuple[Tensor, Noted]]
    ) -> list[Noted]:
        """Put the gradient of the sum of the losses of micro-batches into what learns; what was noted of each."""
        from clew.learn.gradients import sum_gradients
        from clew.models.tuning import recomputing

        with recomputing(self.model, self.tuning):
            return sum_gradients(self.trained, lengths, loss_of_rows, tokens_per_pass=TOKENS_PER_PASS)

    def step(self, optimizer: MuonAdamW, loss: float, **limits: Unpack[Limits]) -> float:
        """Clip and check the gradient that is there, and step; the norm it had. Raises `TrainingDiverged` before."""
        from clew.learn.guard import guarded_step

        grad_norm = guarded_step(self.trained, optimizer, loss=loss, **limits)
        self.count_update()
        return grad_norm

    def count_update(self) -> None:
        """Take the present weights into their average, if one is kept."""
        if self._average is not None:
            self._average.update()

    def weights(self) -> dict[str, Tensor]:
        """A copy of the present weights of everything that learns."""
        return {name: p.detach().clone() for name, p in self.trained.named_parameters() if p.requires_grad}

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Learn on from `weights`, which `weights` gave; the policy writes as before until `refresh`."""
        import torch

        with torch.no_grad():
            for name, parameter in self.trained.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])

    def refresh(self) -> None:
        """Let the policy write with the present weights."""
        from clew.models.tuning import merged_weights

        if self.model is not self.policy.model:
            self.policy.model.load_state_dict(merged_weights(self.model))
        self.policy.refresh()

    def finish(self) -> None:
        """Let the policy write, and be saved, with what was learnt: the average of the weights if there is one."""
        if self._average is None:
            self.refresh()
        self.settle()

    def settle(self) -> None:
        """Let a policy that writes with the present weights do so with their average, if one is kept."""
        if self._average is not None:
            self._average.store()
            self.refresh()

    def save_beside(self, directory: Path) -> None:
        """Write into the checkpoint `directory` of the merged weights what there is of adapters and a value head."""
        from clew.models.shared_value import PolicyWithValue, save_value_head
        from clew.models.tuning import save_adapters

        if isinstance(self.trained, PolicyWithValue):
            save_value_head(self.trained, directory)
        if self.tuning.lora:
            save_adapters(self.model, directory / ADAPTER)


def load_learner(checkpoint: Path, tuning: Tuning, *, mode: str, seed: int) -> Learner:
    """The policy at `checkpoint`: a run, a checkpoint of clew, a Hugging Face directory or a GGUF file.

    Raises `InvalidValue` for a model whose log-probs cannot be computed from its last states.
    """
    from clew.models.any_backbone import check_head
    from clew.recipes.search import foreign, load_any_policy
    from clew.recipes.stage import load_policy

    if not foreign(checkpoint):
        return Learner(load_policy(checkpoint), tuning, mode=mode, seed=seed)
    policy = cast("Trainable", load_any_policy(str(checkpoint)))
    check_head(policy.model)
    return Learner(policy, tuning, mode=mode, seed=seed)


def optimizer_of(model: nn.Module, kind: Literal["muon", "adamw"], *, lr_matrix: float, lr_other: float) -> MuonAdamW:
    """Of everything in `model` that learns: Muon and AdamW for its parts, or AdamW alone, at `lr_other`."""
    import torch

    from clew.learn.optim import MuonAdamW, make_optimizer

    if kind == "muon":
        return make_optimizer(model, lr_matrix=lr_matrix, lr_other=lr_other)
    learning = [p for p in model.parameters() if p.requires_grad]
    return MuonAdamW(torch.optim.AdamW(learning, lr=lr_other, betas=(0.9, 0.95), weight_decay=0.0))


def reference_copy(learner: Learner) -> PreTrainedModel:
    """A frozen copy of the weights that the policy writes with now."""
    import copy

    model = copy.deepcopy(cast("PreTrainedModel", learner.policy.model)).eval()
    return cast("PreTrainedModel", model.requires_grad_(False))


def reference_at_start(learner: Learner) -> PreTrainedModel:
    """A frozen copy of what the policy writes with before it has learnt; what adapters leave as it is, is shared."""
    import copy

    from clew.models.tuning import base_weights

    model = cast("PreTrainedModel", learner.policy.model)
    kept = base_weights(learner.model) if learner.tuning.lora else {}
    # What the memo has is not copied.
    memo: dict[int, Any] = {id(weight): kept[name] for name, weight in model.named_parameters() if name in kept}
    return cast("PreTrainedModel", copy.deepcopy(model, memo).eval().requires_grad_(False))


def reference_at(path: Path, learner: Learner, name: str) -> PreTrainedModel:
    """The model at `path`, a run or a checkpoint, which is called `name` in the message that refuses it.

    Raises `InvalidValue` if its tokens are not those of the policy.
    """
    from clew.data.checkpoint_files import resolve_checkpoint
    from clew.reward.load import load_any

    model, tokenizer = load_any(resolve_checkpoint(path), "ForCausalLM")
    same_vocabulary(learner.tokenizer, tokenizer, name)
    return model


def check_fits(examples: Sequence[Example], context: int) -> None:
    """Raise `InvalidValue` if one of `examples` is longer than the model's context."""
    longest = max((len(e.prompt_ids) + len(e.response_ids) for e in examples), default=0)
    if longest > context:
        accepted = f"at most {context} tokens, prompt included: the model's context"
        raise InvalidValue("length of an example", longest, accepted, "drop it, or choose a model with more context")


def fitting(problems: Sequence[Problem], policy: Any, *, max_tokens: int, mode: str = "think") -> list[Problem]:
    """Problems whose prompt and a response of `max_tokens` fit the context of `policy`; says how many do not.

    Raises `InvalidValue` if none does.
    """
    lengths = [len(policy.prompt_ids(problem, mode)) for problem in problems]
    fits = [one for one, length in zip(problems, lengths, strict=True) if length + max_tokens <= policy.context]
    if problems and not fits:
        given = f"at least {min(lengths)} with max_tokens {max_tokens}"
        accepted = f"together at most {policy.context} tokens, the model's context"
        raise InvalidValue("tokens of the prompts", given, accepted, "lower max_tokens or shorten the prompts")
    if len(fits) < len(problems):
        left_out = f"{len(problems) - len(fits)} of {len(problems)} problems left out"
        print(f"clew: {left_out}: prompts too long to be answered", file=sys.stderr)
    return fits


def check_run_tokens(run: Path, learner: Learner, name: str) -> None:
    """Raise `InvalidValue` if the model that wrote what `run` holds has other tokens than `learner`.

    A run whose model is no longer there is taken at its word.
    """
    from clew.data.checkpoint_files import CHECKPOINTS
    from clew.recipes.data_sources import Source

    writer = Source(run=run).config.get("checkpoint")
    # A run of clew search has a place for checkpoints, and none in it.
    if any((run / CHECKPOINTS).glob("[!.]*")):
        check_tokens(run, learner.tokenizer, name)
    elif isinstance(writer, str) and Path(writer).is_dir():
        check_tokens(Path(writer), learner.tokenizer, name)


def check_tokens(checkpoint: Path, tokenizer: Any, name: str) -> None:
    """Raise `InvalidValue` unless the checkpoint or run has the same tokens as `tokenizer`; None: that is not known."""
    from transformers import AutoTokenizer

    from clew.data.checkpoint_files import resolve_checkpoint

    if tokenizer is not None:
        other = AutoTokenizer.from_pretrained(resolve_checkpoint(checkpoint), local_files_only=True)
        same_vocabulary(tokenizer, other, name)


def same_vocabulary(one: Any, other: Any, name: str) -> None:
    """Raise `InvalidValue` unless two tokenizers have the same tokens under the same ids."""
    if one.get_vocab() != other.get_vocab():
        given = f"a model of {len(other)} tokens that are not those of the policy, which has {len(one)}"
        raise InvalidValue(name, given, "a model with the policy's own vocabulary", "choose one of the same family")


def copied(learner: Learner) -> Learner:
    """Another learner that starts from what the policy of `learner` writes with now."""
    import copy

    kind: Any = type(learner.policy)
    return Learner(kind(copy.deepcopy(learner.policy.model), learner.tokenizer), learner.tuning, mode=learner.mode)
