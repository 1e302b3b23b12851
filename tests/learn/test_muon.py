"""Muon against torch's own, against the SVD, and against the textbook iteration."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from clew.learn import muon
from clew.learn.muon import COEFFICIENTS, Muon, orthogonalise
from clew.learn.optim import MuonAdamW, make_optimizer, split_parameters


def textbook(matrix: Tensor, steps: int = 5) -> Tensor:
    a, b, c = COEFFICIENTS
    x = matrix / matrix.norm()
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 24), (2, 24, 8), (1, 1, 5), (1, 5, 1)])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_orthogonalise_is_the_textbook_newton_schulz(shape: tuple[int, int, int], steps: int) -> None:
    batch = random(*shape)
    wanted = torch.stack([textbook(m.double(), steps) for m in batch])
    assert torch.allclose(orthogonalise(batch, steps=steps).double(), wanted, atol=2e-5)


@pytest.mark.parametrize(
    "shape", [(8, 8), (8, 24), (24, 8), (1, 5), (5, 1), (1, 1), (33, 40), (100, 70), (128, 128), (128, 384), (384, 128)]
)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_compiled_orthogonalise_is_the_textbook_newton_schulz(shape: tuple[int, int], steps: int) -> None:
    matrix = random(*shape)
    (out,) = muon._orthogonal([matrix], steps)
    assert torch.allclose(out.double(), textbook(matrix.double(), steps), atol=2e-5)
    (of_zero,) = muon._orthogonal([torch.zeros(shape)], steps)
    assert torch.equal(of_zero, torch.zeros(shape))


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
    untied = nn.ModuleDict({"lm_head": nn.Linear(4, 10, bias=False), "mlp": nn.Linear(4, 4, bias=False)})
    assert [id(p) for p in split_parameters(untied).matrices] == [id(untied["mlp"].weight)]


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
