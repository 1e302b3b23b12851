"""Muon against torch's own, against the SVD, and against the textbook iteration."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clew.core.errors import InvalidValue
from clew.learn import muon
from clew.learn.muon import Muon, orthogonalise
from clew.learn.optim import MuonAdamW, make_optimizer, split_parameters


def textbook(matrix: Tensor, steps: int = 5) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / matrix.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 24), (2, 24, 8), (1, 1, 5), (1, 5, 1)])
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_orthogonalise_is_the_textbook_newton_schulz(shape: tuple[int, int, int], steps: int) -> None:
    batch = random(*shape)
    wanted = torch.stack([textbook(m.double(), steps) for m in batch])
    assert torch.allclose(orthogonalise(batch, steps=steps).double(), wanted, atol=2e-5)


@pytest.mark.parametrize(
    "shape", [(8, 8), (8, 24), (24, 8), (1, 5), (5, 1), (1, 1), (33, 40), (100, 70), (128, 128), (128, 384), (384, 128)]
)
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_compiled_orthogonalise_is_the_textbook_newton_schulz(shape: tuple[int, int], steps: int) -> None:
    matrix = random(*shape)
    (out,) = muon._orthogonal([matrix], steps)
    assert torch.allclose(out.double(), textbook(matrix.double(), steps), atol=2e-5)
    (of_zero,) = muon._orthogonal([torch.zeros(shape)], steps)
    assert torch.equal(of_zero, torch.zeros(shape))


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_a_matrix_below_epsilon_is_divided_by_epsilon(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    tiny = matrix * (0.5e-7 / matrix.norm())
    wanted = textbook(tiny.double(), 1)
    assert torch.allclose(orthogonalise(tiny[None], steps=1)[0].double(), wanted, atol=2e-5)
    (compiled,) = muon._orthogonal([tiny], 1)
    assert torch.allclose(compiled.double(), wanted, atol=2e-5)
    assert wanted.norm() < 2.0 < textbook(matrix.double(), 1).norm()


@pytest.mark.parametrize(
    ("shapes", "shares"),
    [
        ([(2, 2), (2, 2), (2, 2), (2, 2), (16, 16)], [[0, 1, 2, 3], [4]]),
        ([(2, 64), (64, 2), (16, 16)], [[0, 1], [2]]),
        ([(8, 64), (8, 64), (8, 64), (16, 16)], [[0, 1, 2], [3]]),
    ],
    ids=["the largest first", "the smaller side squared", "its cube too"],
)
def test_the_costliest_matrix_has_a_thread_of_its_own(shapes: list[tuple[int, int]], shares: list[list[int]]) -> None:
    found = muon._shares([torch.Size(shape) for shape in shapes], 2)
    assert sorted(sorted(share) for share in found) == shares


@pytest.mark.parametrize("parts", [1, 2, 3, 9])
def test_matrices_are_divided_into_shares_of_about_equal_work(parts: int) -> None:
    shapes = [torch.Size(s) for s in [(8, 24), (24, 8), (8, 8), (2, 8), (8, 24), (24, 8), (1, 1)]]
    shares = muon._shares(shapes, parts)
    assert sorted(index for share in shares for index in share) == list(range(len(shapes)))
    assert all(shares)
    if parts == 2:
        large = [sum(index in (0, 1, 4, 5) for index in share) for share in shares]
        assert large == [2, 2]
    assert muon._shares([], parts) == []


@pytest.mark.parametrize("shape", [(4, 32, 96), (4, 96, 32), (4, 48, 48)])
def test_orthogonalise_keeps_singular_vectors_and_flattens_singular_values(shape: tuple[int, int, int]) -> None:
    # Condition number 10: smaller singular values need more than five steps to reach the band.
    u, _, vt = torch.linalg.svd(random(*shape).double(), full_matrices=False)
    values = torch.linspace(1.0, 0.1, vt.shape[-2], dtype=torch.float64)
    out = orthogonalise((u * values @ vt).float()).double()
    new_values = torch.diagonal(u.mT @ out @ vt.mT, dim1=-2, dim2=-1)
    assert new_values.min() > 0.65 and new_values.max() < 1.25
    assert torch.allclose(u * new_values[:, None, :] @ vt, out, atol=1e-4)


def test_orthogonalise_stays_accurate_when_singular_values_span_eight_decades() -> None:
    u, _, vt = torch.linalg.svd(random(32, 96).double(), full_matrices=False)
    matrix = u * torch.logspace(0, -8, 32, dtype=torch.float64) @ vt
    out = orthogonalise(matrix.float()[None])[0].double()
    assert torch.allclose(out, textbook(matrix), atol=1e-3)


def test_orthogonalise_of_zero_is_zero() -> None:
    assert torch.equal(orthogonalise(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))


def test_muon_follows_torch_muon_up_to_bfloat16() -> None:
    shapes = [(16, 48), (48, 16), (16, 16), (16, 48)]
    ours = [nn.Parameter(random(*s, seed=i)) for i, s in enumerate(shapes)]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizer = Muon(ours, lr=0.1, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.1)
    starts = [p.detach().clone() for p in ours]
    for step in range(5):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.grad = random(*p.shape, seed=100 * step + i)
            q.grad = p.grad.clone()
        optimizer.step()
        reference.step()
    for p, q, start in zip(ours, theirs, starts, strict=True):
        moved, wanted = p.detach() - start, q.detach() - start
        assert (moved - wanted).norm() / wanted.norm() < 0.02


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("how", [{}, {"momentum": 0.8, "steps": 2, "weight_decay": 0.5}])
def test_muon_is_its_update_written_out(dtype: torch.dtype, atol: float, how: dict[str, float]) -> None:
    """Float32 runs in compiled loops, matrix by matrix, float64 in batches of one shape."""
    shapes = [(4, 6), (6, 4), (5, 5), (4, 6), (1, 3), (6, 4)]
    momentum, steps, decay = how.get("momentum", 0.95), int(how.get("steps", 5)), how.get("weight_decay", 0.0)
    parameters = [nn.Parameter(random(*shape, seed=at).to(dtype)) for at, shape in enumerate(shapes)]
    expected = [parameter.detach().double() for parameter in parameters]
    moving = [torch.zeros_like(one) for one in expected]
    optimizer = Muon(parameters, lr=0.3, **how)  # type: ignore[arg-type]
    for step in range(4):
        for at, parameter in enumerate(parameters):
            parameter.grad = random(*parameter.shape, seed=100 * step + at).to(dtype)
            gradient = parameter.grad.double()
            moving[at] = momentum * moving[at] + (1 - momentum) * gradient
            update = textbook(momentum * moving[at] + (1 - momentum) * gradient, steps)
            rows, cols = parameter.shape
            expected[at] = (1 - 0.3 * decay) * expected[at] - 0.3 * max(1.0, rows / cols) ** 0.5 * update
        optimizer.step()
    for parameter, wanted in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter.detach().double(), wanted, atol=atol)


def test_muon_skips_parameters_without_gradient_and_rejects_vectors() -> None:
    used, unused = nn.Parameter(random(3, 4)), nn.Parameter(random(3, 4, seed=1))
    optimizer = Muon([used, unused], lr=0.1, weight_decay=0.5)
    before = unused.detach().clone()
    used.grad = torch.ones_like(used)
    optimizer.step()
    assert torch.equal(unused, before)
    with pytest.raises(ValueError, match="2-D"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.hidden = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.lm_head = nn.Linear(4, 10, bias=False)
        self.lm_head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.lm_head(self.norm(self.hidden(self.embed(ids))))
        return out


def test_split_covers_each_trainable_parameter_once() -> None:
    model = Tied()
    split = split_parameters(model)
    assert [id(p) for p in split.matrices] == [id(model.hidden.weight)]
    assert {id(p) for p in split.others} == {id(p) for p in model.parameters()} - {id(model.hidden.weight)}
    heads = {name: nn.Linear(4, 10, bias=False) for name in ("lm_head", "score")}
    untied = nn.ModuleDict(
        {**heads, "mlp": nn.Linear(4, 4, bias=False), "frozen": nn.Linear(4, 4), "table": nn.Embedding(4, 4)}
    )
    untied["frozen"].requires_grad_(False)
    for model in (untied, nn.ModuleDict({"inner": untied})):
        split = split_parameters(model)
        assert [id(p) for p in split.matrices] == [id(untied["mlp"].weight)]
        assert [id(p) for p in split.others] == [id(untied[name].weight) for name in ("lm_head", "score", "table")]


@pytest.mark.parametrize("given", [{}, {"lr_matrix": 0.1, "lr_other": 0.02, "momentum": 0.7, "betas": (0.8, 0.99)}])
def test_each_part_of_the_optimizer_is_the_one_it_is_named_after(given: dict[str, Any]) -> None:
    """The rate of a step is the base rate times its own multiplier, whatever those of earlier steps were."""
    used = {"lr_matrix": 0.02, "lr_other": 4e-3, "momentum": 0.95, "betas": (0.9, 0.95), **given}
    torch.manual_seed(0)
    model = Tied()
    twin = deepcopy(model)
    ours, split = make_optimizer(model, **given), split_parameters(twin)
    parts = (
        Muon(split.matrices, lr=0.0, momentum=used["momentum"]),
        torch.optim.AdamW(split.others, lr=0.0, betas=used["betas"], weight_decay=0.0),
    )
    for step, multiplier in enumerate((0.5, 1.0, 0.25)):
        for at, (p, q) in enumerate(zip(model.parameters(), twin.parameters(), strict=True)):
            p.grad = random(*p.shape, seed=10 * step + at)
            q.grad = p.grad.clone()
        ours.step(multiplier=multiplier)
        for part, rate in zip(parts, (used["lr_matrix"], used["lr_other"]), strict=True):
            part.param_groups[0]["lr"] = rate * multiplier
            part.step()
        ours.zero_grad()
        assert all(p.grad is None for p in model.parameters())
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_weight_decay_shrinks_matrices_alone() -> None:
    torch.manual_seed(0)
    model = Tied()
    before = deepcopy(model)
    optimizer = make_optimizer(model, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(multiplier=0.5)
    assert torch.allclose(model.hidden.weight, before.hidden.weight * (1 - 0.5 * 0.02 * 0.5), rtol=1e-6)
    others = zip(split_parameters(model).others, split_parameters(before).others, strict=True)
    assert all(torch.equal(p, q) for p, q in others)


@pytest.mark.parametrize("name", ["lr_matrix", "lr_other"])
@pytest.mark.parametrize("rate", [-0.1, math.inf, math.nan])
def test_rates_that_are_none_are_refused(name: str, rate: float) -> None:
    with pytest.raises(InvalidValue, match=name):
        make_optimizer(Tied(), **{name: rate})


def test_optimizer_learns_resumes_exactly_and_scales_by_the_multiplier() -> None:
    torch.manual_seed(0)
    model = Tied()
    ids = torch.arange(10)

    def train(optimizer: MuonAdamW, steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(ids), ids.flip(0))
            loss.backward()
            optimizer.step(multiplier=0.5)
        return loss.item()

    optimizer = make_optimizer(model)
    first = train(optimizer, 1)
    assert train(optimizer, 30) < 0.7 * first
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    saved = deepcopy(optimizer.state_dict())
    straight = train(optimizer, 3)
    model.load_state_dict(weights)
    resumed = make_optimizer(model)
    resumed.load_state_dict(saved)
    assert train(resumed, 3) == straight

    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer.step(multiplier=0.0)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
