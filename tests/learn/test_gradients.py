"""Threads and micro-batches change nothing but the time: gradients are those of one pass over everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clew.learn.batch import Example, PaddedBatch, pad
from clew.learn.gradients import accumulate_gradients, even_batches
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
    noted = accumulate_gradients(MODEL, examples, loss_of, tokens_per_pass=tokens_per_pass)
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
