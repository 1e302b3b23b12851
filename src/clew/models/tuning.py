"""Which weights learn, in what precision and for what memory: options that every recipe of learning shares.

LoRA is peft's (arXiv 2106.09685). A model with adapters, with checkpointing or in bf16 goes through the library's
forward pass; only plain float32 goes through clew's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from clew.core.errors import InvalidValue, MissingExtra

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

ADAPTER = "adapter"
"""Directory of the adapters inside a checkpoint whose weights have them merged."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How a model learns; the default is full fine-tuning in float32."""

    lora: int = 0
    """Rank of the adapters that learn instead of the weights; 0: the weights learn."""
    lora_alpha: float = 0.0
    """Adapters count alpha / rank; 0 stands for twice the rank."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third more time."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the products in the forward and backward pass. Weights, sums and log-probs stay in float32."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is saved in the end; 0: the last weights are saved."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: Muon for hidden matrices, AdamW for the rest. adamw: AdamW for all, at lr_other. Adapters: always adamw."""

    def __post_init__(self) -> None:
        if self.lora < 0:
            raise InvalidValue("lora", self.lora, "a rank of at least 1, or 0 for full fine-tuning", "use 8 or 16")
        if not 0.0 <= self.lora_alpha < math.inf:
            raise InvalidValue("lora_alpha", self.lora_alpha, "a finite number of at least 0", "leave it out")
        if self.lora_alpha and not self.lora:
            raise InvalidValue(
                "lora_alpha", self.lora_alpha, "only with lora", "give a rank with lora, or leave it out"
            )
        if not 0.0 <= self.ema < 1.0:
            raise InvalidValue("ema", self.ema, "a number from 0 up to, not including, 1", "use 0.99, or 0 for none")


def add_adapters(model: PreTrainedModel, tuning: Tuning, *, seed: int) -> None:
    """Give every linear layer of `model` but the last an adapter that changes nothing yet, and freeze all the rest.

    Raises `MissingExtra` without peft.
    """
    import torch

    try:
        from peft import LoraConfig
    except ImportError:
        accepted = "peft 0.18 or later for --tuning.lora"
        raise MissingExtra("peft is not installed", accepted, "python -m pip install 'clew[lora]'") from None
    alpha = tuning.lora_alpha or 2.0 * tuning.lora
    config: Any = LoraConfig(r=tuning.lora, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config)


def base_weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The weights of `model` without its adapters, which leave them as they were, by their names in the plain model."""
    named = model.named_parameters(remove_duplicate=False)
    return {name.replace(".base_layer.", "."): weight for name, weight in named if ".lora_" not in name}


def merged_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The state of `model` with its adapters added to the weights they adapt, under the names of the plain model."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    with torch.no_grad():
        weights = {
            name.replace(".base_layer.", "."): tensor.detach()
            for name, tensor in model.state_dict().items()
            if ".lora_" not in name
        }
        for name, module in model.named_modules():
            if isinstance(module, BaseTunerLayer):
                for adapter in module.active_adapters:
                    delta = module.get_delta_weight(adapter)  # type: ignore[operator]
                    weights[f"{name}.weight"] = weights[f"{name}.weight"] + delta
    return weights


def save_adapters(model: PreTrainedModel, directory: Path) -> None:
    """Write the adapters of `model` alone, in peft's format, to `directory`."""
    import warnings

    from clew.models.checkpoint import no_progress_bars

    with no_progress_bars(), warnings.catch_warnings():
        # Embeddings have no adapters, so whether peft finds the first model's configuration does not matter.
        warnings.filterwarnings("ignore", message="Could not find a config file")
        model.save_pretrained(directory)


def in_precision(tuning: Tuning, model: PreTrainedModel) -> AbstractContextManager[Any]:
    """What a forward pass is to stand in. It holds for one thread: enter it where the pass is."""
    import torch

    if tuning.precision == "fp32":
        return nullcontext()
    return torch.autocast(model.device.type, dtype=torch.bfloat16)


@contextmanager
def recomputing(model: PreTrainedModel, tuning: Tuning) -> Iterator[None]:
    """Within, passes of `model` keep no activations inside a layer, if `tuning` says so.

    Raises `InvalidValue` for a model whose layers are not the library's.
    """
    if not tuning.gradient_checkpointing:
        yield
        return
    from functools import partial

    from torch.utils.checkpoint import checkpoint

    layers = layers_of(model)
    for layer in layers:
        # Not the library's own switch: it asks for training mode, in which some layers drop out.
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        layer.gradient_checkpointing = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
            layer.gradient_checkpointing = False  # type: ignore[assignment]


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers whose activations can be computed again. Raises `InvalidValue` if the library marks none."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[nn.Module] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        accepted = "a model whose layers transformers can compute again"
        raise InvalidValue("gradient_checkpointing with", type(model).__name__, accepted, "leave it out")
    return layers
