"""One optimiser for a transformer: Muon for its hidden matrices, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import nn

from clew.core.errors import InvalidValue
from clew.learn.muon import Muon
from clew.models.side_by_side import by_size


class ParameterSplit(NamedTuple):
    """Trainable parameters of a model, each in exactly one of the two lists."""

    matrices: list[nn.Parameter]
    others: list[nn.Parameter]


def split_parameters(model: nn.Module, *, heads: Sequence[str] = ("lm_head", "score")) -> ParameterSplit:
    """Hidden 2-D matrices, and the rest: embeddings (also tied ones), norms, biases and modules named in `heads`.

    Input and output embeddings are lookup tables, whose rows are not one linear map: Muon is not meant for them.
    """
    tables = {
        id(parameter)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) or name.rpartition(".")[2] in heads
        for parameter in module.parameters()
    }
    split = ParameterSplit([], [])
    for parameter in model.parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and id(parameter) not in tables
            (split.matrices if hidden else split.others).append(parameter)
    return split


def _step(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()


@final
class MuonAdamW:
    """Two optimisers that step as one; the learning rate of a step is the base rate times a multiplier."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self._optimizers = optimizers
        self._base_lrs = [[float(group["lr"]) for group in o.param_groups] for o in optimizers]

    def step(self, *, multiplier: float = 1.0) -> None:
        """Update with `multiplier` (see `clew.learn.schedule`) times the base learning rates."""
        for optimizer, lrs in zip(self._optimizers, self._base_lrs, strict=True):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * multiplier
            # Muon has threads of its own; what is left is too small for torch's.
            if isinstance(optimizer, Muon):
                optimizer.step()
            else:
                by_size(_step, optimizer, sum(p.numel() for group in optimizer.param_groups for p in group["params"]))

    def zero_grad(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [o.state_dict() for o in self._optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def make_optimizer(
    model: nn.Module,
    *,
    lr_matrix: float = 0.02,
    lr_other: float = 4e-3,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
    momentum: float = 0.95,
) -> MuonAdamW:
    """Muon at `lr_matrix` for hidden matrices and AdamW at `lr_other` for the rest; decay only shrinks matrices."""
    for name, lr in (("lr_matrix", lr_matrix), ("lr_other", lr_other)):
        if not 0.0 <= lr < float("inf"):
            raise InvalidValue(name, lr, "a finite number of at least 0", "0.02 for matrices and 0.004 else are usual")
    split = split_parameters(model)
    optimizers: list[torch.optim.Optimizer] = []
    if split.matrices:
        optimizers.append(Muon(split.matrices, lr=lr_matrix, momentum=momentum, weight_decay=weight_decay))
    if split.others:
        optimizers.append(torch.optim.AdamW(split.others, lr=lr_other, betas=betas, weight_decay=0.0, fused=True))
    return MuonAdamW(*optimizers)
