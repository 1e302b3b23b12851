"""Muon (Keller Jordan 2024, https://kellerjordan.github.io/posts/muon/): momentum whose matrices are orthogonalised.

Differences from `torch.optim.Muon`, which has the same update: float32 instead of bfloat16 (emulated, so slow, on
most CPUs), matrices of equal shape orthogonalised in one batch, and Newton-Schulz run on the small Gram matrix.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Quintic with the steepest slope at zero that keeps singular values near one (Jordan 2024)."""


def orthogonalise(matrices: Tensor, *, steps: int = 5, eps: float = 1e-7) -> Tensor:
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
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, buffers, momentum)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, parameter in enumerate(parameters):
            rows, cols = parameter.shape
            by_shape[min(rows, cols), max(rows, cols)].append(index)
        for indices in by_shape.values():
            wide = [updates[i].mT if updates[i].shape[0] > updates[i].shape[1] else updates[i] for i in indices]
            for i, update in zip(indices, orthogonalise(torch.stack(wide), steps=group["steps"]), strict=True):
                rows, cols = parameters[i].shape
                scale = max(1.0, rows / cols) ** 0.5
                parameters[i].add_(update.mT if rows > cols else update, alpha=-lr * scale)

    def _momentum_buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
