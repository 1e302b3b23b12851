"""The features that number tokens start from: rotation adds, rotation of logarithms multiplies."""

from __future__ import annotations

import math

import pytest
import torch

from clew.core.errors import InvalidValue
from clew.models.architecture import EMBEDDING_SCALE, SmallQwen3, build_model
from clew.models.number_embedding import LOG_PERIODS, PERIODS, number_features, place_number_features
from clew.models.tokenizer import build_tokenizer

ANGLES = len(PERIODS) + len(LOG_PERIODS)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (3, 5), (17, 40), (9, 90)])
def test_adding_numbers_rotates_their_features(a: int, b: int) -> None:
    features = number_features(100).double() / math.sqrt(2.0)
    for at, period in enumerate(PERIODS):
        turn = 2 * math.pi * b / period
        cos, sin = features[a, at].item(), features[a, ANGLES + at].item()
        assert math.isclose(features[a + b, at].item(), cos * math.cos(turn) - sin * math.sin(turn), abs_tol=1e-5)
        assert math.isclose(
            features[a + b, ANGLES + at].item(), sin * math.cos(turn) + cos * math.sin(turn), abs_tol=1e-5
        )


@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 5), (7, 14), (9, 11)])
def test_multiplying_numbers_rotates_their_features(a: int, b: int) -> None:
    features = number_features(100).double() / math.sqrt(2.0)
    for at, period in enumerate(LOG_PERIODS, len(PERIODS)):
        turn = 2 * math.pi * math.log(b) / period
        cos, sin = features[a, at].item(), features[a, ANGLES + at].item()
        assert math.isclose(features[a * b, at].item(), cos * math.cos(turn) - sin * math.sin(turn), abs_tol=1e-5)
        assert math.isclose(
            features[a * b, ANGLES + at].item(), sin * math.cos(turn) + cos * math.sin(turn), abs_tol=1e-5
        )


def test_rows_are_of_equal_size_and_all_different() -> None:
    features = number_features(100)
    assert torch.allclose(features.square().mean(dim=1), torch.ones(100), atol=1e-5)
    distances = torch.cdist(features, features) + torch.eye(100) * 100
    assert distances.min() > 0.5


def test_placing_keeps_distances_and_touches_no_other_row() -> None:
    embedding = torch.zeros(230, 64)
    place_number_features(embedding, [list(range(20, 120)), list(range(130, 230))], 0.1)
    assert not embedding[:20].any()
    assert not embedding[120:130].any()
    features = number_features(100)
    distances = torch.cdist(features, features) * 0.1 * math.sqrt(64 / features.shape[1])
    placed = embedding[20:120]
    assert torch.allclose(torch.cdist(placed, placed), distances * placed.square().mean().sqrt() / 0.1, atol=1e-3)


def test_families_share_the_directions_of_the_features_and_differ_by_their_role() -> None:
    embedding = torch.zeros(200, 64)
    place_number_features(embedding, [list(range(100)), list(range(100, 200))], 1.0)
    plain, marked = embedding[:100], embedding[100:]
    assert math.isclose(marked.square().mean().sqrt(), 1.0, abs_tol=1e-5)
    plain, marked = (rows - rows.mean(dim=0) for rows in (plain, marked))
    assert torch.allclose(plain / plain.norm(dim=1, keepdim=True), marked / marked.norm(dim=1, keepdim=True), atol=1e-4)
    assert (embedding[:100] - embedding[100:]).square().mean() > 0.1


def test_a_width_too_small_for_the_features_is_refused() -> None:
    with pytest.raises(InvalidValue, match="model width is 16"):
        place_number_features(torch.zeros(130, 16), [list(range(100))], 0.1)


def test_the_model_starts_from_them_and_from_its_seed_alone() -> None:
    tokenizer = build_tokenizer()
    first, again, other = (build_model(SmallQwen3(layers=1), tokenizer, seed) for seed in (0, 0, 1))
    ids = [tokenizer.convert_tokens_to_ids(f"Ġ{n}") for n in range(100)]
    rows = first.model.embed_tokens.weight[ids].detach()
    assert math.isclose(rows.square().mean().sqrt().item(), EMBEDDING_SCALE, rel_tol=1e-3)
    phrases = first.model.embed_tokens.weight[[tokenizer.convert_tokens_to_ids(f"Ġ=Ġ{n}") for n in range(100)]]
    assert math.isclose(phrases.square().mean().sqrt().item(), EMBEDDING_SCALE, rel_tol=1e-3)
    same = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)
