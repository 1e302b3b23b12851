"""Threads and micro-batches change nothing but the time: gradients are those of one pass over everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clew.learn.batch import Example, PaddedBatch, pad
from clew.learn.gradients import clip_gradient, even_batches, sum_gradients
from clew.learn.ranks import Place
from clew.models.side_by_side import side_by_side


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class Bigram(nn.Module):
    """Logits of the next token from the present one, in float64; `unused` never takes part."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(11, 11, dtype=torch.double))
        self.unused = nn.Parameter(torch.ones(3, dtype=torch.double))


MODEL = Bigram()


def loss_of(batch: PaddedBatch) -> tuple[Tensor, int]:
    logprobs = MODEL.table[batch.input_ids].log_softmax(-1).gather(-1, batch.targets[..., None]).squeeze(-1)
    return -(logprobs * batch.target_mask).sum(), int(batch.target_mask.sum())


def gradient(examples: list[Example], threads: int, tokens_per_pass: int) -> tuple[Tensor, list[int]]:
    torch.set_num_threads(threads)
    MODEL.zero_grad()
    lengths = [example.length for example in examples]
    noted = sum_gradients(
        MODEL, lengths, lambda rows: loss_of(pad([examples[row] for row in rows])), tokens_per_pass=tokens_per_pass
    )
    assert MODEL.table.grad is not None
    assert MODEL.unused.grad is not None
    assert not MODEL.unused.grad.any()
    return MODEL.table.grad.clone(), noted


responses = st.lists(st.integers(1, 10), min_size=1, max_size=9)


@given(
    texts=st.lists(responses, min_size=1, max_size=12), threads=st.integers(1, 3), tokens_per_pass=st.integers(1, 60)
)
@settings(max_examples=40, deadline=None)
def test_the_sum_does_not_depend_on_its_division(texts: list[list[int]], threads: int, tokens_per_pass: int) -> None:
    examples = [Example(prompt_ids=(1, 2), response_ids=text) for text in texts]
    loss, counted = loss_of(pad(examples))
    (expected,) = torch.autograd.grad(loss, [MODEL.table])
    divided, noted = gradient(examples, threads, tokens_per_pass)
    torch.testing.assert_close(divided, expected)
    assert sum(noted) == counted == sum(map(len, texts))


def test_every_thread_gets_about_as_much_and_a_run_repeats_itself() -> None:
    examples = [Example(prompt_ids=(1,), response_ids=[3] * 8) for _ in range(64)]
    first, noted = gradient(examples, 2, 2048)
    assert len(noted) == 2
    assert sum(noted) == 512
    assert max(noted) == min(noted)
    assert torch.equal(first, gradient(examples, 2, 2048)[0])


def test_micro_batches_are_added_in_their_order_and_only_to_what_learns() -> None:
    """In float64, 1e16 - 1e16 + 1 is 1 from the left and 0 from the right."""
    torch.set_num_threads(1)
    model = nn.ParameterDict({"learns": torch.ones(1, dtype=torch.double), "frozen": torch.ones(1)})
    model["frozen"].requires_grad_(False)
    model["learns"].grad = torch.full((1,), 7.0, dtype=torch.double)
    factors = [1e16, -1e16, 1.0]

    def loss_of(rows: list[int]) -> tuple[Tensor, list[int]]:
        return sum(factors[row] for row in rows) * model["learns"].sum(), rows

    assert sum_gradients(model, [3, 2, 1], loss_of, tokens_per_pass=1) == [[0], [1], [2]]
    assert model["learns"].grad.item() == 1.0
    assert model["frozen"].grad is None


@pytest.mark.parametrize(("rank", "own"), [(0, [[0, 1]]), (1, [[2, 3]])])
def test_each_rank_has_as_much_to_do(rank: int, own: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it would fit one pass; what the ranks do then is tested where there are two."""
    torch.set_num_threads(1)
    monkeypatch.setattr("clew.learn.gradients.here", lambda: Place(rank, 2))
    monkeypatch.setattr("clew.learn.gradients.sum_over_ranks", lambda model, noted, what: noted)
    model = nn.ParameterList([torch.ones(1)])
    found = sum_gradients(model, [5] * 4, lambda rows: (model[0].sum(), rows), tokens_per_pass=1000)
    assert found == own


@pytest.mark.parametrize(("largest", "factor"), [(2.0, 0.4), (5.5, 1.0)])
def test_clipping_scales_the_whole_gradient_alike_and_tells_the_norm_it_had(largest: float, factor: float) -> None:
    model = nn.ParameterList([torch.zeros(2), torch.zeros(1), torch.zeros(4)])
    model[0].grad, model[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([-4.0])
    assert clip_gradient(model, largest) == pytest.approx(5.0)
    assert model[0].grad.tolist() == pytest.approx([3.0 * factor, 0.0], rel=1e-6)
    assert model[1].grad.tolist() == pytest.approx([-4.0 * factor], rel=1e-6)
    assert model[2].grad is None


@pytest.mark.parametrize(
    ("lengths", "tokens_per_pass", "workers", "sizes"),
    [
        ([1] * 300, 100, 1, [100, 100, 100]),
        ([1] * 301, 100, 1, [76, 76, 76, 73]),
        ([1] * 300, 100, 2, [75, 75, 75, 75]),
        ([1] * 300, 1000, 3, [100, 100, 100]),
        ([1] * 300, 1000, 1, [300]),
        # A share is 26.67 tokens: two sequences of ten. Only a tenth more (29.33, rounded up) leaves room for three.
        ([10] * 8, 1000, 3, [30, 30, 20]),
        ([10] * 2, 5, 1, [10, 10]),
    ],
)
def test_sizes_of_even_batches(lengths: list[int], tokens_per_pass: int, workers: int, sizes: list[int]) -> None:
    for threads, ranks in ((workers, 1), (1, workers)):
        torch.set_num_threads(threads)
        batches = even_batches(lengths, tokens_per_pass, ranks=ranks)
        assert [sum(lengths[row] for row in rows) for rows in batches] == sizes


def test_side_by_side_keeps_the_order_and_gives_each_part_one_thread() -> None:
    torch.set_num_threads(2)
    assert side_by_side(lambda part: (part, torch.get_num_threads()), list(range(9))) == [(i, 1) for i in range(9)]
    assert torch.get_num_threads() == 2


def test_side_by_side_lets_an_error_through_and_gives_the_threads_back() -> None:
    torch.set_num_threads(2)

    def work(part: int) -> int:
        if part == 1:
            raise ZeroDivisionError
        return part

    with pytest.raises(ZeroDivisionError):
        side_by_side(work, [0, 1, 2])
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_thread_waits_long_for_another(threads: int) -> None:
    torch.set_num_threads(threads)
    for lengths in ([40] * 66, [30 + i % 20 for i in range(200)], [250 - i for i in range(120)]):
        batches = even_batches(lengths, 2048)
        assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
        assert len(batches) % threads == 0
        sizes = [sum(lengths[row] for row in rows) for rows in batches]
        assert max(sizes) <= 1.13 * sum(lengths) / len(batches)
        assert max(sizes) <= 1.13 * 2048
