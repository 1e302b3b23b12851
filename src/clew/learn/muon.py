"""Muon (Keller Jordan 2024, https://kellerjordan.github.io/posts/muon/): momentum whose matrices are orthogonalised.

Differences from `torch.optim.Muon`, which has the same update: float32 instead of bfloat16 (emulated, so slow, on
most CPUs), Newton-Schulz run on the small Gram matrix, and matrices divided among threads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clew.models import orthogonal_kernels
from clew.models.blas import sgemm
from clew.models.side_by_side import side_by_side

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Quintic with the steepest slope at zero that keeps singular values near one (Jordan 2024)."""

EPSILON = 1e-7
"""Norm below which a matrix counts as zero."""


def orthogonalise(matrices: Tensor, *, steps: int = 5, eps: float = EPSILON) -> Tensor:
    """Replace the singular values of each of `matrices` [N, rows, cols] by ones, roughly (0.7 to 1.2 after 5 steps).

    Newton-Schulz: X <- aX + b(XX')X + c(XX')²X, started from X / |X|. Every factor is a polynomial in A = XX', so
    the iteration runs on A (A <- QAQ with Q = aI + bA + cA²) and the product of the Qs meets X once, at the end:
    the same numbers in fewer multiplications when rows and columns differ. Needs float32 or better, because A
    squares the singular values.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        tall: Tensor = orthogonalise(matrices.mT, steps=steps, eps=eps).mT
        return tall
    a, b, c = COEFFICIENTS
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    gram = x @ x.mT
    product: Tensor | None = None
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            gram = factor @ (gram @ factor)
    return x if product is None else product @ x


class Muon(torch.optim.Optimizer):
    """Momentum SGD with orthogonalised updates, for the 2-D hidden matrices of a network.

    update = orthogonalise(nesterov momentum) * sqrt(max(1, rows / cols)); weight decay is decoupled: p *= 1 - lr * wd.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon takes 2-D parameters, not one of shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step_group(group, parameters)

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        buffers = [self._momentum_buffer(p) for p in parameters]

        @torch.no_grad()
        def apply(indices: list[int]) -> None:
            own, grads, moving = ([some[i] for i in indices] for some in (parameters, gradients, buffers))
            torch._foreach_lerp_(moving, grads, 1 - momentum)
            updates = torch._foreach_lerp(grads, moving, momentum)
            if group["weight_decay"]:
                torch._foreach_mul_(own, 1 - lr * group["weight_decay"])
            for parameter, update in zip(own, _orthogonal(updates, group["steps"]), strict=True):
                rows, cols = parameter.shape
                parameter.add_(update, alpha=-lr * max(1.0, rows / cols) ** 0.5)

        side_by_side(apply, _shares([p.shape for p in parameters], torch.get_num_threads()))

    def _momentum_buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _orthogonal(updates: Sequence[Tensor], steps: int) -> Iterator[Tensor]:
    """Each of `updates` orthogonalised: alone where compiled loops can, else with those of its shape."""
    if all(update.dtype == torch.float32 and update.device.type == "cpu" for update in updates):
        coefficients = tuple(map(np.float32, COEFFICIENTS))
        for update in updates:
            out = torch.empty(update.shape)
            given = update.contiguous().numpy(), coefficients, steps, np.float32(EPSILON)
            orthogonal_kernels.orthogonalise(sgemm(), *given, out.numpy())
            yield out
        return
    by_shape: dict[torch.Size, list[int]] = defaultdict(list)
    for index, update in enumerate(updates):
        by_shape[update.shape].append(index)
    found: dict[int, Tensor] = {}
    for indices in by_shape.values():
        found.update(zip(indices, orthogonalise(torch.stack([updates[i] for i in indices]), steps=steps), strict=True))
    for index in range(len(updates)):
        yield found[index]


def _shares(shapes: Sequence[torch.Size], parts: int) -> list[list[int]]:
    """Matrices of `shapes` divided into shares of about equal work."""
    work = [min(shape) ** 2 * (max(shape) + 8 * min(shape)) for shape in shapes]
    shares: list[list[int]] = [[] for _ in range(min(parts, len(shapes)))]
    loads = [0] * len(shares)
    for index in sorted(range(len(shapes)), key=lambda i: -work[i]):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += work[index]
    return shares
